"""How well images are classified: scores of a whole set of images, from its class probabilities.

A class that is absent from the truth has no recall and no AUC: it is left out of the means over classes, and None among
the classes. One that was never predicted has no precision. F1 = 2 TP / (2 TP + FP + FN) is 0 for a class that is
predicted and never true, and undefined (left out) for one that is neither. Where nothing is left, the score is NaN.

But for accuracy no score is a mean over images; for an interval they are computed again on every resampled set, which
`weighted_scores` does for all of them at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
BINS = 15
"""Of the calibration error."""
AT_ONCE = 500_000
"""Weights of resampled sets in work together, which bounds memory."""


def confusion_matrix(predicted: Ints, truth: Ints, n_classes: int) -> Ints:
    """(K, K) number of images, by class in truth (rows) and as predicted (columns).

    Args:
        predicted: (N,) class ids.
        truth: (N,) class ids.
        n_classes: K.

    Raises:
        ValueError: No images, unequal lengths, or a class id outside 0 to K - 1.
    """
    if not len(truth) or predicted.shape != truth.shape:
        raise ValueError(f"expected as many predictions as labels, at least one, got {predicted.shape}, {truth.shape}")
    if min(predicted.min(), truth.min()) < 0 or max(predicted.max(), truth.max()) >= n_classes:
        raise ValueError(f"a class id lies outside 0 to {n_classes - 1}")
    return np.bincount(n_classes * truth + predicted, minlength=n_classes**2).reshape(n_classes, n_classes)


def accuracy(confusion: Ints) -> float:
    """Share of images whose class was found."""
    return float(np.trace(confusion) / confusion.sum())


def recalls(confusion: Ints) -> Floats:
    """(K,) share of the images of each class that were found; NaN for a class that is absent from the truth."""
    return _ratio(np.diag(confusion), confusion.sum(axis=1))


def precisions(confusion: Ints) -> Floats:
    """(K,) share of true ones among the images that were called so; NaN for a class that was never predicted."""
    return _ratio(np.diag(confusion), confusion.sum(axis=0))


def f1_scores(confusion: Ints) -> Floats:
    """(K,) 2 TP / (2 TP + FP + FN); NaN for a class that is neither true nor predicted anywhere."""
    return _ratio(2 * np.diag(confusion), confusion.sum(axis=0) + confusion.sum(axis=1))


def balanced_accuracy(confusion: Ints) -> float:
    """Mean recall of the classes that occur in the truth."""
    return _mean(recalls(confusion))


def macro_f1(confusion: Ints) -> float:
    """Mean F1 of the classes that are true or predicted somewhere."""
    return _mean(f1_scores(confusion))


def binary_auc(scores: Floats, positive: NDArray[np.bool_]) -> float:
    """Chance that a positive image scores higher than a negative one, ties counting half.

    The Mann-Whitney statistic by mid-ranks (Hanley and McNeil, Radiology 143, 1982), which is the area under the
    receiver operating characteristic.

    Args:
        scores: (N,), of any scale.
        positive: (N,).

    Returns:
        In [0, 1]; NaN where all images are positive, or none.
    """
    from scipy.stats import rankdata

    p = int(positive.sum())
    n = len(positive) - p
    if not p or not n:
        return math.nan
    return float((rankdata(scores)[positive].sum() - p * (p + 1) / 2) / (p * n))


def aucs(probabilities: Floats, truth: Ints) -> Floats:
    """(K,) AUC of every class against all others; NaN for one that is absent from the truth, or alone in it."""
    return np.array([binary_auc(p, truth == k) for k, p in enumerate(probabilities.T)])


def auc(probabilities: Floats, truth: Ints) -> float:
    """AUC of the second of two classes; of more, the mean of every class against all others.

    Args:
        probabilities: (N, K).
        truth: (N,) class ids.
    """
    if probabilities.shape[1] == 2:
        return binary_auc(probabilities[:, 1], truth == 1)
    return _mean(aucs(probabilities, truth))


def calibration_error(probabilities: Floats, truth: Ints, bins: int = BINS) -> float:
    """Expected calibration error of the predicted class (Guo et al., ICML 2017, equation 3).

    The mean over images of |accuracy - mean confidence| of their bin: equal widths, (i / bins, (i + 1) / bins].

    Args:
        probabilities: (N, K).
        truth: (N,) class ids.
        bins: How many.
    """
    index, gaps = _bins(probabilities, truth, bins)
    return float(np.abs(np.bincount(index, weights=gaps, minlength=bins)).sum() / len(truth))


def _bins(probabilities: Floats, truth: Ints, bins: int) -> tuple[Ints, Floats]:
    """(N,) bin of every image by its confidence, and (N,) how far that is below being right (1) or not (0)."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == truth
    return np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1), right - confidence


@dataclass(frozen=True)
class Metric:
    """How a score follows from probabilities (N, K) and class ids (N,), and what it is in words."""

    score: Callable[[Floats, Ints], float]
    definition: str


