"""Distances between the surfaces of two masks, in 2D or 3D, in float64.

The surface of a mask is its foreground pixels that have a background pixel among their 4 neighbours (6 in 3D); beyond
the image all is background. One set of distances (`SurfaceDistances`) serves every metric. With d(a) the distance of a
surface pixel a of the prediction A from the nearest one of the reference B, and d(b) the other way round:

* ``hd``: the largest of all d(a), d(b) (Huttenlocher et al., "Comparing Images Using the Hausdorff Distance", 1993).
* ``hd95``: the larger of the two directed 95th percentiles (numpy's linear interpolation), as MONAI has it.
* ``hd95_pooled``: the 95th percentile of all d(a) and d(b) together, the other convention in use (as MedPy has it).
* ``asd``: mean of d(a); one direction. ``assd``: mean of all d(a) and d(b) together (Heimann et al., "Comparison and
  Evaluation of Methods for Liver Segmentation From CT Datasets", 2009).
* ``surface_dice``: share of all d(a) and d(b) that are at most the tolerance (Nikolov et al., "Deep learning to achieve
  clinically applicable segmentation of head and neck anatomy for radiotherapy", 2018; every surface pixel counts alike,
  where they weigh it by its area).

Policy for empty masks: both empty gives distances 0 and surface Dice 1; one of them empty gives the diagonal of the
image or volume and surface Dice 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

ROUNDING = 1 + 1e-9
"""On the tolerance of surface Dice: 3 pixels of 0.1 mm are 0.30000000000000004 mm, and within 0.3."""
PIXELS_PER_POINT = {1: 10, 2: 10, 3: 15}
"""By number of axes: with more pixels than this for each surface pixel, a tree of points is quicker than a transform
(benchmarks/surface_metrics.py)."""


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances of one pair of masks, in px or in the unit of the spacing.

    Attributes:
        to_ref: (N,) from each surface pixel of the prediction to the nearest one of the reference.
        to_pred: (M,) the other way round.
        one_empty: One of the masks is empty; the distances are the diagonal.
    """

    to_ref: np.ndarray
    to_pred: np.ndarray
    one_empty: bool = False

    @cached_property
    def pooled(self) -> np.ndarray:
        """(N + M,) distances of both directions."""
        return np.concatenate([self.to_ref, self.to_pred])

    @property
    def hd(self) -> float:
        """Hausdorff distance: the largest of all."""
        return float(self.pooled.max())

    @property
    def hd95(self) -> float:
        """Larger of the two directed 95th percentiles."""
        return float(max(np.percentile(self.to_ref, 95), np.percentile(self.to_pred, 95)))

    @property
    def hd95_pooled(self) -> float:
        """95th percentile of the distances of both directions, pooled."""
        return float(np.percentile(self.pooled, 95))

    @property
    def asd(self) -> float:
        """Mean distance from the prediction to the reference."""
        return float(self.to_ref.mean())

    @property
    def assd(self) -> float:
        """Mean of the distances of both directions, pooled."""
        return float(self.pooled.mean())

    def surface_dice(self, tolerance: float) -> float:
        """Share of both surfaces that lies within `tolerance` (same unit as the distances) of the other, in [0, 1]."""
        return 0.0 if self.one_empty else float(np.mean(self.pooled <= tolerance * ROUNDING))


