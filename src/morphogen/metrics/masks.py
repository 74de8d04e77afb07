"""The scores of one predicted mask against its reference, under the rules that every table of this package shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from morphogen.metrics.overlap import class_counts, dice_from_counts, iou_from_counts
from morphogen.metrics.surface import surface_distances

METRICS = ("dice", "iou", "hd95", "asd")

PROTOCOL = (
    "float64, at the size of the reference masks; an image scores the mean over its foreground classes. "
    "dice = 2|A and B|/(|A|+|B|); iou = |A and B|/|A or B|; "
    "surface = foreground with a background 4-neighbour (6 in 3D), outside the image is background; "
    "hd95 = larger of the two directed 95th percentiles (linear) of surface distances; "
    "asd = mean distance from the surface of the prediction to that of the reference. "
    "Both masks empty: dice and iou 1, distances 0; one empty: dice and iou 0, distances the diagonal of the image."
)


@dataclass(frozen=True)
class MaskScores:
    """Scores of one image.

    Attributes:
        per_class: Metric -> (K - 1,) float64, foreground classes in label order.
        both_empty: (K - 1,) bool: the class is in neither mask.
        one_empty: (K - 1,) bool: the class is in one mask only.
    """

    per_class: dict[str, np.ndarray]
    both_empty: np.ndarray
    one_empty: np.ndarray

    @property
    def image(self) -> dict[str, float]:
        """Metric -> mean over the foreground classes."""
        return {name: float(values.mean()) for name, values in self.per_class.items()}


def score_masks(
    pred: np.ndarray, ref: np.ndarray, n_classes: int = 2, spacing: Sequence[float] | None = None
) -> MaskScores:
    """Compare two label maps.

    Args:
        pred: (H, W) or (D, H, W) label map, values 0..n_classes - 1.
        ref: Label map of the same shape.
        n_classes: K, the background included.
        spacing: Size of a pixel along each axis; distances are in its unit, in px where None.

    Raises:
        ValueError: The shapes differ, or a value is not a label.
    """
    counts = class_counts(pred, ref, n_classes)[1:]
    distances = [surface_distances(pred == k, ref == k, spacing) for k in range(1, n_classes)]
    empty = counts[:, 1:] == 0
    return MaskScores(
        per_class={
            "dice": dice_from_counts(counts),
            "iou": iou_from_counts(counts),
            "hd95": np.array([d.hd95 for d in distances]),
            "asd": np.array([d.asd for d in distances]),
        },
        both_empty=empty.all(axis=1),
        one_empty=empty.any(axis=1) & ~empty.all(axis=1),
    )
