"""Scores of many masks as one table: means over images with intervals, per class, and the counts of empty masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from morphogen.metrics.masks import METRICS, MaskScores

DRAWS = 2000


def summarise(scores: Mapping[str, MaskScores], classes: Sequence[str]) -> dict[str, Any]:
    """The result of ``eval masks``.

    Args:
        scores: Image id -> its scores.
        classes: Class names by label id, the background included.

    Returns:
        ``n``, ``metrics`` (name -> ``mean``, ``ci95``, ``per_image``, ``per_class``) and ``empty`` (class -> number of
        images with ``both`` masks or ``one`` mask empty).
    """
    metrics = {}
    for name in METRICS:
        table = np.stack([score.per_class[name] for score in scores.values()])
        images = table.mean(axis=1)
        metrics[name] = {
            "mean": float(images.mean()),
            "ci95": bootstrap_ci95(images),
            "per_image": dict(zip(scores, images.tolist(), strict=True)),
            "per_class": dict(zip(classes[1:], table.mean(axis=0).tolist(), strict=True)),
        }
    both = np.sum([score.both_empty for score in scores.values()], axis=0)
    one = np.sum([score.one_empty for score in scores.values()], axis=0)
    empty = {name: {"both": int(b), "one": int(o)} for name, b, o in zip(classes[1:], both, one, strict=True)}
    return {"n": len(scores), "metrics": metrics, "empty": empty}


def bootstrap_ci95(values: np.ndarray, draws: int = DRAWS, seed: int = 0) -> tuple[float, float] | None:
    """Percentile bootstrap interval of a mean; the values count as independent.

    Args:
        values: (N,).
        draws: Resamples.
        seed: Of the resamples.

    Returns:
        (low, high), or None for fewer than two values.
    """
    if len(values) < 2:
        return None
    rng = np.random.default_rng(seed)
    means = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(draws)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