def _counted(probabilities: Floats, truth: Ints) -> Ints:
    return confusion_matrix(probabilities.argmax(axis=1), truth, probabilities.shape[1])


METRICS: dict[str, Metric] = {
    "accuracy": Metric(lambda p, t: accuracy(_counted(p, t)), "share of images whose class was found"),
    "balanced_accuracy": Metric(
        lambda p, t: balanced_accuracy(_counted(p, t)), "mean recall of the classes that occur in the truth"
    ),
    "macro_f1": Metric(lambda p, t: macro_f1(_counted(p, t)), "mean F1 of the classes that are true or predicted"),
    "auc": Metric(
        auc, "area under the ROC curve, ties half; of more than two classes the mean of one against the rest"
    ),
    "ece": Metric(calibration_error, f"expected calibration error of the predicted class, {BINS} equal bins"),
}
"""Every score of a set of classified images, in the order in which they are printed."""


def classification_scores(probabilities: Floats, truth: Ints, classes: Sequence[str]) -> dict[str, Any]:
    """All scores of a set of images.

    Args:
        probabilities: (N, K), rows summing to 1; the class is the first of the largest.
        truth: (N,) class ids.
        classes: K names.

    Returns:
        ``n``; every name of `METRICS`; ``per_class`` {name: ``n`` images, ``recall``, ``precision``, ``f1``, ``auc``};
        ``confusion`` [[count]] by class in truth, then as predicted. None stands for what is undefined.

    Raises:
        ValueError: Shapes that do not fit, no images, or a class id outside 0 to K - 1.
    """
    if probabilities.shape != (len(truth), len(classes)):
        raise ValueError(f"expected probabilities ({len(truth)}, {len(classes)}), got {probabilities.shape}")
    counts = _counted(probabilities, truth)
    columns: Mapping[str, Floats] = {
        "recall": recalls(counts),
        "precision": precisions(counts),
        "f1": f1_scores(counts),
        "auc": aucs(probabilities, truth),
    }
    return {
        "n": len(truth),
        **{name: _or_none(metric.score(probabilities, truth)) for name, metric in METRICS.items()},
        "per_class": {
            name: {"n": int(counts[k].sum()), **{column: _or_none(values[k]) for column, values in columns.items()}}
            for k, name in enumerate(classes)
        },
        "confusion": counts.tolist(),
    }


def weighted_scores(probabilities: Floats, truth: Ints, weights: NDArray[Any]) -> dict[str, Floats]:
    """The scores of resampled sets: those of the set in which image i stands ``weights[d, i]`` times, for every d.

    Args:
        probabilities: (N, K).
        truth: (N,) class ids.
        weights: (D, N), 0 or more, some of every row above 0.

    Returns:
        Every name of `METRICS` -> (D,), and ``recall`` -> (D, K); NaN for what is undefined.
    """
    parts = np.array_split(weights, max(1, weights.size // AT_ONCE))
    found = [_weighted(probabilities, truth, part.astype(np.float64)) for part in parts]
    return {name: np.concatenate([scores[name] for scores in found]) for name in found[0]}


def _weighted(probabilities: Floats, truth: Ints, weights: Floats) -> dict[str, Floats]:
    k = probabilities.shape[1]
    chosen, total = probabilities.argmax(axis=1), weights.sum(axis=1)
    counts = (weights @ np.eye(k * k)[k * truth + chosen]).reshape(-1, k, k)
    right, of_class, called = np.diagonal(counts, axis1=1, axis2=2), counts.sum(axis=2), counts.sum(axis=1)
    recall = _ratio(right, of_class)
    index, gaps = _bins(probabilities, truth, BINS)
    columns = [1] if k == 2 else range(k)
    areas = [_weighted_auc(probabilities[:, c], truth == c, weights) for c in columns]
    return {
        "accuracy": right.sum(axis=1) / total,
        "balanced_accuracy": _row_means(recall),
        "macro_f1": _row_means(_ratio(2 * right, of_class + called)),
        "auc": _row_means(np.stack(areas, axis=1)),
        "ece": np.abs((weights * gaps) @ np.eye(BINS)[index]).sum(axis=1) / total,
        "recall": recall,
    }


def _weighted_auc(scores: Floats, positive: NDArray[np.bool_], weights: Floats) -> Floats:
    """(D,) `binary_auc` of every resampled set: pairs of a positive and a negative image, counted by their weights."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) > 0])  # of equal scores
    p, n = (np.add.reduceat(weights[:, order] * side[order], starts, axis=1) for side in (positive, ~positive))
    below = n.cumsum(axis=1) - n / 2
    return _ratio((p * below).sum(axis=1), p.sum(axis=1) * n.sum(axis=1))


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> Floats:
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)


def _row_means(values: Floats) -> Floats:
    """(D, K) -> (D,) mean of the defined ones of every row."""
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0.0).sum(axis=1), defined.sum(axis=1))


def _mean(values: Floats) -> float:
    """Mean of the defined ones."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else math.nan


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
