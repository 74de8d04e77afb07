"""A foreground probability map against its reference over all thresholds: how the polyp papers since PraNet score.

Source: Fan et al., "PraNet", MICCAI 2020, and its MATLAB evaluation. The 8-bit map is stretched to [0, 1] by its own
minimum and maximum (a constant map is left as it is, divided by 255). At each of the 256 thresholds t = k / 255 the
mask is p >= t; at t = 0 that is the whole image. Dice, IoU and E-measure are taken at every threshold. Their mean is
over thresholds and images ("mDice", "mIoU", "mean E"); their maximum is the highest value of the curve that is the mean
over images. S-measure, weighted F and MAE are those of the stretched map.

The stretch makes the most likely pixel of every map a detection at every threshold, however unlikely it is. Departures:
thresholds are compared in whole numbers, where the code's sums of 1/255 miss equal values by rounding; and where mask
and reference are both empty, the overlap is 1, where the code has 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from morphogen.metrics.e_measure import e_measure_from_counts
from morphogen.metrics.mae import mae
from morphogen.metrics.overlap import dice_from_counts, iou_from_counts
from morphogen.metrics.s_measure import s_measure
from morphogen.metrics.weighted_f import weighted_f

LEVELS = 256
CURVES = ("dice", "iou", "e_measure")
VALUES = ("s_measure", "weighted_f", "mae")


@dataclass(frozen=True)
class MapScores:
    """Scores of one probability map.

    Attributes:
        curves: Name of `CURVES` -> (256,) float64, the metric at the thresholds k / 255.
        values: Name of `VALUES` -> the metric of the stretched map.
        empty: The reference has no foreground.
        highest: Largest grey value of the map as it is in the file, 0..255.
        constant: The map has one value only, and was not stretched.
    """

    curves: dict[str, np.ndarray]
    values: dict[str, float]
    empty: bool
    highest: int
    constant: bool


def score_map(grey: np.ndarray, ref: np.ndarray) -> MapScores:
    """Compare a probability map with a mask.

    Args:
        grey: (H, W) uint8, 255 = certainly foreground.
        ref: (H, W) bool.

    Raises:
        ValueError: The shapes differ.
    """
    if grey.shape != ref.shape:
        raise ValueError(f"the map is {grey.shape}, the reference {ref.shape}")
    counts = threshold_counts(grey, ref)
    p = stretched(grey)
    return MapScores(
        curves={
            "dice": dice_from_counts(counts),
            "iou": iou_from_counts(counts),
            "e_measure": e_measure_from_counts(counts, grey.size),
        },
        values={"s_measure": s_measure(p, ref), "weighted_f": weighted_f(p, ref), "mae": mae(p, ref)},
        empty=not ref.any(),
        highest=int(grey.max()),
        constant=bool(grey.min() == grey.max()),
    )


def stretched(grey: np.ndarray) -> np.ndarray:
    """(H, W) uint8 -> (H, W) float64 in [0, 1]: minimum to 0, maximum to 1; a constant map divided by 255."""
    low, span = _range(grey)
    return (grey.astype(np.float64) - low) / span


def threshold_counts(grey: np.ndarray, ref: np.ndarray) -> np.ndarray:
    """(256, 3) int64: pixels in both, in the mask, in the reference at the thresholds k / 255 of the stretched map."""
    low, span = _range(grey)
    first = low - (-np.arange(LEVELS) * span // 255)  # smallest grey value that reaches the threshold
    both, pred = (_at_least(values)[first] for values in (grey[ref], grey.ravel()))
    return np.stack([both, pred, np.full(LEVELS, np.count_nonzero(ref))], axis=1)


def _range(grey: np.ndarray) -> tuple[int, int]:
    """Grey value that becomes 0, and how many lie between it and the one that becomes 1."""
    low, high = int(grey.min()), int(grey.max())
    return (0, 255) if low == high else (low, high - low)


def _at_least(values: np.ndarray) -> np.ndarray:
    """(256,): how many of the uint8 `values` are k or more."""
    return np.bincount(values, minlength=LEVELS)[::-1].cumsum()[::-1]
