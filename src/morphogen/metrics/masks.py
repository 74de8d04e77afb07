"""The scores of one predicted mask against its reference, under the rules that every table of this package shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from morphogen.metrics.e_measure import e_measure_from_counts
from morphogen.metrics.mae import mae_from_counts
from morphogen.metrics.overlap import class_counts, dice_from_counts, iou_from_counts, two_class_iou_from_counts
from morphogen.metrics.s_measure import s_measure
from morphogen.metrics.surface import SurfaceDistances, surface_distances
from morphogen.metrics.weighted_f import weighted_f

METRICS = ("dice", "iou", "hd95", "asd")
"""What a study looks at."""
TOLERANCE = 2.0
"""Of surface Dice, in px or mm."""


@dataclass(frozen=True)
class OneClass:
    """A class of one image against all that is not the class.

    Attributes:
        pred: bool, (H, W) or (D, H, W).
        ref: bool, likewise.
        counts: (3,): pixels in both, in `pred`, in `ref`.
        spacing: Size of a pixel along each axis; px where None.
        tolerance: Of surface Dice, in the unit of the spacing.
    """

    pred: np.ndarray
    ref: np.ndarray
    counts: np.ndarray
    spacing: Sequence[float] | None
    tolerance: float

    @cached_property
    def distances(self) -> SurfaceDistances:
        """One set for all surface metrics."""
        return surface_distances(self.pred, self.ref, self.spacing)


@dataclass(frozen=True)
class Metric:
    """How a metric is computed, what it is in words, and whether it exists for images only (not for volumes)."""

    score: Callable[[OneClass], float]
    definition: str
    flat: bool = False


ALL_METRICS: dict[str, Metric] = {
    "dice": Metric(lambda c: float(dice_from_counts(c.counts)), "2|A and B|/(|A|+|B|)"),
    "iou": Metric(lambda c: float(iou_from_counts(c.counts)), "|A and B|/|A or B|"),
    "iou_two_class": Metric(
        lambda c: float(two_class_iou_from_counts(c.counts, c.ref.size)), "mean of the IoU of the class and of the rest"
    ),
    "s_measure": Metric(lambda c: s_measure(c.pred, c.ref), "structure measure (Fan 2017), alpha 0.5", flat=True),
    "e_measure": Metric(
        lambda c: float(e_measure_from_counts(c.counts, c.ref.size)),
        "enhanced-alignment measure (Fan 2018), divided by N - 1 as in its code",
        flat=True,
    ),
    "weighted_f": Metric(lambda c: weighted_f(c.pred, c.ref), "weighted F (Margolin 2014), beta 1", flat=True),
    "mae": Metric(lambda c: float(mae_from_counts(c.counts, c.ref.size)), "share of pixels that differ"),
    "hd": Metric(lambda c: c.distances.hd, "largest surface distance of both directions"),
    "hd95": Metric(lambda c: c.distances.hd95, "larger of the two directed 95th percentiles (linear)"),
    "hd95_pooled": Metric(lambda c: c.distances.hd95_pooled, "95th percentile (linear) of both directions pooled"),
    "asd": Metric(
        lambda c: c.distances.asd, "mean distance from the surface of the prediction to that of the reference"
    ),
    "assd": Metric(lambda c: c.distances.assd, "mean of the distances of both directions pooled"),
    "surface_dice": Metric(
        lambda c: c.distances.surface_dice(c.tolerance), "share of both surfaces within the tolerance of the other"
    ),
}
"""Every metric of label masks, in the order in which they are printed."""

POOLED = {"dice": "dice_pooled", "iou": "iou_pooled", "iou_two_class": "iou_two_class_pooled"}
"""Metrics that are also taken once, over the pixels of all images together."""


@dataclass(frozen=True)
class MaskScores:
    """Scores of one image.

    Attributes:
        per_class: Metric -> (K - 1,) float64, foreground classes in label order.
        counts: (K - 1, 3) int64 pixels of these classes: in both masks, in the prediction, in the reference.
        pixels: Of the image.
    """

    per_class: dict[str, np.ndarray]
    counts: np.ndarray
    pixels: int

    @property
    def image(self) -> dict[str, float]:
        """Metric -> mean over the foreground classes."""
        return {name: float(values.mean()) for name, values in self.per_class.items()}

    @property
    def both_empty(self) -> np.ndarray:
        """(K - 1,) bool: the class is in neither mask."""
        return (self.counts[:, 1:] == 0).all(axis=1)

    @property
    def one_empty(self) -> np.ndarray:
        """(K - 1,) bool: the class is in one mask only."""
        return (self.counts[:, 1:] == 0).any(axis=1) & ~self.both_empty


def score_masks(
    pred: np.ndarray,
    ref: np.ndarray,
    n_classes: int = 2,
    spacing: Sequence[float] | None = None,
    metrics: Sequence[str] = METRICS,
    tolerance: float = TOLERANCE,
) -> MaskScores:
    """Compare two label maps.

    Args:
        pred: (H, W) or (D, H, W) label map, values 0..n_classes - 1.
        ref: Label map of the same shape.
        n_classes: K, the background included.
        spacing: Size of a pixel along each axis; distances are in its unit, in px where None.
        metrics: Names of `ALL_METRICS`; those for images only need two axes.
        tolerance: Of surface Dice, in the unit of the distances.

    Raises:
        ValueError: The shapes differ, or a value is not a label.
    """
    counts = class_counts(pred, ref, n_classes)[1:]
    classes = [OneClass(pred == k, ref == k, counts[k - 1], spacing, tolerance) for k in range(1, n_classes)]
    per_class = {name: np.array([ALL_METRICS[name].score(one) for one in classes]) for name in metrics}
    return MaskScores(per_class, counts, pred.size)
