"""Starting processes on the CPU: one, or two by torchrun as a user would."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

SECONDS = 180
"""After which a launch has hung."""
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "ACCELERATE_USE_CPU": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
}
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


def start(command: Sequence[str]) -> subprocess.Popen[str]:
    """The command, its output kept; the CPU is all that it sees."""
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env={**os.environ, **ENVIRONMENT}, stdout=pipe, stderr=pipe, text=True)


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit status, stdout and stderr; one that hangs is ended, by its launcher where it has one, and fails the test."""
    try:
        out, errors = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.terminate()
        raise AssertionError(f"hung: {process.communicate()[1]}") from None
    return process.returncode, out, errors
