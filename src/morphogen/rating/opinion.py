"""Mean opinion scores and their uncertainty, with raters and pictures both drawn at random.

The interval is estimate -+ t se of a two-way jackknife: every rater is left out once, and every picture once, within
its origin. The two variances add up; t has Satterthwaite's degrees of freedom (Biometrics Bulletin 2, 1946). A
percentile bootstrap would do for many raters, but studies have two to five, too few to resample. The scatter that is
neither the rater's nor the picture's is counted with both, so that the interval errs on the wide side. With one rater
it speaks of that rater alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from morphogen.rating.answers import Ratings

Statistic = Callable[[Ratings], float]
"""A number that follows from ratings; NaN where it is undefined."""


@dataclass(frozen=True)
class Estimate:
    """A statistic with its 95 % interval, or None where something is left out of which there is only one."""

    mean: float
    ci95: tuple[float, float] | None


def synthetic_score(ratings: Ratings) -> float:
    """Mean of all scores of synthetic pictures."""
    return _mean(ratings, ~ratings.real)


def real_score(ratings: Ratings) -> float:
    """Mean of all scores of real pictures."""
    return _mean(ratings, ratings.real)


def score_difference(ratings: Ratings) -> float:
    """Synthetic minus real."""
    return synthetic_score(ratings) - real_score(ratings)


def _mean(ratings: Ratings, columns: NDArray[np.bool_]) -> float:
    weights = ratings.weights[:, columns]
    total = float(weights.sum())
    return float((np.nan_to_num(ratings.scores[:, columns]) * weights).sum()) / total if total > 0 else np.nan


def area_under_curve(ratings: Ratings) -> float:
    """How well scores tell real from synthetic: the chance that a real picture gets the higher of two scores.

    Ties count half: 0.5 is a guess, 1 is always told apart. Mean over the raters who scored both kinds.
    """
    areas = []
    for row in ratings.scores:
        real, synthetic = (row[ratings.real == kind] for kind in (True, False))
        real, synthetic = real[np.isfinite(real)], synthetic[np.isfinite(synthetic)]
        if len(real) and len(synthetic):
            areas.append(0.5 + 0.5 * float(np.sign(real[:, None] - synthetic).mean()))
    return float(np.mean(areas)) if areas else np.nan


def estimate(
    ratings: Ratings, statistic: Statistic, within: tuple[float, float], over_raters: bool = True
) -> Estimate | None:
    """`statistic` with its 95 % interval.

    Args:
        ratings: All scores.
        statistic: What is estimated.
        within: Range that it cannot leave, which cuts the interval.
        over_raters: Whether the interval speaks of other raters too, or of these on other pictures.

    Returns:
        None where the statistic is undefined.
    """
    value = statistic(ratings)
    if not np.isfinite(value):
        return None
    strata = [np.flatnonzero(ratings.real == kind).tolist() for kind in (True, False)]
    parts = [[statistic(ratings.without_picture(i)) for i in stratum] for stratum in strata]
    if over_raters and len(ratings.scores) > 1:
        parts.append([statistic(ratings.without_rater(r)) for r in range(len(ratings.scores))])
    return Estimate(value, _interval(value, [np.array(part) for part in parts], within))


def _interval(
    value: float, parts: list[NDArray[np.float64]], within: tuple[float, float]
) -> tuple[float, float] | None:
    """From the values with one unit left out, for each kind of unit."""
    from scipy.special import stdtrit

    if any(len(part) < 2 or not np.isfinite(part).all() for part in parts):
        return None
    variances = np.array([(len(part) - 1) / len(part) * float(((part - part.mean()) ** 2).sum()) for part in parts])
    total = float(variances.sum())
    if total < 1e-20:
        return value, value
    freedom = total**2 / float(sum(v**2 / (len(part) - 1) for v, part in zip(variances, parts, strict=True)))
    half = float(stdtrit(freedom, 0.975)) * total**0.5
    return max(value - half, within[0]), min(value + half, within[1])
