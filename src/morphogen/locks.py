"""Locks between the processes that share a folder; the system frees them however a process ends.

They are flock's: on one machine always, between machines where the shared file system passes them on (NFS does; Lustre
where it is mounted with -o flock).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNKNOWN_HERE = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What a file system without such locks answers."""


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


@contextmanager
def passing_lock(path: Path) -> Iterator[bool]:
    """Hold the lock that `path` stands for, without waiting; its file goes with it, in a folder that has to end clean.

    What a killed process leaves is an empty file that nobody holds; the next to take the lock removes it.

    Yields:
        Whether the lock is held. Where the system (Windows) or the file system has no such locks always True.
    """
    if os.name == "nt":
        yield True
        return
    while True:
        with path.open("a") as file:
            try:
                held = _acquire(file.fileno(), wait=False)
            except OSError as error:
                if error.errno not in UNKNOWN_HERE:
                    raise
                held = True
            if held and not _is_at(path, file.fileno()):
                continue  # whoever had it before has removed the file between the two steps
            try:
                yield held
            finally:
                if held:
                    path.unlink(missing_ok=True)  # before the lock goes, or it might be another one's file by then
        return


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


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
