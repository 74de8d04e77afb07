"""Structure measure of a foreground map, in float64.

Source: Fan et al., "Structure-measure: A New Way to Evaluate Foreground Maps", ICCV 2017, and the authors' MATLAB code:

* S = max(0, (S_o + S_r) / 2), both parts weighted alike.
* S_o = mu O(p on the foreground) + (1 - mu) O(1 - p on the background), mu the share of foreground,
  O(x) = 2 mean(x) / (mean(x)^2 + 1 + std(x)), std with N - 1.
* S_r: the image is cut into four at the foreground's centroid (rounded, halves up); each quadrant counts by its area:
  4 x y cov / ((x^2 + y^2) (var_p + var_g)), x, y the means of p and g; 1 where the quadrant has no structure at all
  (denominator 0), 0 where only the numerator is.
* A reference without foreground: S = 1 - mean(p); with nothing else: S = mean(p).

Departure: a quadrant without pixels (a centroid in the last row or column) counts nothing, where MATLAB yields NaN.
"""

from __future__ import annotations

import math

import numpy as np

EPS = float(np.finfo(np.float64).eps)


def s_measure(pred: np.ndarray, ref: np.ndarray) -> float:
    """Structure measure in [0, 1]; higher is better.

    Args:
        pred: (H, W) foreground map in [0, 1] (or bool).
        ref: (H, W) mask; foreground = non-zero.
    """
    ref = ref != 0
    p = pred if pred.dtype == bool else np.asarray(pred, dtype=np.float64)
    n = np.count_nonzero(ref)
    if n == 0:
        return float(1 - p.mean())
    if n == ref.size:
        return float(p.mean())
    mu = n / ref.size
    s_object = mu * _object(p[ref]) + (1 - mu) * _object(~p[~ref] if p.dtype == bool else 1 - p[~ref])
    return max(0.0, 0.5 * s_object + 0.5 * _region(p, ref))


def _object(x: np.ndarray) -> float:
    """Similarity of the values x (N,) to 1, from their mean and spread."""
    mean, variance = _mean(x), _covariance(x, x)
    return 2 * mean / (mean**2 + 1 + math.sqrt(variance) + EPS)


def _region(p: np.ndarray, g: np.ndarray) -> float:
    """Structural similarity of the four quadrants around the centroid of g, weighted by area."""
    row, column = (_centroid(g, axis) for axis in (0, 1))
    score = 0.0
    for rows in (slice(0, row), slice(row, None)):
        for columns in (slice(0, column), slice(column, None)):
            part = g[rows, columns]
            if part.size:
                score += part.size / g.size * _similarity(p[rows, columns], part)
    return score


def _centroid(g: np.ndarray, axis: int) -> int:
    """Mean coordinate of the foreground along `axis`, counted from 1, rounded in whole numbers."""
    counts = np.count_nonzero(g, axis=1 - axis)
    total = int(counts.sum())
    return int((2 * int(counts @ np.arange(1, len(counts) + 1)) + total) // (2 * total))


def _similarity(p: np.ndarray, g: np.ndarray) -> float:
    x, y = _mean(p), _mean(g)
    alpha = 4 * x * y * _covariance(p, g)
    beta = (x**2 + y**2) * (_covariance(p, p) + _covariance(g, g))
    if alpha != 0:
        return alpha / (beta + EPS)
    return 1.0 if beta == 0 else 0.0


def _mean(x: np.ndarray) -> float:
    return np.count_nonzero(x) / x.size if x.dtype == bool else float(x.mean())


def _covariance(a: np.ndarray, b: np.ndarray) -> float:
    """With N - 1; 0 for a single pixel. Of bool arrays from counts, which is exact and quick."""
    n = a.size
    if a.dtype == bool and b.dtype == bool:
        both = np.count_nonzero(a if a is b else a & b)
        return (both - np.count_nonzero(a) * np.count_nonzero(b) / n) / max(n - 1, 1)
    a, b = (
        x - x.flat[0] if x.dtype != bool else x for x in (a, b)
    )  # the rounding of a mean gives a constant no spread
    return float(((a - _mean(a)) * (b - _mean(b))).sum()) / max(n - 1, 1)
