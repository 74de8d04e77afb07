"""Two processes on the CPU train as one does, survive a kill, and leave the run folder to the main one.

The file is also the script of those processes: ``torchrun test_several_processes.py SCENARIO FOLDER``.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from launching import TORCHRUN, end, start
from morphogen.errors import InputError, WorkError
from morphogen.training import loop
from morphogen.training.checkpoint import newest_checkpoint
from morphogen.training.loop import fit
from morphogen.training.processes import rows_of_all
from morphogen.training.rng import normal
from morphogen.training.task import Batch, Draw, LoopConfig, Phase, Progress

CONFIG = LoopConfig(
    max_train_steps=7, train_batch_size=5, ema_decay=0.9, checkpointing_steps=3, validation_steps=2, seed=5
)
RANK = int(os.environ.get("RANK", "0"))


class Pictures:
    """A convolution that lies channels-last, a parameter that few rows reach, and one that none does."""

    def __init__(self, at: Callable[[int | str], None] = lambda _: None) -> None:
        torch.manual_seed(0)
        conv = nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        rare = nn.ParameterDict({"bonus": nn.Parameter(torch.ones(1)), "never": nn.Parameter(torch.ones(1))})
        self.modules, self.at = nn.ModuleDict({"conv": conv, "head": nn.Linear(3, 1), "rare": rare}), at
        self.draws: list[list[tuple[int, int]]] = []

    def __len__(self) -> int:
        return 11

    def phases(self) -> Sequence[Phase]:
        return [Phase("fit", list(self.modules.parameters()), self.loss, lr=1e-2, weight_decay=0.1)]

    def batch(self, draws: Sequence[Draw]) -> Batch:
        self.draws.append([(draw.index, draw.seed) for draw in draws])
        index = torch.tensor([draw.index for draw in draws])
        return {"x": normal([draw.seed for draw in draws], (2, 5, 5), "x"), "index": index}

    def loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        self.at(progress.step)
        made = self.modules["head"](self.modules["conv"](batch["x"]).relu().mean((2, 3)))[:, 0]
        marked = batch["index"] < 2
        if marked.any():
            made = made + marked * self.modules.get_parameter("rare.bonus")
        return {"mse": (made - batch["x"].mean((1, 2, 3))).square().mean()}

    def to(self, device: Any) -> None: ...

    def preview(self, step: int, folder: Path) -> None:
        (folder / f"{step}.txt").write_text("made")

    def validate(self, step: int) -> Mapping[str, float]:
        return {"score": float(self.modules.get_parameter("head.weight").sum())}

    def save(self, folder: Path) -> None:
        self.at("save")
        save_file({k: v.contiguous() for k, v in self.modules.state_dict().items()}, folder / "weights.safetensors")


def kill(at: int, rank: int, sent: signal.Signals) -> Callable[[int | str], None]:
    """Process `rank` gets the signal `sent` at a step."""

    def act(now: int | str) -> None:
        if now == at and rank == RANK:
            os.kill(os.getpid(), sent)

    return act


def fault(task: Pictures, config: LoopConfig, out: Path) -> str:
    try:
        fit(task, config, out, {})
    except (InputError, WorkError) as error:
        return type(error).__name__ + str(error).removeprefix(str(out))
    return ""


def first(folder: Path) -> dict[str, Any]:
    """Several trainings in one launch, refusals, a stop that one process hears of, and a kill."""

    def copy(now: int | str) -> None:
        if now == "save":  # what a kill at this point leaves
            shutil.copytree(folder / "whole", folder / "late")

    task = Pictures(copy)
    found: dict[str, Any] = {"first": fault(task, CONFIG, folder / "whole"), "draws": task.draws}
    stopped = Pictures(kill(4, 1, signal.SIGTERM))
    found["stopped"] = fault(stopped, CONFIG, folder / "stopped")
    newest = newest_checkpoint(folder / "stopped" / "checkpoints")
    found["kept"] = newest.name if newest else None
    if RANK == 0:
        shutil.copytree(folder / "stopped", folder / "handed")  # for one process to go on with
    found["resumed"] = fault(Pictures(), CONFIG, folder / "stopped")
    again = Pictures()
    found["again"] = fault(again, CONFIG, folder / "whole") or again.draws
    found["other"] = fault(Pictures(), replace(CONFIG, seed=6), folder / "whole")
    found["few"] = fault(Pictures(), replace(CONFIG, train_batch_size=1), folder / "few")
    found["rows"] = [rows_of_all(torch.full((n, 2), RANK + 0.5)).tolist() for n in (1 + RANK, 1 - RANK)]
    report(folder, "first", found)
    fit(Pictures(kill(5, 0, signal.SIGKILL)), CONFIG, folder / "killed", {})
    return found


def second(folder: Path) -> dict[str, Any]:
    """What was killed goes on from its checkpoint, though one process reads it late."""
    real = loop.load_checkpoint

    def slow(path: Path) -> Any:
        time.sleep(0.5 * RANK)
        return real(path)

    loop.load_checkpoint = slow
    killed, late = Pictures(), Pictures()
    return {
        "killed": fault(killed, CONFIG, folder / "killed"),
        "steps": len(killed.draws),
        "late": fault(late, CONFIG, folder / "late") or late.draws,
    }


def report(folder: Path, scenario: str, found: Mapping[str, Any]) -> None:
    (folder / f"{scenario}-{RANK}.json").write_text(json.dumps({**found, "wrote": WROTE}))


WROTE: list[str] = []
"""Paths in run folders that this process has changed."""


def watch(folder: Path) -> None:
    """Note what this process changes; the other one looks for a run before the main one and acts on it after."""

    def note(event: str, args: tuple[Any, ...]) -> None:
        changes = event.startswith(("os.", "shutil.")) or (event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR))
        if changes and args and str(args[0]).startswith(str(folder)) and event not in ("os.listdir", "os.scandir"):
            WROTE.append(f"{event} {args[0]}")

    sys.addaudithook(note)
    real = Path.exists

    def exists(path: Path, **options: Any) -> bool:
        slow = 0.2 if path.name == "config.yaml" else 0.0
        time.sleep(slow * (RANK == 0))
        seen = real(path, **options)
        time.sleep(2 * slow * (RANK == 1))
        return seen

    Path.exists = exists  # type: ignore[assignment, method-assign]


def reports(folder: Path, scenario: str) -> list[dict[str, Any]]:
    return [json.loads((folder / f"{scenario}-{rank}.json").read_text()) for rank in range(2)]


def assert_same_run(run: Path, one: Path) -> None:
    """The files and numbers of `run` are those of `one`."""
    assert sorted(p.relative_to(run) for p in run.rglob("*")) == sorted(p.relative_to(one) for p in one.rglob("*"))
    weights, expected = (load_file(path / "final" / "weights.safetensors") for path in (run, one))
    torch.testing.assert_close(weights, expected, rtol=1e-5, atol=1e-5)
    rows, wanted = ([json.loads(r) for r in (p / "metrics.jsonl").read_text().splitlines()] for p in (run, one))
    assert [sorted(row) for row in rows] == [sorted(row) for row in wanted]
    for row, want in zip(rows, wanted, strict=True):
        assert row == pytest.approx(want, abs=1e-5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All launches, and the same training by one process in ``one``; a launch that hangs fails here."""
    folder = tmp_path_factory.mktemp("runs")
    task = Pictures()
    fit(task, CONFIG, folder / "one", {})
    (folder / "one.json").write_text(json.dumps(task.draws))
    for scenario, ends in (("first", False), ("second", True)):
        status, _, errors = end(start([*TORCHRUN, __file__, scenario, str(folder)]))
        assert (status == 0) == ends, errors
        assert (folder / f"{scenario}-1.json").exists(), errors
    return folder


