"""Agreement against published worked examples, literal versions and another library."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_cohen_kappa

from morphogen.rating.agreement import alpha_ordinal, icc, kappa

NAN = np.nan
KRIPPENDORFF = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
        [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
    ]
)
"""Four observers, twelve units: the example of Krippendorff's Computing alpha-reliability (2011)."""
SHROUT_FLEISS = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]).T * 1.0
"""Six targets by four judges: table 2 of Shrout and Fleiss (1979); here judges are rows."""


def alpha_literal(scores: np.ndarray) -> float:
    """By coincidences: every ordered pair of scores of a unit counts 1 / (m - 1); distances from the margins."""
    values = [unit[np.isfinite(unit)].astype(int) for unit in scores.T]
    coincidences = np.zeros((6, 6))
    for unit in values:
        for a, b in itertools.permutations(range(len(unit)), 2):
            coincidences[unit[a], unit[b]] += 1 / (len(unit) - 1)
    margins = coincidences.sum(axis=0)
    n = margins.sum()
    observed = expected = 0.0
    for c, k in itertools.product(range(1, 6), repeat=2):
        low, high = min(c, k), max(c, k)
        distance = (margins[low : high + 1].sum() - (margins[c] + margins[k]) / 2) ** 2
        observed += coincidences[c, k] * distance
        expected += margins[c] * margins[k] * distance
    return float(1 - (n - 1) * observed / expected)


def test_alpha_of_krippendorffs_example() -> None:
    assert alpha_ordinal(KRIPPENDORFF) == pytest.approx(0.815, abs=5e-4)
    assert alpha_literal(KRIPPENDORFF) == pytest.approx(alpha_ordinal(KRIPPENDORFF), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_alpha_is_the_literal_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = np.clip(rng.integers(1, 6, 30) + rng.integers(-1, 2, (2 + seed, 30)), 1, 5).astype(float)
    scores[rng.random(scores.shape) < 0.25] = NAN
    assert alpha_ordinal(scores) == pytest.approx(alpha_literal(scores), abs=1e-12)


def test_alpha_of_full_and_of_undefined_agreement() -> None:
    assert alpha_ordinal(np.array([[1.0, 3, 5], [1, 3, 5]])) == 1
    assert np.isnan(alpha_ordinal(np.full((2, 4), 3.0)))
    assert np.isnan(alpha_ordinal(np.array([[1.0, NAN], [NAN, 2]])))


def test_icc_of_shrout_and_fleiss() -> None:
    assert icc(SHROUT_FLEISS) == (pytest.approx(0.29, abs=5e-3), pytest.approx(0.62, abs=5e-3))


@pytest.mark.parametrize("seed", range(3))
def test_icc_by_variance_components(seed: int) -> None:
    """ICC(2,1) = var(pictures) / (var(pictures) + var(raters) + var(rest)), each solved from its mean square."""
    rng = np.random.default_rng(seed)
    k, n = 2 + seed, 12
    table = rng.normal(size=(1, n)) + 0.5 * rng.normal(size=(k, 1)) + 0.7 * rng.normal(size=(k, n))
    between = sum((table[:, j].mean() - table.mean()) ** 2 for j in range(n)) * k / (n - 1)
    raters = sum((table[i].mean() - table.mean()) ** 2 for i in range(k)) * n / (k - 1)
    total = ((table - table.mean()) ** 2).sum()
    rest = (total - between * (n - 1) - raters * (k - 1)) / ((n - 1) * (k - 1))
    p, r = (between - rest) / k, (raters - rest) / n
    assert icc(table) == (pytest.approx(p / (p + r + rest)), pytest.approx(p / (p + (r + rest) / k)))


def test_icc_takes_the_pictures_that_all_have_scored() -> None:
    gaps = np.column_stack([SHROUT_FLEISS, [1.0, NAN, 2, 3]])
    assert icc(gaps) == icc(SHROUT_FLEISS)
    assert np.isnan(icc(SHROUT_FLEISS[:1])).all()
    assert np.isnan(icc(np.full((2, 3), 4.0))).all()


@pytest.mark.parametrize("seed", range(4))
def test_kappa_is_that_of_torchmetrics(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first = rng.integers(1, 6, 40)
    second = np.clip(first + rng.integers(-2, 3, 40), 1, 5)
    reference = multiclass_cohen_kappa(
        torch.as_tensor(second - 1), torch.as_tensor(first - 1), num_classes=5, weights="quadratic"
    )
    gaps = [np.append(first.astype(float), [NAN, 2]), np.append(second.astype(float), [1, NAN])]
    assert kappa(*gaps) == pytest.approx(float(reference), abs=1e-6)


def test_kappa_where_nothing_scatters() -> None:
    assert np.isnan(kappa(np.full(3, 2.0), np.full(3, 2.0)))
    assert np.isnan(kappa(np.array([NAN]), np.array([1.0])))
