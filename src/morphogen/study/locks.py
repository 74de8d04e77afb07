"""Locks between the processes that work on one study; the system frees them however a process ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def lock(path: Path, wait: bool) -> Iterator[bool]:
    """Hold the lock that `path` stands for; its folder is made where needed, and the empty file stays.

    Args:
        path: Lock file.
        wait: Wait for another process that holds it, rather than going on without it.

    Yields:
        Whether the lock is held. Where the system has no such locks (Windows) always True: run one process there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        yield _acquire(file.fileno(), wait)


def _acquire(descriptor: int, wait: bool) -> bool:
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True
