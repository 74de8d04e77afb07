"""The scores of one segmented volume: overlaps, and surface distances in voxels and in mm.

Papers on volumes give Dice, Jaccard (here ``iou``), HD95 and ASD with distances in voxels, as MedPy's ``dc``, ``jc``,
``hd95`` and ``asd`` return them without a voxel size: ``hd95_pooled`` and ``asd`` here, ``asd`` from the prediction to
the reference alone. A clinician wants mm. Definitions and the policy for empty masks are those of `metrics.overlap` and
`metrics.surface`; with one mask empty the published code writes 0, which would be the best distance, and here it is the
diagonal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from morphogen.metrics.masks import MaskScores, score_masks

OVERLAPS = ("dice", "iou")
DISTANCES = ("hd95", "hd95_pooled", "asd", "assd")
MM = "_mm"
"""Ends the name of a distance in mm; without it distances are in voxels."""


def score_volume(
    pred: np.ndarray, ref: np.ndarray, n_classes: int = 2, spacing: Sequence[float] | None = None
) -> MaskScores:
    """Compare two label maps of a volume.

    Args:
        pred: (X, Y, Z) label map, values 0..n_classes - 1.
        ref: Label map of the same shape.
        n_classes: K, the background included.
        spacing: Size of a voxel along each axis in mm; None where it is not known.

    Returns:
        Scores of every foreground class: `OVERLAPS` in [0, 1], `DISTANCES` in voxels and, where the voxel size is
        known, once more in mm as ``hd95_mm`` and so on; and which classes are in no mask or in one mask only.

    Raises:
        ValueError: The shapes differ, a value is not a label, or the spacing has another number of axes.

    Example:
        >>> ref = np.zeros((8, 8, 8), int)
        >>> ref[2:5] = 1
        >>> score_volume(np.roll(ref, 1, axis=0), ref, spacing=(3, 1, 1)).image["hd95_mm"]
        3.0
    """
    found = score_masks(pred, ref, n_classes, metrics=(*OVERLAPS, *DISTANCES))
    if spacing is None:
        return found
    in_mm = score_masks(pred, ref, n_classes, spacing, DISTANCES).per_class
    return replace(found, per_class=found.per_class | {f"{name}{MM}": values for name, values in in_mm.items()})
