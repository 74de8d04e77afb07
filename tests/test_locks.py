"""Locks between processes."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from morphogen.locks import lock, passing_lock

HOLD = """
import sys
from pathlib import Path
from morphogen.locks import lock, passing_lock
with lock(Path(sys.argv[1]), wait=False) as held:
    print(held, flush=True)
    sys.stdin.read()
"""
PASSING = "passing_lock(Path(sys.argv[1]))"


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


def test_a_passing_lock_takes_its_file_away_and_a_killed_one_can_be_taken(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    command = [sys.executable, "-c", HOLD.replace("lock(Path(sys.argv[1]), wait=False)", PASSING), str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        with passing_lock(path) as held:
            assert not held
        assert path.exists()
        other.kill()
        other.wait()
    assert path.exists()
    with passing_lock(path) as held:
        assert held
    assert not path.exists()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EIO])
def test_a_file_system_without_locks_is_worked_on_without_them(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)
    if number == errno.EIO:
        with pytest.raises(OSError, match="Input/output"), passing_lock(tmp_path / "x.lock"):
            pass
    else:
        with passing_lock(tmp_path / "x.lock") as held:
            assert held
