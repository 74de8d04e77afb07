"""Two processes by torchrun train Siamese-Diffusion as one does, survive a kill, and sample the same files.

The file is also a script of those processes: ``test_siamese_several_processes.py COMMANDS`` runs one command line
after the other, until one fails.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from launching import TORCHRUN, end, start
from morphogen.cli import main
from morphogen.data.phantoms import phantom_dataset
from small_foundations import small_tiny

STEPS = 8
pytestmark = [
    pytest.mark.skipif(torch.cuda.is_available(), reason="compares with one process on the CPU; hide the GPU"),
    pytest.mark.slow,
    pytest.mark.timeout(900),  # seven processes are started: a minute on an idle core, many on a busy one
]


def train(run: Path, accumulation: int = 1, seed: int = 0) -> list[str]:
    folder = run.parent
    words = ["train", "siamese", str(folder / "data"), "--out", str(run), "--preset", str(folder / "foundation")]
    words += ["--max-train-steps", str(STEPS), "--train-batch-size", "6", "--seed", str(seed), "--adapt-steps", "2"]
    return [*words, "--gradient-accumulation-steps", str(accumulation), "--checkpointing-steps", "2"]


def sample(run: Path, out: str, *options: str) -> list[str]:
    words = ["sample", str(run), "--masks", str(run.parent / "data"), "--out", str(run.parent / out)]
    return [*words, "--batch-size", "1", *options]


def wait_for_rows(process: subprocess.Popen[str], log: Path, rows: int) -> None:
    while not log.exists() or log.read_text().count("\n") < rows:
        assert process.poll() is None, "ended before it could be killed"
        time.sleep(0.002)


def kill_one_of(launcher: subprocess.Popen[str], rank: int) -> None:
    for child in psutil.Process(launcher.pid).children():
        if child.environ().get("RANK") == str(rank):
            child.send_signal(signal.SIGKILL)


@dataclass
class Told:
    """What a launch has told the user."""

    status: int
    out: str
    errors: str

    @property
    def ours(self) -> list[str]:
        """Lines of stderr that are not the launcher's."""
        return [line for line in self.errors.splitlines() if line.startswith("morphogen: ")]


@dataclass
class Launches:
    folder: Path
    killed: Told
    resumed: Told
    refused: Told


@pytest.fixture(scope="module")
def launches(tmp_path_factory: pytest.TempPathFactory) -> Launches:
    """Runs in one folder: ``two``, ``parts``, and ``cut`` by two processes, the last of them killed; ``one`` by one."""
    folder = tmp_path_factory.mktemp("runs")
    small_tiny().save(folder / "foundation")
    phantom_dataset(folder / "data", "mucosa", 6, 32)
    cut, parts, two, one = (folder / name for name in ("cut", "parts", "two", "one"))

    together = sample(two, "together", "--json", str(folder / "together.json"))
    commands = [train(two), together, train(parts, accumulation=2), train(cut, accumulation=2)]
    several = start([*TORCHRUN, __file__, json.dumps(commands)])
    wait_for_rows(several, cut / "metrics.jsonl", 4)
    kill_one_of(several, rank=1)
    killed = Told(*end(several))
    assert not (cut / "final").exists()
    resumed = Told(*end(start([*TORCHRUN, "-m", "morphogen", *train(cut, accumulation=2)])))
    refused = Told(*end(start([*TORCHRUN, "-m", "morphogen", "train", "siames", "data", "--out", str(folder / "no")])))
    shards = [sample(two, "shards", "--shard", f"{worker}/2") for worker in range(2)]
    for words in (train(one), sample(one, "other"), sample(two, "whole"), *shards):
        assert main(words) == 0
    return Launches(folder, killed, resumed, refused)


def bytes_of(run: Path, kind: str) -> dict[str, bytes]:
    return {str(file.relative_to(run)): file.read_bytes() for file in sorted(run.rglob(f"*.{kind}"))}


def pictures(run: Path, part: str) -> dict[str, np.ndarray]:
    return {path.name: np.asarray(Image.open(path)).astype(int) for path in (run / part).iterdir()}


@pytest.mark.parametrize("name", ["two", "parts"])
@pytest.mark.parametrize("stage", ["", "adapted/decoder", "adapted/denoiser"])
def test_the_losses_are_those_of_one_process(launches: Launches, name: str, stage: str) -> None:
    logs = [(launches.folder / run / stage / "metrics.jsonl").read_text() for run in (name, "one")]
    rows, wanted = ([json.loads(line) for line in log.splitlines()] for log in logs)
    assert len(wanted) >= 2
    for row, want in zip(rows, wanted, strict=True):
        assert row == pytest.approx(want, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("name", ["two", "parts"])
def test_the_weights_are_those_of_one_process(launches: Launches, name: str) -> None:
    run, one = launches.folder / name, launches.folder / "one"
    files = sorted(path.relative_to(one) for path in one.rglob("*"))
    assert sorted(path.relative_to(run) for path in run.rglob("*")) == files
    for file in bytes_of(one, "safetensors"):
        found, wanted = load_file(run / file), load_file(one / file)
        differences = torch.cat([(found[key] - wanted[key]).flatten() for key in wanted])
        # single ones are larger: where a gradient is nothing but rounding, AdamW still makes a step of 2e-4 of it
        assert differences.square().mean().sqrt() < 1e-5, file


def test_a_killed_run_ends_with_the_same_bits(launches: Launches) -> None:
    cut, parts = launches.folder / "cut", launches.folder / "parts"
    assert launches.killed.status != 0
    assert len(launches.killed.ours) <= 1, launches.killed.errors  # it is the launcher that tells of the kill
    assert launches.resumed.status == 0, launches.resumed.errors
    assert bytes_of(cut, "safetensors") == bytes_of(parts, "safetensors")
    assert (cut / "metrics.jsonl").read_text() == (parts / "metrics.jsonl").read_text()


def test_the_user_is_told_once(launches: Launches) -> None:
    assert launches.resumed.out.splitlines().count(f"trained: {launches.folder / 'cut'}") == 1, launches.resumed.out
    (line,) = launches.refused.ours
    assert line == "morphogen: siames: no such method; did you mean siamese?"
    assert launches.refused.status != 0


def test_workers_and_processes_sample_the_same_files(launches: Launches) -> None:
    whole, shards, together = (bytes_of(launches.folder / name, "png") for name in ("whole", "shards", "together"))
    assert len(whole) == 12
    assert shards == whole
    assert together == whole
    assert json.loads((launches.folder / "together.json").read_text())["share"] == 3


def test_the_run_of_several_paints_what_that_of_one_paints(launches: Launches) -> None:
    run, one = launches.folder / "whole", launches.folder / "other"
    for part, levels in (("masks", 0), ("images", 1)):
        found, wanted = pictures(run, part), pictures(one, part)
        assert sorted(found) == sorted(wanted)
        for name, picture in wanted.items():
            assert np.abs(found[name] - picture).max() <= levels, (part, name)


def test_a_verb_for_one_process_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["demo"]) == 2
    assert capsys.readouterr().err == "morphogen: morphogen demo: runs as one process; start it without a launcher\n"


if __name__ == "__main__":
    for words in json.loads(sys.argv[1]):
        if main(words):
            raise SystemExit(1)
