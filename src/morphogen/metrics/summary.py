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
    metrics = {}
    for name in found[0].per_class:
        table = np.stack([score.per_class[name] for score in found])
        metrics[name] = _over_images(dict(zip(scores, table.mean(axis=1).tolist(), strict=True)))
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
    metrics: dict[str, dict[str, Any]] = {}
    for name in CURVES:
        curves = np.stack([score.curves[name] for score in found])
        metrics[f"{name}_mean"] = _over_images(dict(zip(scores, curves.mean(axis=1).tolist(), strict=True)))
        best = int(curves.mean(axis=0).argmax())
        metrics[f"{name}_max"] = {"mean": float(curves[:, best].mean()), "threshold": best / (LEVELS - 1)}
    for name in VALUES:
        metrics[name] = _over_images({key: score.values[name] for key, score in scores.items()})
    for metric in metrics.values():
        metric["per_class"] = {lesion: metric["mean"]}
    black = [score.highest == 0 for score in found]
    both = sum(score.empty and dark for score, dark in zip(found, black, strict=True))
    one = sum(score.empty != dark for score, dark in zip(found, black, strict=True))
    return {"n": len(scores), "metrics": metrics, "empty": {lesion: {"both": both, "one": one}}}


def _over_images(per_image: dict[str, float]) -> dict[str, Any]:
    values = np.array(list(per_image.values()))
    return {"mean": float(values.mean()), "ci95": bootstrap_ci95(values), "per_image": per_image}


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
    if len(values) < 2:
        return None
    rng = np.random.default_rng(seed)
    means = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(draws)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
