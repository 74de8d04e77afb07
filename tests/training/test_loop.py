"""The loop: exact resume, accumulation, precision of the bookkeeping, and what it refuses."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from morphogen.errors import InputError, WorkError
from morphogen.training import checkpoint, loop
from morphogen.training.checkpoint import newest_checkpoint, prune, save_checkpoint, verify
from morphogen.training.ema import EMA
from morphogen.training.loop import fit
from morphogen.training.optim import PhaseOptimizer, learning_rate
from morphogen.training.rng import normal
from morphogen.training.task import Batch, Draw, LoopConfig, Phase, Progress


class Regression:
    """y = 2x + noise by a small net with dropout, so that every source of randomness is exercised."""

    def __init__(self, die_at: int | None = None, bad_at: int | None = None) -> None:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.1), nn.Linear(8, 1))
        self.modules, self.die_at, self.bad_at = nn.ModuleDict({"net": net}), die_at, bad_at
        self.seen: list[list[Draw]] = []

    def __len__(self) -> int:
        return 10

    def phases(self) -> Sequence[Phase]:
        return [Phase("fit", list(self.modules.parameters()), self.loss, lr=1e-2, schedule="cosine")]

    def batch(self, draws: Sequence[Draw]) -> Batch:
        self.seen.append(list(draws))
        return {"x": normal([d.seed for d in draws], (3,), "x"), "index": torch.tensor([d.index for d in draws])}

    def loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        if progress.step == self.die_at:
            raise KeyboardInterrupt
        error = self.modules["net"](batch["x"]) - 2 * batch["x"].sum(1, keepdim=True)
        mse = error.square().mean()
        return {"mse": mse * (float("nan") if progress.step == self.bad_at else 1), "log/abs": error.abs().mean()}

    def to(self, device: Any) -> None: ...

    def preview(self, step: int, folder: Path) -> None:
        torch.rand(())  # a preview that draws must not change the run

    def validate(self, step: int) -> Mapping[str, float]:
        return {"score": -abs(step - 4)}

    def save(self, folder: Path) -> None:
        save_file(self.modules.state_dict(), folder / "net.safetensors")


CONFIG = LoopConfig(
    max_train_steps=9, train_batch_size=4, ema_decay=0.9, checkpointing_steps=3, validation_steps=2, seed=5
)


def weights(out: Path) -> dict[str, Tensor]:
    return load_file(out / "final" / "net.safetensors")


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("die_at", [1, 4, 7])
def test_an_interrupted_run_ends_with_the_same_bits(tmp_path: Path, die_at: int) -> None:
    fit(Regression(), CONFIG, tmp_path / "whole", {})
    with pytest.raises(KeyboardInterrupt):
        fit(Regression(die_at=die_at), CONFIG, tmp_path / "cut", {})
    fit(Regression(), CONFIG, tmp_path / "cut", {})
    assert equal(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    whole, cut = ((tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "cut"))
    assert whole == cut


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    fit(Regression(), CONFIG, tmp_path / "run", {})
    again = Regression()
    fit(again, CONFIG, tmp_path / "run", {})
    assert again.seen == []


def test_accumulation_trains_on_the_same_global_batch(tmp_path: Path) -> None:
    for parts in (1, 3):  # 4 rows in parts of 1, 1 and 2
        task = Regression()
        task.modules["net"][1].p = 0.0  # module dropout is drawn per part
        fit(task, replace(CONFIG, gradient_accumulation_steps=parts), tmp_path / str(parts), {})
        assert sum(len(rows) for rows in task.seen) == 9 * 4
    one, three = weights(tmp_path / "1"), weights(tmp_path / "3")
    assert all(torch.allclose(one[k], three[k], atol=1e-6) for k in one)


def test_every_item_is_seen_once_an_epoch(tmp_path: Path) -> None:
    task = Regression()
    fit(task, replace(CONFIG, max_train_steps=5), tmp_path / "run", {})
    indices = [draw.index for rows in task.seen for draw in rows]
    assert sorted(indices[:10]) == sorted(indices[10:]) == list(range(10))
    assert len({draw.seed for rows in task.seen for draw in rows}) == 20


def test_the_loss_that_is_logged_leaves_out_what_is_only_logged(tmp_path: Path) -> None:
    fit(Regression(), CONFIG, tmp_path / "run", {})
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    first = rows[0]
    assert first["loss"] == pytest.approx(first["mse"])
    assert first["log/abs"] > 0
    assert [row["step"] for row in rows if "mse" in row] == list(range(9))


def test_the_best_weights_are_kept(tmp_path: Path) -> None:
    class Watched(Regression):
        at_best: dict[str, Tensor] | None = None

        def validate(self, step: int) -> Mapping[str, float]:
            if step == 4:
                self.at_best = {k: v.clone() for k, v in self.modules.state_dict().items()}
            return super().validate(step)

    task = Watched()
    fit(task, replace(CONFIG, keep_best=True), tmp_path / "run", {})
    assert task.at_best is not None
    assert equal(weights(tmp_path / "run"), task.at_best)


def test_other_settings_are_refused_and_nothing_is_touched(tmp_path: Path) -> None:
    fit(Regression(), CONFIG, tmp_path / "run", {"lr": 1})
    before = weights(tmp_path / "run")
    with pytest.raises(InputError, match=r"holds a run with other settings \(lr: 1 there, 2 asked\)"):
        fit(Regression(), CONFIG, tmp_path / "run", {"lr": 2})
    assert equal(before, weights(tmp_path / "run"))


def test_a_setting_within_settings_is_named_alone(tmp_path: Path) -> None:
    fit(Regression(), CONFIG, tmp_path / "run", {"model": {"lr": 1, "side": 5}})
    with pytest.raises(InputError, match=r"other settings \(model.lr: 1 there, 2 asked\)"):
        fit(Regression(), CONFIG, tmp_path / "run", {"model": {"lr": 2, "side": 5}})


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty and holds no run"):
        fit(Regression(), CONFIG, tmp_path, {})


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(WorkError, match="loss is nan at step 5; lower --lr"):
        fit(Regression(bad_at=5), CONFIG, tmp_path / "run", {})
    assert newest_checkpoint(tmp_path / "run" / "checkpoints") is not None


@pytest.mark.parametrize(
    "fault",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError(f"Error while serializing: I/O error: No space left on device (os error {errno.ENOSPC})"),
    ],
)
def test_a_full_disk_is_one_line_and_earlier_checkpoints_live(
    fault: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []
    real = checkpoint.save_file

    def limited(tensors: dict[str, Tensor], path: Path) -> None:
        written.append(path)
        if len(written) > 4:
            raise fault
        real(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", limited)
    with pytest.raises(WorkError, match="the disk is full; free some space"):
        fit(Regression(), CONFIG, tmp_path / "run", {})
    left = newest_checkpoint(tmp_path / "run" / "checkpoints")
    assert left is not None
    assert left.name == "step-00000003"
    monkeypatch.setattr(checkpoint, "save_file", real)
    fit(Regression(), CONFIG, tmp_path / "run", {})
    fit(Regression(), CONFIG, tmp_path / "whole", {})
    assert equal(weights(tmp_path / "whole"), weights(tmp_path / "run"))


class TestCheckpoints:
    def make(self, folder: Path, step: int) -> Path:
        return save_checkpoint(folder, step, {"model": {"w": torch.full((3,), float(step))}}, {})

    def test_a_damaged_one_is_passed_over(self, tmp_path: Path) -> None:
        self.make(tmp_path, 1)
        bad = self.make(tmp_path, 2)
        data = bytearray((bad / "model.safetensors").read_bytes())
        data[-1] ^= 1
        (bad / "model.safetensors").write_bytes(bytes(data))
        assert not verify(bad)
        assert newest_checkpoint(tmp_path) == tmp_path / "step-00000001"

    def test_an_unfinished_one_is_passed_over_and_cleared(self, tmp_path: Path) -> None:
        good = self.make(tmp_path, 1)
        (tmp_path / "step-00000002.tmp").mkdir()
        assert newest_checkpoint(tmp_path) == good
        prune(tmp_path, 1)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000001"]

    def test_old_ones_go(self, tmp_path: Path) -> None:
        for step in range(4):
            self.make(tmp_path, step)
        prune(tmp_path, 2)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000002", "step-00000003"]


def test_ema_against_its_definition() -> None:
    parameter = nn.Parameter(torch.tensor([1.0, -1.0]))
    ema, literal = EMA({"p": parameter}, 0.9), parameter.detach().clone().double()
    for n in range(1, 30):
        with torch.no_grad():
            parameter.add_(torch.tensor([0.1, 0.3]))
        ema.update()
        d = min(0.9, (1 + n) / (10 + n))
        literal = d * literal + (1 - d) * parameter.detach().double()
    assert torch.allclose(ema.shadow["p"].double(), literal, atol=1e-6)
    with ema.swapped_in():
        assert torch.allclose(parameter.double(), literal, atol=1e-6)
    assert torch.allclose(parameter, torch.tensor([1.0 + 2.9, -1.0 + 8.7]), atol=1e-5)


def test_optimiser_state_survives_any_memory_layout() -> None:
    """AdamW's fused kernel reads raw memory, and files hold tensors row by row."""

    def make() -> tuple[nn.Conv2d, PhaseOptimizer]:
        torch.manual_seed(0)
        conv = nn.Conv2d(3, 5, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return conv, PhaseOptimizer(Phase("p", list(conv.parameters()), lambda *_: {}, lr=0.1))

    def step(conv: nn.Conv2d, optimizer: PhaseOptimizer, k: int) -> None:
        conv.zero_grad()
        generator = torch.Generator().manual_seed(k)
        conv(torch.randn(2, 3, 8, 8, generator=generator)).square().sum().backward()
        optimizer.step(Progress(k, 9), 0.0)

    whole, cut = make(), make()
    for k in range(4):
        step(*whole, k)
    for k in range(2):
        step(*cut, k)
    again = make()
    again[0].load_state_dict({k: v.contiguous() for k, v in cut[0].state_dict().items()})
    again[1].load({k: v.contiguous() for k, v in cut[1].state().items()})
    for k in range(2, 4):
        step(*again, k)
    assert torch.equal(whole[0].weight, again[0].weight)


def test_learning_rate_warms_up_and_follows_half_a_cosine() -> None:
    phase = Phase("p", [], lambda *_: {}, lr=2.0, schedule="cosine", warmup=4)
    values = [learning_rate(phase, Progress(step, 12)) for step in range(12)]
    assert values[:4] == [0.5, 1.0, 1.5, 2.0]
    assert values[8] == pytest.approx(1.0)
    assert values[11] == pytest.approx(2.0 * 0.5 * (1 - 0.92388), abs=1e-4)
    assert learning_rate(replace(phase, schedule="constant"), Progress(9, 12)) == 2.0


def test_phases_run_on_their_own_steps_and_leave_the_others_gradients_alone(tmp_path: Path) -> None:
    class Two(Regression):
        def phases(self) -> Sequence[Phase]:
            a, b = self.modules["net"][0], self.modules["net"][2]
            return [
                Phase("a", list(a.parameters()), self.loss, lr=1e-2, weight_decay=0.0),
                Phase("b", list(b.parameters()), self.loss, lr=0.0, weight_decay=0.0, every=2),
            ]

    task = Two()
    before = {k: v.clone() for k, v in task.modules.state_dict().items()}
    fit(task, replace(CONFIG, ema_decay=0.0, max_train_steps=4), tmp_path / "run", {})
    after = weights(tmp_path / "run")
    assert not torch.equal(before["net.0.weight"], after["net.0.weight"])
    assert torch.equal(before["net.2.weight"], after["net.2.weight"])
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "b/mse" in row] == [0, 2]


