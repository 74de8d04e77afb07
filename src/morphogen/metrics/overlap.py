"""Overlap of two label maps: Dice and intersection over union, per image and per class, in float64.

Policy for empty masks (one class of one image): both empty scores 1, one of them empty scores 0. Neither is left
out, so that a missed lesion costs what it should.
"""

from __future__ import annotations

import numpy as np


def class_counts(pred: np.ndarray, ref: np.ndarray, n_classes: int) -> np.ndarray:
    """Pixels of every class.

    Args:
        pred: Label map, any shape, values 0..n_classes - 1.
        ref: Label map of the same shape.
        n_classes: K, the background included.

    Returns:
        (K, 3) int64: in both, in `pred`, in `ref`.

    Raises:
        ValueError: The shapes differ, or a value is not a label.
    """
    if pred.shape != ref.shape:
        raise ValueError(f"the prediction is {pred.shape}, the reference {ref.shape}")
    joint = np.stack([pred.ravel(), ref.ravel()]).astype(np.int64)
    if joint.size and not 0 <= joint.min() <= joint.max() < n_classes:
        raise ValueError(f"labels run from {joint.min()} to {joint.max()}, expected 0 to {n_classes - 1}")
    table = np.bincount(joint[0] * n_classes + joint[1], minlength=n_classes**2).reshape(n_classes, n_classes)
    return np.stack([table.diagonal(), table.sum(axis=1), table.sum(axis=0)], axis=1)


def dice_from_counts(counts: np.ndarray) -> np.ndarray:
    """2 |A and B| / (|A| + |B|): (..., 3) counts -> (...) float64 in [0, 1]; 1 where both are empty."""
    both, pred, ref = np.moveaxis(np.asarray(counts, dtype=np.float64), -1, 0)
    return _ratio(2 * both, pred + ref)


def iou_from_counts(counts: np.ndarray) -> np.ndarray:
    """|A and B| / |A or B|: (..., 3) counts -> (...) float64 in [0, 1]; 1 where both are empty."""
    both, pred, ref = np.moveaxis(np.asarray(counts, dtype=np.float64), -1, 0)
    return _ratio(both, pred + ref - both)


def dice(pred: np.ndarray, ref: np.ndarray) -> float:
    """Dice of two binary masks of one shape (foreground = non-zero), in [0, 1].

    Example:
        >>> dice(np.array([1, 1, 0]), np.array([0, 1, 0]))
        0.6666666666666666
    """
    return float(dice_from_counts(class_counts(pred != 0, ref != 0, 2)[1]))


def iou(pred: np.ndarray, ref: np.ndarray) -> float:
    """Intersection over union of two binary masks of one shape (foreground = non-zero), in [0, 1]."""
    return float(iou_from_counts(class_counts(pred != 0, ref != 0, 2)[1]))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.ones_like(whole), where=whole > 0)
