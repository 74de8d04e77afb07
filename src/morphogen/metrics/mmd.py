"""Squared maximum mean discrepancy of two sets of features, in float64: Gretton et al. (JMLR 2012)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from morphogen.errors import InputError

BLOCK = 1024
"""Rows of the kernel matrix that are held at once."""
Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Rows (B, D) and (M, D) to the kernel of all pairs (B, M)."""


@dataclass(frozen=True)
class Mmd2:
    """Both estimates of the square.

    Attributes:
        biased: Eq. 5: means over all pairs, each row with itself too; 0 or more, and biased upwards.
        unbiased: Lemma 6: without these; may be negative.
    """

    biased: float
    unbiased: float


def mmd2(x: np.ndarray, y: np.ndarray, kernel: Kernel) -> Mmd2:
    """Both estimates for rows (N, D) and (M, D); N, M >= 2.

    Raises:
        InputError: A feature is not finite, or a set has fewer than two rows.
    """
    x, y = finite(x), finite(y)
    n, m = len(x), len(y)
    if min(n, m) < 2:
        raise InputError(f"a set holds {min(n, m)} images; a maximum mean discrepancy needs at least 2")
    (xx, x_self), (yy, y_self), (xy, _) = (_sums(a, b, kernel) for a, b in ((x, x), (y, y), (x, y)))
    between = 2 * xy / (n * m)
    unbiased = (xx - x_self) / (n * (n - 1)) + (yy - y_self) / (m * (m - 1)) - between
    return Mmd2(max(xx / n**2 + yy / m**2 - between, 0.0), unbiased)


def finite(features: np.ndarray) -> np.ndarray:
    """The features as (N, D) float64.

    Raises:
        InputError: One is NaN or infinite.
    """
    features = np.asarray(features, dtype=np.float64)
    if not np.isfinite(features).all():
        row = int(np.flatnonzero(~np.isfinite(features).all(axis=1))[0])
        raise InputError(f"features: those of image {row + 1} are not finite; check that image")
    return features


def _sums(x: np.ndarray, y: np.ndarray, kernel: Kernel) -> tuple[float, float]:
    """Sum of the kernel over all pairs of rows, and over the diagonal."""
    total = diagonal = 0.0
    for start in range(0, len(x), BLOCK):
        block = kernel(x[start : start + BLOCK], y)
        total += float(block.sum())
        diagonal += float(np.trace(block, offset=start))
    return total, diagonal
