"""Opinion scores and their intervals against closed forms, literal counts and simulated studies."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import stats
from torchmetrics.functional.classification import binary_auroc

from morphogen.rating.answers import Ratings
from morphogen.rating.opinion import (
    area_under_curve,
    estimate,
    real_score,
    score_difference,
    synthetic_score,
)

WIDE = (-np.inf, np.inf)


def table(scores: np.ndarray, weights: np.ndarray | None = None) -> Ratings:
    """The first half of the columns synthetic, the others real."""
    real = np.arange(scores.shape[1]) >= scores.shape[1] // 2
    return Ratings(scores, np.isfinite(scores) * 1.0 if weights is None else weights, real)


def random_scores(seed: int, raters: int = 3, n: int = 20) -> np.ndarray:
    rng = np.random.default_rng(seed)
    latent = 3 + rng.normal(size=(1, n)) + 0.5 * rng.normal(size=(raters, 1)) + rng.normal(size=(raters, n))
    return np.clip(np.round(latent), 1, 5)


def test_means_count_what_was_scored() -> None:
    scores = np.array([[1, 2, np.nan, 4, 5, 5], [3, 2, 2, np.nan, 4, 3.0]])
    assert synthetic_score(table(scores)) == pytest.approx((1 + 2 + 3 + 2 + 2) / 5)
    assert real_score(table(scores)) == pytest.approx((4 + 5 + 5 + 4 + 3) / 5)
    assert score_difference(table(scores)) == pytest.approx(2 - 4.2)


def test_weights_count_like_repeated_scores() -> None:
    scores, weights = random_scores(0, 2, 6), np.array([[1, 2, 3, 1, 1, 2], [3, 3, 1, 2, 0, 1.0]])
    heavy = [scores[r, i] for r, i in itertools.product(range(2), range(3)) for _ in range(int(weights[r, i]))]
    assert synthetic_score(table(scores, weights)) == pytest.approx(np.mean(heavy))


def test_one_rater_has_the_interval_of_students_t() -> None:
    scores = random_scores(1, raters=1)
    found = estimate(table(scores), synthetic_score, WIDE)
    reference = stats.t.interval(0.95, 9, scores[0, :10].mean(), stats.sem(scores[0, :10]))
    assert found is not None
    assert found.ci95 == pytest.approx(reference)


def test_the_difference_of_one_rater_has_welchs_interval() -> None:
    scores = random_scores(2, raters=1)
    found = estimate(table(scores), score_difference, WIDE)
    reference = stats.ttest_ind(scores[0, :10], scores[0, 10:], equal_var=False).confidence_interval(0.95)
    assert found is not None
    assert found.ci95 == pytest.approx((reference.low, reference.high))


def test_raters_and_pictures_add_up_by_their_mean_squares() -> None:
    """se^2 = MS(raters) / (R n) + MS(pictures) / (R n), degrees of freedom by Satterthwaite's formula."""
    scores = random_scores(3, raters=4)
    block = scores[:, :10]
    per_rater, per_picture = block.mean(axis=1).var(ddof=1) / 4, block.mean(axis=0).var(ddof=1) / 10
    freedom = (per_rater + per_picture) ** 2 / (per_rater**2 / 3 + per_picture**2 / 9)
    reference = stats.t.interval(0.95, freedom, block.mean(), np.sqrt(per_rater + per_picture))
    found = estimate(table(scores), synthetic_score, WIDE)
    assert found is not None
    assert found.ci95 == pytest.approx(reference)
    fixed = estimate(table(scores), synthetic_score, WIDE, over_raters=False)
    assert fixed is not None
    assert fixed.ci95 == pytest.approx(stats.t.interval(0.95, 9, block.mean(), np.sqrt(per_picture)))


@pytest.mark.parametrize("raters", [2, 3, 6])
def test_the_interval_covers_the_truth(raters: int) -> None:
    """Simulated studies in which raters differ in severity and in how much they see."""
    rng, hits, studies, n = np.random.default_rng(raters), 0, 300, 24
    for _ in range(studies):
        severity, bias = 0.4 * rng.normal(size=(raters, 1)), 0.4 * rng.normal(size=(raters, 1))
        synthetic = np.arange(n) < n // 2
        scores = 0.7 * rng.normal(size=n) + 0.7 * rng.normal(size=(raters, n)) + severity + (bias - 1) * synthetic
        found = estimate(table(scores), score_difference, WIDE)
        assert found is not None
        assert found.ci95 is not None
        hits += found.ci95[0] <= -1 <= found.ci95[1]
    assert 0.92 <= hits / studies <= 0.995


@pytest.mark.parametrize("seed", range(3))
def test_area_under_the_curve_is_that_of_torchmetrics(seed: int) -> None:
    scores = random_scores(seed)
    labels = torch.arange(20) >= 10
    areas = [float(binary_auroc(torch.as_tensor(row / 5), labels.int())) for row in scores]
    assert area_under_curve(table(scores)) == pytest.approx(np.mean(areas), abs=1e-6)


def test_area_under_the_curve_counts_pairs_that_were_scored() -> None:
    scores = np.array([[1, 3, np.nan, 3, 5, np.nan], [np.nan] * 3 + [1, 2, 3.0]])
    assert area_under_curve(table(scores)) == (1 + 1 + 0.5 + 1) / 4
    assert np.isnan(area_under_curve(table(scores[1:])))


def test_intervals_stay_on_the_scale_and_are_none_where_nothing_can_be_left_out() -> None:
    found = estimate(table(np.array([[5, 4, 5, 1, 1, 2.0]])), synthetic_score, (1, 5))
    assert found is not None
    assert found.ci95 is not None
    assert found.ci95[1] == 5
    single = estimate(table(np.array([[5, 1.0]])), score_difference, WIDE)
    assert single is not None
    assert single.ci95 is None
    assert estimate(table(np.array([[np.nan, 1.0]])), synthetic_score, WIDE) is None
