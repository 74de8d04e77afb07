"""Scores of many mask files, by several processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from morphogen.errors import InputError, WorkError
from morphogen.metrics.mask_files import MaskPair, MaskPairs
from morphogen.metrics.masks import MaskScores, score_masks
from morphogen.metrics.thresholds import MapScores, score_map
from morphogen.metrics.volumes import score_volume
from morphogen.progress import track

S = TypeVar("S")
Score = Callable[[MaskPair], S]

WORTH_A_PROCESS = 48
"""Pictures that take as long as a process takes to start; a volume counts as a dozen."""
AT_ONCE = 8
"""Pairs that a process takes at a time."""


def score_files(pairs: MaskPairs, score: Score[S], workers: int | None = None) -> dict[str, S]:
    """Read and score every pair, with a progress bar.

    Args:
        pairs: The files.
        score: What is done with a pair; pickled where there are several workers.
        workers: Processes; None for as many as there are cores and the work is worth. They are spawned, so that a
            script which calls this needs the usual ``if __name__ == "__main__"``.

    Returns:
        Id -> score, in the order of the files, whatever the number of workers.

    Raises:
        InputError: As `MaskPairs.read`; or a number of workers below 1.
        WorkError: A worker was killed.
    """
    if workers is not None and workers < 1:
        raise InputError(f"--workers {workers}: is not positive; give at least 1")
    size = len(pairs) * (12 if pairs.volumes else 1)
    number = min(workers or min(_cores(), size // WORTH_A_PROCESS), len(pairs))
    if number <= 1:
        return {pair.id: score(pair) for pair in track(pairs, "scoring", len(pairs))}
    chunk = 1 if pairs.volumes else max(1, min(AT_ONCE, len(pairs) // (4 * number)))
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(number, context, _begin, (pairs, score)) as pool:
            found = pool.map(_score_one, pairs.files, chunksize=chunk)
            return dict(zip(pairs.files, track(found, "scoring", len(pairs)), strict=True))
    except BrokenProcessPool as error:
        fault = "a process that scored masks ended early (killed, or started by a script without a main guard)"
        raise WorkError(f"{fault}; free some memory, or give --workers 1") from error


def score_labels(pair: MaskPair, n_classes: int, metrics: Sequence[str], tolerance: float) -> MaskScores:
    """`score_masks` of a pair of files."""
    return score_masks(pair.pred, pair.ref, n_classes, pair.spacing, metrics, tolerance)


def score_volumes(pair: MaskPair, n_classes: int, in_mm: bool) -> MaskScores:
    """`score_volume` of a pair of files; distances in mm only where all pairs have them."""
    return score_volume(pair.pred, pair.ref, n_classes, pair.spacing if in_mm else None)


def score_probabilities(pair: MaskPair) -> MapScores:
    """`score_map` of a probability map and the mask of two classes beside it."""
    return score_map(pair.pred, pair.ref == 1)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_JOB: tuple[MaskPairs, Score[Any]]


def _begin(pairs: MaskPairs, score: Score[Any]) -> None:
    """What every worker holds; an interrupt is the first process's affair."""
    global _JOB
    _JOB = pairs, score
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _score_one(name: str) -> Any:
    pairs, score = _JOB
    try:
        return score(pairs.read(name))
    except InputError as error:  # its subclasses do not survive the way back
        raise InputError(str(error)) from None
