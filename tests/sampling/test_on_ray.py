"""The runner on Ray: a pool of workers gives the folder of the plain runner, whatever becomes of them."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from morphogen.cli import main
from morphogen.data.phantoms import phantom_dataset
from morphogen.errors import InputError, WorkError
from morphogen.generators.copy_paste.model import CopyPasteConfig, train
from morphogen.sampling import on_ray
from morphogen.sampling.on_ray import run_on_ray
from morphogen.sampling.runner import RunSummary, run_jobs
from ray_here import WORKERS, needs_ray, two_workers
from small_sampler import PAIRS, load

__all__ = ["two_workers"]
pytestmark = [needs_ray, pytest.mark.usefixtures("two_workers")]
BATCH = 3


def files(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    (tmp_path / "notes").mkdir()
    return tmp_path / "notes"


def plain(notes: Path, out: Path) -> dict[str, bytes]:
    """What the plain runner makes."""
    there = notes.parent / "notes of the plain runner"
    there.mkdir()
    sampler, plan = load(there)
    run_jobs(sampler, plan, out, BATCH)
    return files(out)


def spread(notes: Path, out: Path) -> RunSummary:
    painter = partial(load, notes)
    return run_on_ray(painter, painter, out, BATCH, "local", WORKERS)


def painted(notes: Path) -> dict[str, set[int]]:
    """First id of a batch -> the processes that were asked to paint it."""
    found: dict[str, set[int]] = {}
    for path in notes.glob("j*.*"):
        found.setdefault(path.stem, set()).add(int(path.suffix[1:]))
    return found


def test_the_folder_is_that_of_the_plain_runner_and_is_not_made_twice(notes: Path, tmp_path: Path) -> None:
    summary = spread(notes, tmp_path / "ray")
    assert (summary.total, summary.made, summary.complete) == (PAIRS, PAIRS, True)
    assert files(tmp_path / "ray") == plain(notes, tmp_path / "plain")
    seen = painted(notes)
    assert len(seen) == PAIRS // BATCH
    assert all(len(processes) == 1 for processes in seen.values())
    assert os.getpid() not in set.union(*seen.values())
    assert spread(notes, tmp_path / "ray").made == 0
    assert painted(notes) == seen


def test_it_goes_on_where_another_run_stopped_in_the_same_batches(notes: Path, tmp_path: Path) -> None:
    whole = plain(notes, tmp_path / "plain")
    run_jobs(*load(notes.parent / "notes of the plain runner"), tmp_path / "ray", BATCH)
    for name in ("images/j04.png", "masks/j11.png"):
        (tmp_path / "ray" / name).unlink()
    assert spread(notes, tmp_path / "ray").made == 2
    assert set(painted(notes)) == {"j03", "j09"}
    assert files(tmp_path / "ray") == whole


def test_a_worker_killed_in_the_middle_costs_its_batch_alone(notes: Path, tmp_path: Path) -> None:
    """It is killed while it paints one batch; the other worker, or its successor, paints that one again."""
    (notes / "wait.j09").touch()

    def kill() -> None:
        deadline = time.monotonic() + 60
        while not (waiting := list(notes.glob("j09.*"))) and time.monotonic() < deadline:
            time.sleep(0.02)
        (notes / "wait.j09").unlink()
        os.kill(int(waiting[0].suffix[1:]), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    summary = spread(notes, tmp_path / "ray")
    killer.join()
    assert (summary.made, summary.complete) == (PAIRS, True)
    assert files(tmp_path / "ray") == plain(notes, tmp_path / "plain")
    seen = painted(notes)
    assert len(seen["j09"]) == 2
    assert sum(len(processes) for processes in seen.values()) <= PAIRS // BATCH + 2


def test_what_ends_every_worker_ends_the_run_in_one_line(
    notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_ray, "LIVES", 1)
    (notes / "die.j09").touch()
    with pytest.raises(WorkError, match=r"a Ray worker failed .*; run the same command again to continue") as caught:
        spread(notes, tmp_path / "ray")
    assert "\n" not in str(caught.value)
    whole = plain(notes, tmp_path / "plain")
    assert run_jobs(*load(notes.parent / "notes of the plain runner"), tmp_path / "ray", BATCH).complete
    assert files(tmp_path / "ray") == whole


def test_a_workers_fault_is_told_as_its_own(notes: Path, tmp_path: Path) -> None:
    (notes / "fault.j09").touch()
    with pytest.raises(WorkError, match=r"^j09: cannot be painted; choose other colours$"):
        spread(notes, tmp_path / "ray")
    with pytest.raises(WorkError, match="has another generator hash than the machine of the command"):
        run_on_ray(partial(load, notes, hash_="other"), partial(load, notes), tmp_path / "other", BATCH)


def test_a_second_run_in_the_folder_is_refused(notes: Path, tmp_path: Path) -> None:
    sampler, plan = load(notes)
    (notes / "wait.j00").touch()
    first = threading.Thread(target=spread, args=(notes, tmp_path / "ray"))
    first.start()
    deadline = time.monotonic() + 60
    while not list(notes.glob("j00.*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    with pytest.raises(InputError, match="another run is making pairs of its share 1/3"):
        run_jobs(sampler, plan, tmp_path / "ray", BATCH, (1, 3))
    (notes / "wait.j00").unlink()
    first.join()
    assert files(tmp_path / "ray") == plain(notes, tmp_path / "plain")


def test_the_command_gives_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a trained generator, by paths that are those of this process alone."""
    monkeypatch.chdir(tmp_path)
    train(phantom_dataset(Path("data"), "mucosa", 3, 32), CopyPasteConfig(resolution=32), Path("run"))
    words = ["sample", "run", "--masks", "data", "--per-mask", "4", "--batch-size", "5", "--json", "r.json", "--out"]
    assert main([*words, "plain"]) == 0
    assert main([*words, "ray", "--ray", "local", "--workers", str(WORKERS)]) == 0
    assert files(Path("ray")) == files(Path("plain"))
    assert json.loads(Path("r.json").read_text()) == {"out": "ray", "n": 12, "share": 12, "made": 12, "complete": True}
