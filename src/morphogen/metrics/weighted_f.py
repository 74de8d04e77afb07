"""Weighted F-measure of a foreground map, in float64.

Source: Margolin et al., "How to Evaluate Foreground Maps?", CVPR 2014, and the authors' MATLAB code. With E = |p - g|:

* Errors depend on their neighbours: E_t equals E on the foreground and, outside it, the E of the nearest foreground
  pixel; E_A is E_t under a Gaussian of 7 x 7 pixels, sigma 5, zeros beyond the image. On the foreground the smaller of
  E and E_A counts.
* Errors far from the foreground weigh more: B = 2 - exp(d ln(0.5) / 5), d the distance to it; B = 1 on the foreground.
* E_w = min(E, E_A) B; TP = sum g - sum E_w on g; FP = sum E_w off g; recall = 1 - mean E_w on g;
  precision = TP / (TP + FP); F = 2 precision recall / (precision + recall).

Of several nearest foreground pixels the first column by column counts, as MATLAB stores them. Departure: the code
yields NaN for a reference without foreground, and above 0 for an empty map beside an object at the image border (E_A
falls there). Here both empty scores 1, one of them empty 0, like the overlaps.
"""

from __future__ import annotations

import numpy as np

EPS = float(np.finfo(np.float64).eps)
RADIUS, SIGMA = 3, 5.0


def weighted_f(pred: np.ndarray, ref: np.ndarray) -> float:
    """Weighted F-measure (beta 1) in [0, 1]; higher is better.

    Args:
        pred: (H, W) foreground map in [0, 1] (or bool).
        ref: (H, W) mask; foreground = non-zero.
    """
    ref = ref != 0
    foreground = np.count_nonzero(ref)
    if not (foreground and pred.any()):
        return 0.0 if foreground or pred.any() else 1.0
    box = _box((pred > 0) | ref)  # beyond it there is no error, nor anything that reaches the foreground
    on, off = _errors(np.asarray(pred[box], dtype=np.float64), ref[box])
    true = foreground - on
    recall, precision = 1 - on / foreground, true / (EPS + (true + off))
    return float(2 * recall * precision / (EPS + recall + precision))


def _errors(p: np.ndarray, g: np.ndarray) -> tuple[float, float]:
    """Sums of the weighted errors on and off the foreground."""
    from scipy.ndimage import correlate1d, distance_transform_edt

    error = np.abs(p - g)
    nearest = distance_transform_edt(~g, return_distances=False, return_indices=True)
    kernel = np.exp(-(np.arange(-RADIUS, RADIUS + 1) ** 2) / (2 * SIGMA**2))
    spread = error[tuple(nearest)]
    for axis in (0, 1):
        spread = correlate1d(spread, kernel / kernel.sum(), axis=axis, mode="constant")
    off = np.nonzero(~g & (error > 0))
    distance = np.hypot(*(to[off] - here for to, here in zip(nearest, off, strict=True)))
    importance = 2 - np.exp(np.log(0.5) / 5 * distance)
    return float(np.minimum(error, spread)[g].sum()), float((error[off] * importance).sum())


def _box(touched: np.ndarray) -> tuple[slice, slice]:
    """What holds all of `touched`, and as much around it as the Gaussian reaches."""
    rows, columns = (np.flatnonzero(touched.any(axis=axis)) for axis in (1, 0))
    low, high = (
        slice(max(rows[0] - RADIUS, 0), rows[-1] + RADIUS + 1),
        slice(max(columns[0] - RADIUS, 0), columns[-1] + RADIUS + 1),
    )
    return low, high
