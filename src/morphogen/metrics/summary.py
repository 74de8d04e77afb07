"""Scores of many masks as one table: means over images with intervals, per class, and the counts of empty masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from morphogen.metrics.masks import POOLED, MaskScores
from morphogen.metrics.overlap import dice_from_counts, iou_from_counts, two_class_iou_from_counts
from morphogen.metrics.thresholds import CURVES, LEVELS, VALUES, MapScores

DRAWS = 2000


def summarise(scores: Mapping[str, MaskScores], classes: Sequence[str]) -> dict[str, Any]:
    """The result of ``eval masks``.

    Args:
        scores: Image id -> its scores, all of the same metrics.
        classes: Class names by label id, the background included.

    Returns:
        ``n``, ``metrics`` (name -> ``mean``, ``ci95``, ``per_image``, ``per_class``; pooled ones have ``mean`` and
        ``per_class``) and ``empty`` (class -> number of images with ``both`` masks or ``one`` mask empty).
    """
    found = list(scores.values())
    tables = {name: np.stack([score.per_class[name] for score in found]) for name in found[0].per_class}
    metrics = _over_images(list(scores), {name: table.mean(axis=1) for name, table in tables.items()})
    for name, table in tables.items():
        metrics[name]["per_class"] = dict(zip(classes[1:], table.mean(axis=0).tolist(), strict=True))
    metrics |= _pooled(found, classes)
    both = np.sum([score.both_empty for score in found], axis=0)
    one = np.sum([score.one_empty for score in found], axis=0)
    empty = {name: {"both": int(b), "one": int(o)} for name, b, o in zip(classes[1:], both, one, strict=True)}
    return {"n": len(scores), "metrics": metrics, "empty": empty}


def summarise_maps(scores: Mapping[str, MapScores], lesion: str) -> dict[str, Any]:
    """The result of ``eval masks --probabilities``.

    Args:
        scores: Image id -> its scores.
        lesion: Name of the foreground class.

    Returns:
        ``n``, ``metrics`` and ``empty`` as `summarise` has them. A curve makes two metrics: its mean over thresholds
        and images, and the highest ``mean`` over images of any ``threshold``.
    """
    found = list(scores.values())
    curves = {name: np.stack([score.curves[name] for score in found]) for name in CURVES}
    values = {f"{name}_mean": curve.mean(axis=1) for name, curve in curves.items()}
    values |= {name: np.array([score.values[name] for score in found]) for name in VALUES}
    metrics = _over_images(list(scores), values)
    for name, curve in curves.items():
        best = int(curve.mean(axis=0).argmax())
        metrics[f"{name}_max"] = {"mean": float(curve[:, best].mean()), "threshold": best / (LEVELS - 1)}
    for metric in metrics.values():
        metric["per_class"] = {lesion: metric["mean"]}
    black = [score.highest == 0 for score in found]
    both = sum(score.empty and dark for score, dark in zip(found, black, strict=True))
    one = sum(score.empty != dark for score, dark in zip(found, black, strict=True))
    return {"n": len(scores), "metrics": metrics, "empty": {lesion: {"both": both, "one": one}}}


def _over_images(images: list[str], values: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """Metric -> mean, interval and value of every image, of (N,) values by metric."""
    found = intervals(np.stack(list(values.values()), axis=1))
    return {
        name: {"mean": float(v.mean()), "ci95": ci95, "per_image": dict(zip(images, v.tolist(), strict=True))}
        for (name, v), ci95 in zip(values.items(), found, strict=True)
    }


def _pooled(scores: Sequence[MaskScores], classes: Sequence[str]) -> dict[str, dict[str, Any]]:
    counts = np.sum([score.counts for score in scores], axis=0)
    pixels = sum(score.pixels for score in scores)
    values = {
        "dice": dice_from_counts(counts),
        "iou": iou_from_counts(counts),
        "iou_two_class": two_class_iou_from_counts(counts, pixels),
    }
    return {
        POOLED[name]: {"mean": float(v.mean()), "per_class": dict(zip(classes[1:], v.tolist(), strict=True))}
        for name, v in values.items()
        if name in scores[0].per_class
    }


def bootstrap_ci95(values: np.ndarray, draws: int = DRAWS, seed: int = 0) -> tuple[float, float] | None:
    """Percentile bootstrap interval of a mean; the values count as independent.

    Args:
        values: (N,).
        draws: Resamples.
        seed: Of the resamples.

    Returns:
        (low, high), or None for fewer than two values.
    """
    return intervals(values[:, None], draws, seed)[0]


def intervals(table: np.ndarray, draws: int = DRAWS, seed: int = 0) -> list[tuple[float, float] | None]:
    """`bootstrap_ci95` of every column of (N, M), all on the same resamples."""
    n, columns = table.shape
    if n < 2:
        return [None] * columns
    rng = np.random.default_rng(seed)
    means = np.empty((draws, columns))
    for draw in range(draws):
        means[draw] = np.bincount(rng.integers(0, n, n), minlength=n) @ table
    low, high = np.percentile(means / n, [2.5, 97.5], axis=0)
    return list(zip(low.tolist(), high.tolist(), strict=True))
