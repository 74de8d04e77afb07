"""Do raters agree: Krippendorff's alpha, intraclass correlation, weighted kappa.

Each is NaN where it is undefined: nothing to compare, or no scatter at all.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def alpha_ordinal(scores: Array) -> float:
    """Krippendorff's alpha for ordinal data, with missing scores (Krippendorff, Computing alpha-reliability, 2011).

    alpha = 1 - D_o / D_e. The ordinal distance of two values c < k, the number of values from c to k less half of those
    at either end, is the distance of their mid-ranks; alpha is therefore that of interval data on mid-ranks, and the
    sums over pairs become sums of squares.

    Args:
        scores: (R, n), NaN where a rater gave none.
    """
    from scipy.stats import rankdata

    pairable = scores[:, np.isfinite(scores).sum(axis=0) >= 2]
    given = np.isfinite(pairable)
    if not given.any():
        return np.nan
    ranks = np.where(given, 0.0, np.nan)
    ranks[given] = rankdata(pairable[given])
    m = given.sum(axis=0)
    within = 2 * m * _squares(ranks, axis=0) / (m - 1)
    n = int(m.sum())
    expected = 2 * n * float(_squares(ranks)) / (n * (n - 1))
    return 1 - float(within.sum()) / n / expected if expected > 0 else np.nan


def icc(scores: Array) -> tuple[float, float]:
    """ICC(2,1) and ICC(2,k): absolute agreement of single scores and of the raters' mean; raters and pictures random.

    Shrout and Fleiss, Psychological Bulletin 86, 1979. Only pictures that every rater has scored count.

    Args:
        scores: (R, n), NaN where a rater gave none.
    """
    table = scores[:, np.isfinite(scores).all(axis=0)]
    k, n = table.shape
    if k < 2 or n < 2:
        return np.nan, np.nan
    grand = table.mean()
    raters, pictures = table.mean(axis=1, keepdims=True) - grand, table.mean(axis=0, keepdims=True) - grand
    jms, bms = n * float((raters**2).sum()) / (k - 1), k * float((pictures**2).sum()) / (n - 1)
    ems = float(((table - grand - raters - pictures) ** 2).sum()) / ((k - 1) * (n - 1))
    single, mean = bms + (k - 1) * ems + k * (jms - ems) / n, bms + (jms - ems) / n
    return (bms - ems) / single if single > 0 else np.nan, (bms - ems) / mean if mean > 0 else np.nan


def kappa(first: Array, second: Array) -> float:
    """Cohen's kappa of two ratings of the same pictures, disagreement weighted by its square.

    In the closed form of Fleiss and Cohen, Educational and Psychological Measurement 33, 1973:
    2 cov / (var + var + difference of means squared).

    Args:
        first: (n,), NaN where there is none.
        second: (n,) likewise.
    """
    both = np.isfinite(first) & np.isfinite(second)
    if not both.any():
        return np.nan
    x, y = first[both], second[both]
    scatter = float(x.var() + y.var() + (x.mean() - y.mean()) ** 2)
    return 2 * float(((x - x.mean()) * (y - y.mean())).mean()) / scatter if scatter > 0 else np.nan


def _squares(values: Array, axis: int | None = None) -> Array:
    """Sum of squared deviations from the mean; NaN is left out."""
    mean = np.nanmean(values, axis=axis, keepdims=True)
    return np.asarray(np.nansum((values - mean) ** 2, axis=axis))
