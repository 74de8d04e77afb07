"""Who makes which pairs of a folder: two runs that would write the same files are told from two that share the work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import gcd
from pathlib import Path

from morphogen.errors import InputError
from morphogen.locks import passing_lock


@contextmanager
def hold_share(out: Path, worker: int, workers: int) -> Iterator[None]:
    """Keep every other run from the pairs of worker `worker` of `workers` for as long as this one lasts.

    Positions r modulo w and r' modulo w' have one in common where r and r' are equal modulo gcd(w, w') (the Chinese
    remainder theorem). A run that was killed leaves nothing that holds.

    Args:
        out: Folder of the run, which exists.
        worker: r, from 0.
        workers: w.

    Raises:
        InputError: Another run is at work on some of them.
    """
    ours = out / f".share-{worker}-of-{workers}.lock"
    with passing_lock(ours) as held:
        others = [path for path in sorted(out.glob(".share-*-of-*.lock")) if path != ours]
        busy = next((path for path in others if overlaps(path, worker, workers) and _is_held(path)), None)
        if not held or busy is not None:
            fault = f"another run is making pairs of its share {worker}/{workers}"
            raise InputError(f"{out}: {fault}; let it end, or choose another --shard or --out")
        yield


def overlaps(path: Path, worker: int, workers: int) -> bool:
    """Whether the share with this lock file has a position in common with that of worker `worker` of `workers`."""
    _, theirs, _, of = path.stem.split("-")
    return (int(theirs) - worker) % gcd(int(of), workers) == 0


def _is_held(path: Path) -> bool:
    with passing_lock(path) as free:
        return not free
