"""Locks between processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from morphogen.study.locks import lock

HOLD = """
import sys
from pathlib import Path
from morphogen.study.locks import lock
with lock(Path(sys.argv[1]), wait=False) as held:
    print(held, flush=True)
    sys.stdin.read()
"""


def test_one_process_at_a_time_and_a_killed_one_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x.lock"
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        with lock(path, wait=False) as held:
            assert not held
        other.kill()
        other.wait()
    with lock(path, wait=True) as held:
        assert held
    with lock(path, wait=False) as held:
        assert held
