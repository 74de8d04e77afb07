"""Enhanced-alignment measure of binary masks, in float64.

Source: Fan et al., "Enhanced-alignment Measure for Binary Foreground Map Evaluation", IJCAI 2018, Eq. 2 to 5, and the
authors' MATLAB code: with a = p - mean(p) and b = g - mean(g),

    E = sum of (1 + 2 a b / (a^2 + b^2))^2 / 4 over all N pixels, divided by N - 1.

The paper divides by N, the code by N - 1; published figures come from the code, so that a perfect mask scores
N / (N - 1). A reference without foreground: the pixels that p leaves out over N - 1; one of nothing else: those that p
marks. An image of one pixel is divided by 1. Four values of (p, g) exist, so that their counts suffice.
"""

from __future__ import annotations

import numpy as np

from morphogen.metrics.overlap import class_counts

EPS = float(np.finfo(np.float64).eps)


def e_measure(pred: np.ndarray, ref: np.ndarray) -> float:
    """Enhanced-alignment measure of two bool masks of one shape; higher is better."""
    return float(e_measure_from_counts(class_counts(pred != 0, ref != 0, 2)[1], pred.size))


def e_measure_from_counts(counts: np.ndarray, total: int) -> np.ndarray:
    """The same from counts.

    Args:
        counts: (..., 3): in both, in the prediction, in the reference.
        total: N, pixels of the image.

    Returns:
        (...) float64 in [0, N / (N - 1)].
    """
    both, pred, ref = np.moveaxis(np.asarray(counts, dtype=np.float64), -1, 0)
    mean_p, mean_g = pred / total, ref / total
    found = np.zeros_like(both)
    for p, p_count in ((1.0, both), (0.0, ref - both)):
        found += p_count * _enhanced(p - mean_p, 1 - mean_g)
    for p, p_count in ((1.0, pred - both), (0.0, total - pred - ref + both)):
        found += p_count * _enhanced(p - mean_p, -mean_g)
    found = np.where(ref == 0, total - pred, np.where(ref == total, pred, found))
    return found / max(total - 1, 1)


def _enhanced(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (1 + 2 * a * b / (a**2 + b**2 + EPS)) ** 2 / 4