def test_two_processes_train_as_one_does(folder: Path) -> None:
    main, other = reports(folder, "first")
    assert (main["first"], other["first"]) == ("", "")
    assert [a + b for a, b in zip(main["draws"], other["draws"], strict=True)] == json.loads(
        (folder / "one.json").read_text()
    )
    assert_same_run(folder / "whole", folder / "one")


def test_a_signal_to_one_process_stops_both_after_the_same_step(folder: Path) -> None:
    for found in reports(folder, "first"):
        assert found["stopped"].startswith("StoppedError: stopped by a signal after step 5")
        assert (found["kept"], found["resumed"]) == ("step-00000005", "")
    assert_same_run(folder / "stopped", folder / "one")


def test_one_process_goes_on_with_what_two_have_begun(folder: Path) -> None:
    task = Pictures()
    fit(task, CONFIG, folder / "handed", {})
    assert len(task.draws) == 2
    assert_same_run(folder / "handed", folder / "one")


def test_every_process_has_the_rows_of_all_in_one_order_though_they_differ_in_number(folder: Path) -> None:
    of_first, of_second = [0.5, 0.5], [1.5, 1.5]
    for found in reports(folder, "first"):
        assert found["rows"] == [[of_first, of_second, of_second], [of_first]]
    assert torch.equal(rows_of_all(torch.ones(3)), torch.ones(3))  # of one process


def test_all_processes_refuse_what_one_refuses(folder: Path) -> None:
    for found in reports(folder, "first"):
        assert found["again"] == []
        assert found["other"].startswith("InputError: holds a run with other settings")
        assert "fewer rows than 2 processes" in found["few"]
    assert not (folder / "few").exists()


def test_a_killed_run_ends_as_if_it_had_not_been(folder: Path) -> None:
    for found in reports(folder, "second"):
        assert (found["killed"], found["steps"]) == ("", 4)
    assert_same_run(folder / "killed", folder / "one")


def test_a_run_killed_when_all_but_its_result_was_there_only_writes_it(folder: Path) -> None:
    for found in reports(folder, "second"):
        assert found["late"] == []
    assert_same_run(folder / "late", folder / "one")


def test_the_main_process_alone_writes(folder: Path) -> None:
    for scenario in ("first", "second"):
        main, other = reports(folder, scenario)
        assert main["wrote"]
        assert other["wrote"] == []


def test_processes_that_would_train_alone_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="WORLD_SIZE=2: several processes and no GPU; set ACCELERATE_USE_CPU=1"):
        fit(Pictures(), CONFIG, tmp_path / "run", {})
    assert not (tmp_path / "run").exists()


if __name__ == "__main__":
    scenario, folder_ = sys.argv[1], Path(sys.argv[2])
    watch(folder_)
    report(folder_, scenario, {"first": first, "second": second}[scenario](folder_))
