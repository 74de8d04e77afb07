"""Overlap of two label maps: Dice and intersection over union, per image and per class, in float64.

* Dice = 2 |A and B| / (|A| + |B|) (Dice, "Measures of the Amount of Ecologic Association Between Species", 1945).
* IoU = |A and B| / |A or B| (Jaccard, 1901).
* Two-class IoU: mean of the IoU of a class and of the IoU of all that is not the class. Some papers call it mIoU; the
  background's part makes it high where lesions are small.

Counts of many images may be added up before they are turned into a score: that is the pooled form.

Policy for empty masks (one class of one image): both empty scores 1, one of them empty scores 0. Neither is left
out, so that a missed lesion costs what it should.
"""

from __future__ import annotations

from typing import Any

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
        ValueError: The shapes differ, the maps are not of whole numbers, or a value is not a label.
    """
    if pred.shape != ref.shape:
        raise ValueError(f"the prediction is {pred.shape}, the reference {ref.shape}")
    for what, labels in (("prediction", pred), ("reference", ref)):
        if labels.dtype.kind not in "bui":  # probabilities would be cut to whole numbers
            raise ValueError(f"the {what} is {labels.dtype}, no label map")
    if pred.size:
        low, high = min(pred.min(), ref.min()), max(pred.max(), ref.max())
        if not 0 <= low <= high < n_classes:
            raise ValueError(f"labels run from {low} to {high}, expected 0 to {n_classes - 1}")
    kind: type[np.integer[Any]] = np.uint8 if n_classes**2 <= 256 else np.int64
    joint = pred.ravel().astype(kind)
    joint *= n_classes
    joint += ref.ravel().astype(kind)
    table = np.bincount(joint, minlength=n_classes**2).reshape(n_classes, n_classes)
    return np.stack([table.diagonal(), table.sum(axis=1), table.sum(axis=0)], axis=1)


def dice_from_counts(counts: np.ndarray) -> np.ndarray:
    """2 |A and B| / (|A| + |B|): (..., 3) counts -> (...) float64 in [0, 1]; 1 where both are empty."""
    both, pred, ref = np.moveaxis(np.asarray(counts, dtype=np.float64), -1, 0)
    return _ratio(2 * both, pred + ref)


def iou_from_counts(counts: np.ndarray) -> np.ndarray:
    """|A and B| / |A or B|: (..., 3) counts -> (...) float64 in [0, 1]; 1 where both are empty."""
    both, pred, ref = np.moveaxis(np.asarray(counts, dtype=np.float64), -1, 0)
    return _ratio(both, pred + ref - both)


def two_class_iou_from_counts(counts: np.ndarray, total: int) -> np.ndarray:
    """Mean of the IoU of a class and of its complement.

    Args:
        counts: (..., 3): in both, in the prediction, in the reference.
        total: Pixels of the image (of all images, for pooled counts).

    Returns:
        (...) float64 in [0, 1].
    """
    both, pred, ref = np.moveaxis(np.asarray(counts), -1, 0)
    rest = np.stack([total - pred - ref + both, total - pred, total - ref], axis=-1)
    return (iou_from_counts(counts) + iou_from_counts(rest)) / 2


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
