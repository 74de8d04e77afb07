"""SIGKILL at a random step, the same command again: the same weights and samples, bit for bit."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from morphogen.data.phantoms import phantom_dataset
from morphogen.training.checkpoint import sha256
from small_foundations import small_tiny

STEPS = 30


def command(folder: Path, run: Path) -> list[str]:
    words = ["train", "siamese", str(folder / "data"), "--out", str(run), "--preset", str(folder / "foundation")]
    words += ["--max-train-steps", str(STEPS), "--train-batch-size", "4", "--checkpointing-steps", "4"]
    return [sys.executable, "-c", f"from morphogen.cli import main; raise SystemExit(main({words!r}))"]


def start(folder: Path, run: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(command(folder, run), env=environment, stdout=subprocess.DEVNULL)


def hashes(run: Path) -> dict[str, str]:
    files = sorted((run / "final").rglob("*.safetensors"))
    return {str(file.relative_to(run)): sha256(file) for file in files}


def test_killed_and_started_again(tmp_path: Path) -> None:
    small_tiny().save(tmp_path / "foundation")
    phantom_dataset(tmp_path / "data", "mucosa", 6, 32)
    assert start(tmp_path, tmp_path / "whole").wait() == 0

    kill_at = random.Random().randint(5, STEPS - 3)  # truly at random: any step must do
    process, log = start(tmp_path, tmp_path / "cut"), tmp_path / "cut" / "metrics.jsonl"
    while not log.exists() or log.read_text().count("\n") < kill_at:
        assert process.poll() is None, "ended before it could be killed"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "cut" / "final").exists()

    assert start(tmp_path, tmp_path / "cut").wait() == 0
    assert hashes(tmp_path / "whole") == hashes(tmp_path / "cut"), f"killed at step {kill_at}"
    assert len(hashes(tmp_path / "cut")) == 4
    whole, cut = ((tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "cut"))
    assert whole == cut
    previews = [(tmp_path / name / "previews" / f"step-{STEPS:06d}.png").read_bytes() for name in ("whole", "cut")]
    assert previews[0] == previews[1]
