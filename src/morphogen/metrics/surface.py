"""Distances between the surfaces of two masks, in 2D or 3D, in float64.

The surface of a mask is its foreground pixels that have a background pixel among their 4 neighbours (6 in 3D); beyond
the image all is background. Several definitions are in use for each name; these are ours:

* ``hd95``: the larger of the two directed 95th percentiles (linear interpolation), as MONAI has it; not the percentile
  of the pooled distances.
* ``asd``: mean distance from the surface of the prediction to that of the reference; one direction.
* ``assd``: mean of the pooled distances of both directions.

Policy for empty masks: both empty gives 0, one of them empty gives the diagonal of the image or volume.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances of one pair of masks, in px or in the unit of the spacing.

    Attributes:
        to_ref: (N,) from each surface pixel of the prediction to the nearest one of the reference.
        to_pred: (M,) the other way round.
    """

    to_ref: np.ndarray
    to_pred: np.ndarray

    @property
    def hd95(self) -> float:
        """Larger of the two directed 95th percentiles."""
        return float(max(np.percentile(self.to_ref, 95), np.percentile(self.to_pred, 95)))

    @property
    def asd(self) -> float:
        """Mean distance from the prediction to the reference."""
        return float(self.to_ref.mean())

    @property
    def assd(self) -> float:
        """Mean of the distances of both directions, pooled."""
        return float(np.concatenate([self.to_ref, self.to_pred]).mean())


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
    if not (pred.any() and ref.any()):
        worst = 0.0 if pred.any() == ref.any() else float(np.linalg.norm(step * pred.shape))
        return SurfaceDistances(np.array([worst]), np.array([worst]))
    # both masks lie in this box, so that the distances within it are those of the whole image
    box = _bounding_box(pred | ref)
    edges = _surface(pred[box]), _surface(ref[box])
    return SurfaceDistances(_distances(edges[0], edges[1], step), _distances(edges[1], edges[0], step))


def hd95(pred: np.ndarray, ref: np.ndarray, spacing: Sequence[float] | None = None) -> float:
    """95th-percentile Hausdorff distance; arguments and errors as in `surface_distances`."""
    return surface_distances(pred, ref, spacing).hd95


def asd(pred: np.ndarray, ref: np.ndarray, spacing: Sequence[float] | None = None) -> float:
    """Mean surface distance from `pred` to `ref`; arguments and errors as in `surface_distances`."""
    return surface_distances(pred, ref, spacing).asd


def assd(pred: np.ndarray, ref: np.ndarray, spacing: Sequence[float] | None = None) -> float:
    """Symmetric mean surface distance; arguments and errors as in `surface_distances`."""
    return surface_distances(pred, ref, spacing).assd


def _bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    box = []
    for axis in range(mask.ndim):
        inside = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        box.append(slice(inside[0], inside[-1] + 1))
    return tuple(box)


def _surface(mask: np.ndarray) -> np.ndarray:
    from scipy.ndimage import binary_erosion, generate_binary_structure

    return mask & ~binary_erosion(mask, generate_binary_structure(mask.ndim, 1), border_value=0)


def _distances(start: np.ndarray, end: np.ndarray, step: np.ndarray) -> np.ndarray:
    from scipy.ndimage import distance_transform_edt

    return distance_transform_edt(~end, sampling=step)[start]
