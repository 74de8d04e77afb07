"""Kernel distance between two sets of features (KID), in float64.

The unbiased estimate of the squared maximum mean discrepancy under k(x, y) = (x.y / D + 1)^3: Binkowski et al.,
"Demystifying MMD GANs" (ICLR 2018), with the estimator of Gretton et al., "A Kernel Two-Sample Test" (JMLR 2012), Lemma
6. It may be negative.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from morphogen.errors import InputError
from morphogen.metrics import mmd

MAX_SUBSET = 1000


@dataclass(frozen=True)
class Kid:
    """KID of two sets.

    Attributes:
        mean: Over the subsets.
        std: Over the subsets (the customary spread; subsets overlap, so it is no standard error).
        full: The same estimate on all rows at once; needs no draw.
        subset_size: Rows drawn from each set.
        subsets: Number of draws.
    """

    mean: float
    std: float
    full: float
    subset_size: int
    subsets: int


def kid(synthetic: np.ndarray, real: np.ndarray, subsets: int = 100, seed: int = 0) -> Kid:
    """KID of (N, D) and (M, D) features.

    A subset holds 1000 rows, as is customary, or half of the smaller set where that is less: with all rows of a small
    set every subset would be the same, and the spread zero.

    Args:
        synthetic: (N, D).
        real: (M, D).
        subsets: Number of draws, each without replacement.
        seed: Of the draws.

    Raises:
        InputError: A set has fewer than four rows, or a feature is not finite.
    """
    smaller = min(len(synthetic), len(real))
    if smaller < 4:
        raise InputError(f"KID: a set holds {smaller} images; subsets of at least 2 need 4")
    size = min(MAX_SUBSET, smaller // 2)
    rng = np.random.default_rng(seed)
    values = [
        mmd2(
            synthetic[rng.choice(len(synthetic), size, replace=False)], real[rng.choice(len(real), size, replace=False)]
        )
        for _ in range(subsets)
    ]
    return Kid(float(np.mean(values)), float(np.std(values)), mmd2(synthetic, real), size, subsets)


def mmd2(x: np.ndarray, y: np.ndarray) -> float:
    """Unbiased squared maximum mean discrepancy of (N, D) and (M, D) under the cubic kernel; N, M >= 2."""
    return mmd.mmd2(x, y, _cubic).unbiased


def _cubic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x @ y.T / x.shape[1] + 1) ** 3