def surface_distances(pred: np.ndarray, ref: np.ndarray, spacing: Sequence[float] | None = None) -> SurfaceDistances:
    """Distances between the surfaces of two binary masks.

    Args:
        pred: (H, W) or (D, H, W); foreground = non-zero.
        ref: Mask of the same shape.
        spacing: Size of a pixel along each axis; 1 (distances in px) where None.

    Raises:
        ValueError: The shapes differ, or the spacing has another number of axes.
    """
    if pred.shape != ref.shape:
        raise ValueError(f"the prediction is {pred.shape}, the reference {ref.shape}")
    step = np.ones(pred.ndim) if spacing is None else np.asarray(spacing, dtype=np.float64)
    if step.shape != (pred.ndim,):
        raise ValueError(f"the spacing has {step.size} numbers, the mask {pred.ndim} axes")
    pred, ref = pred != 0, ref != 0
    present = bool(pred.any()), bool(ref.any())
    if not all(present):
        worst = float(np.linalg.norm(step * pred.shape)) if any(present) else 0.0
        return SurfaceDistances(np.array([worst]), np.array([worst]), one_empty=any(present))
    # both masks lie in this box, so that the distances within it are those of the whole image
    box = _bounding_box(pred | ref)
    edges = _surface(pred[box]), _surface(ref[box])
    points = np.count_nonzero(edges[0]) + np.count_nonzero(edges[1])
    few = edges[0].size > points * PIXELS_PER_POINT[pred.ndim]
    return SurfaceDistances(*(by_tree if few else by_transform)(*edges, step))


def hd(pred: np.ndarray, ref: np.ndarray, spacing: Sequence[float] | None = None) -> float:
    """Hausdorff distance; arguments and errors as in `surface_distances`."""
    return surface_distances(pred, ref, spacing).hd


def hd95(pred: np.ndarray, ref: np.ndarray, spacing: Sequence[float] | None = None) -> float:
    """95th-percentile Hausdorff distance; arguments and errors as in `surface_distances`."""
    return surface_distances(pred, ref, spacing).hd95


def hd95_pooled(pred: np.ndarray, ref: np.ndarray, spacing: Sequence[float] | None = None) -> float:
    """95th percentile of the pooled distances; arguments and errors as in `surface_distances`."""
    return surface_distances(pred, ref, spacing).hd95_pooled


def asd(pred: np.ndarray, ref: np.ndarray, spacing: Sequence[float] | None = None) -> float:
    """Mean surface distance from `pred` to `ref`; arguments and errors as in `surface_distances`."""
    return surface_distances(pred, ref, spacing).asd


def assd(pred: np.ndarray, ref: np.ndarray, spacing: Sequence[float] | None = None) -> float:
    """Symmetric mean surface distance; arguments and errors as in `surface_distances`."""
    return surface_distances(pred, ref, spacing).assd


def surface_dice(pred: np.ndarray, ref: np.ndarray, tolerance: float, spacing: Sequence[float] | None = None) -> float:
    """Surface Dice at `tolerance`; the other arguments and errors as in `surface_distances`."""
    return surface_distances(pred, ref, spacing).surface_dice(tolerance)


def _bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    box = []
    for axis in range(mask.ndim):
        inside = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        box.append(slice(inside[0], inside[-1] + 1))
    return tuple(box)


def _surface(mask: np.ndarray) -> np.ndarray:
    """(...) bool: foreground with a background neighbour along an axis."""
    padded = np.pad(mask, 1)
    middle = (slice(1, -1),) * mask.ndim
    inside = mask.copy()
    for axis in range(mask.ndim):
        for neighbour in (slice(None, -2), slice(2, None)):
            inside &= padded[(*middle[:axis], neighbour, *middle[axis + 1 :])]
    return mask & ~inside


def by_tree(pred: np.ndarray, ref: np.ndarray, step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances both ways between two surfaces (bool, one shape), by a tree of their points."""
    from scipy.spatial import KDTree

    points = np.argwhere(pred) * step, np.argwhere(ref) * step
    first, second = (KDTree(each, balanced_tree=False) for each in points)
    return second.query(points[0])[0], first.query(points[1])[0]


def by_transform(pred: np.ndarray, ref: np.ndarray, step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances both ways between two surfaces (bool, one shape), by the distance transform of each."""
    from scipy.ndimage import distance_transform_edt

    return distance_transform_edt(~ref, sampling=step)[pred], distance_transform_edt(~pred, sampling=step)[ref]