def test_sigterm_saves_first(tmp_path: Path) -> None:
    import os
    import signal

    class Interrupted(Regression):
        def loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
            if progress.step == 4:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().loss(batch, progress)

    with pytest.raises(WorkError, match="stopped by a signal after step 5"):
        fit(Interrupted(), CONFIG, tmp_path / "run", {})
    newest = newest_checkpoint(tmp_path / "run" / "checkpoints")
    assert newest is not None
    assert newest.name == "step-00000005"


def test_the_loop_module_has_no_pickle() -> None:
    assert "torch.save" not in Path(loop.__file__).read_text() + Path(checkpoint.__file__).read_text()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_train_steps": 0}, "--max-train-steps 0: must be positive"),
        ({"checkpointing_steps": 0}, "--checkpointing-steps 0"),
        ({"mixed_precision": "fp8"}, "--mixed-precision fp8: choose no, bf16 or fp16"),
        ({"train_batch_size": 2, "gradient_accumulation_steps": 3}, "--train-batch-size 2: fewer rows than 3 parts"),
    ],
)
def test_impossible_settings_are_refused_before_anything_is_written(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        LoopConfig(**options)


def test_one_process_trains_in_several_precisions(tmp_path: Path) -> None:
    fit(Regression(), replace(CONFIG, mixed_precision="bf16"), tmp_path / "half", {})
    fit(Regression(), CONFIG, tmp_path / "after", {})
    fit(Regression(), CONFIG, tmp_path / "again", {})
    assert equal(weights(tmp_path / "after"), weights(tmp_path / "again"))
    assert not equal(weights(tmp_path / "after"), weights(tmp_path / "half"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="fp16 is possible here")
def test_half_precision_without_a_gpu_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--mixed-precision fp16: needs a GPU"):
        fit(Regression(), replace(CONFIG, mixed_precision="fp16"), tmp_path / "run", {})
    assert not (tmp_path / "run").exists()
