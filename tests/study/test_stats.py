"""Estimates, tests and corrections of a study."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from morphogen.study.stats import (
    DETECTABLE,
    blocks_of,
    bootstrap_means,
    degrees_of_freedom,
    difference,
    estimate,
    holm,
    mean_over_images,
    sign_flip,
    subject_means,
)


def simulated(
    rng: np.random.Generator, subjects: int, images: int, effect: float, seeds: int = 1, seed_sd: float = 0.0
) -> list[Mapping[str, tuple[str, float]]]:
    """Scores with a known mean: subject sd 0.05, image sd 0.1, and crossed seeds."""
    of_subject = rng.normal(0, 0.05, subjects)
    of_image = rng.normal(0, 0.1, (subjects, images))
    shifts = rng.normal(0, seed_sd, seeds)
    return [
        {
            f"{s}-{i}": (f"s{s}", effect + of_subject[s] + of_image[s, i] + shift)
            for s in range(subjects)
            for i in range(images)
        }
        for shift in shifts
    ]


def test_mean_is_over_images_not_over_subjects() -> None:
    scores = {"a": ("s", 0.0), "b": ("s", 0.0), "c": ("t", 0.9)}
    found = estimate([scores], draws=50)
    assert found.mean == pytest.approx(0.3)
    assert (found.n_images, found.n_subjects, found.n_repetitions) == (3, 2, 1)


def test_crossed_repetitions_are_one_block_and_folds_are_several() -> None:
    first, second = {"a": ("s", 0.2), "b": ("t", 0.4)}, {"a": ("s", 0.4), "b": ("t", 0.8)}
    (block,) = blocks_of([first, second])
    assert block.values.shape == (2, 2)
    assert mean_over_images([first, second]) == pytest.approx((0.3 + 0.6) / 2)
    assert [b.ids for b in blocks_of([first, {"c": ("u", 1.0)}])] == [("a", "b"), ("c",)]


def test_partly_shared_images_are_refused() -> None:
    with pytest.raises(ValueError, match="share some images"):
        blocks_of([{"a": ("s", 0.2), "b": ("t", 0.4)}, {"a": ("s", 0.2)}])


def test_standard_error_with_one_image_a_subject_is_the_textbook_one() -> None:
    values = np.random.default_rng(0).normal(0.1, 0.2, 40)
    found = estimate([{f"i{k}": (f"s{k}", v) for k, v in enumerate(values)}], draws=20_000)
    expected = values.std(ddof=1) / np.sqrt(40)
    assert found.se == pytest.approx(expected, rel=0.03)
    assert found.smallest_detectable == pytest.approx(2.8 * expected, rel=0.03)
    t = scipy_stats.t.interval(0.95, 39, loc=values.mean(), scale=expected)
    assert found.ci95 == pytest.approx(t, abs=0.1 * expected)


def test_standard_error_of_crossed_seeds_adds_their_variance() -> None:
    rng = np.random.default_rng(1)
    shifts = np.array([-0.05, 0.0, 0.05])
    base = rng.normal(0, 0.1, 50)
    scores = [{f"i{k}": (f"s{k}", v + shift) for k, v in enumerate(base)} for shift in shifts]
    expected = np.sqrt(base.var(ddof=1) / 50 + shifts.var(ddof=1) / 3)
    assert estimate(scores, draws=20_000).se == pytest.approx(expected, rel=0.03)


def test_bootstrap_equals_literal_resampling() -> None:
    """The same study resampled by drawing lists of subjects, images and seeds one by one."""
    rng = np.random.default_rng(2)
    scores = simulated(rng, subjects=6, images=4, effect=0.1, seeds=3, seed_sd=0.05)
    by_subject = {f"s{s}": [f"{s}-{i}" for i in range(4)] for s in range(6)}
    literal = []
    for _ in range(4000):
        seeds = rng.integers(3, size=2)
        drawn = [image for s in rng.integers(6, size=5) for image in rng.choice(by_subject[f"s{s}"], 4)]
        literal.append(np.mean([[scores[k][image][1] for image in drawn] for k in seeds]))
    ours = bootstrap_means(blocks_of(scores), np.random.default_rng(3), 4000)
    assert ours.mean() == pytest.approx(np.mean(literal), abs=0.004)
    assert ours.std() == pytest.approx(np.std(literal), rel=0.06)


@pytest.mark.parametrize(
    ("subjects", "images", "seeds"), [(25, 8, 1), (8, 5, 1), (20, 4, 3), (2, 80, 1), (3, 80, 1), (4, 80, 1), (5, 80, 1)]
)
def test_interval_covers_the_truth(subjects: int, images: int, seeds: int) -> None:
    rng, hits, studies = np.random.default_rng(4), 0, 200
    for k in range(studies):
        found = estimate(simulated(rng, subjects, images, 0.02, seeds, seed_sd=0.01), seed=k, draws=500)
        assert found.ci95 is not None
        hits += found.ci95[0] <= 0.02 <= found.ci95[1]
    assert 0.91 <= hits / studies <= 1.0


@pytest.mark.parametrize("seeds", [3, 5])
def test_few_seeds_that_differ_are_no_proof(seeds: int) -> None:
    """Nothing is true of the difference, and seeds differ more than images do: what is called clear is chance."""
    rng, clear, small, studies = np.random.default_rng(8), 0, 0, 300
    for k in range(studies):
        found = estimate(simulated(rng, 60, 1, 0.0, seeds, seed_sd=0.1), seed=k, draws=300)
        assert found.ci95 is not None
        assert found.p_crossed is not None
        clear += found.ci95[0] > 0 or found.ci95[1] < 0
        small += found.p_crossed < 0.05
    assert 0.01 <= clear / studies <= 0.08
    assert 0.01 <= small / studies <= 0.08


def test_seeds_alone_are_a_t_test_of_their_means() -> None:
    shifts = np.array([0.02, 0.05, 0.03, 0.06])
    found = estimate([{f"i{k}": (f"s{k}", shift) for k in range(30)} for shift in shifts], draws=20_000)
    expected = scipy_stats.ttest_1samp(shifts, 0)
    assert found.p_crossed == pytest.approx(expected.pvalue, rel=0.1)
    assert found.ci95 == pytest.approx(expected.confidence_interval(0.95), rel=0.05)
    assert estimate([{f"i{k}": (f"s{k}", 0.1 * k) for k in range(9)}]).p_crossed is None


def test_degrees_of_freedom_are_satterthwaites() -> None:
    seeds = np.array([0.1, 0.3, 0.2])
    share = seeds.var(ddof=1) / 3
    assert degrees_of_freedom(share + 0.01, 40, [seeds]) == pytest.approx(
        (share + 0.01) ** 2 / (share**2 / 2 + 0.01**2 / 39)
    )
    assert degrees_of_freedom(0.01, 40, []) == pytest.approx(39)
    assert degrees_of_freedom(0.0, 40, []) == 39


def test_interval_has_power_at_the_smallest_detectable_gain() -> None:
    rng, found_it, studies = np.random.default_rng(5), 0, 150
    gain = DETECTABLE * np.sqrt((0.05**2 + 0.1**2 / 4) / 40)
    for k in range(studies):
        found = estimate(simulated(rng, 40, 4, gain), seed=k, draws=500)
        assert found.ci95 is not None
        found_it += found.ci95[0] > 0
    assert 0.6 <= found_it / studies <= 0.92


def test_order_of_images_and_repetitions_changes_nothing() -> None:
    scores = simulated(np.random.default_rng(6), 5, 3, 0.0, seeds=3, seed_sd=0.1)
    shuffled = [dict(reversed(list(row.items()))) for row in reversed(scores)]
    assert estimate(scores, draws=200) == estimate(shuffled, draws=200)


def test_one_subject_has_no_interval() -> None:
    found = estimate([{"a": ("s", 0.1), "b": ("s", 0.3)}])
    assert found.mean == pytest.approx(0.2)
    assert (found.ci95, found.se, found.smallest_detectable) == (None, None, None)


def test_difference_is_image_by_image() -> None:
    (found,) = difference([{"a": ("s", 0.5), "b": ("t", 0.2)}], [{"b": ("t", 0.4), "a": ("s", 0.1)}])
    assert found == {"a": ("s", pytest.approx(0.4)), "b": ("t", pytest.approx(-0.2))}
    with pytest.raises(ValueError, match="different images"):
        difference([{"a": ("s", 0.5)}], [{"b": ("s", 0.5)}])


def test_subject_means_weigh_subjects_alike() -> None:
    scores = [{"a": ("s", 0.0), "b": ("s", 0.2), "c": ("t", 0.9)}, {"d": ("u", 0.4)}]
    assert subject_means(scores) == pytest.approx([0.1, 0.9, 0.4])


def test_sign_flip_equals_enumeration() -> None:
    values = np.array([0.3, -0.1, 0.25, 0.4, 0.05, -0.02])
    patterns = [abs(np.dot(signs, values)) for signs in product([-1, 1], repeat=6)]
    expected = np.mean([p >= abs(values.sum()) - 1e-12 for p in patterns])
    assert sign_flip(values) == pytest.approx(expected)


@pytest.mark.parametrize("n", [9, 20])
def test_sign_flip_equals_scipy(n: int) -> None:
    values = np.random.default_rng(7).normal(0.1, 0.2, n)
    resamples = np.inf if n < 15 else 20_000
    other = scipy_stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=resamples, rng=np.random.default_rng(0)
    )
    assert sign_flip(values) == pytest.approx(other.pvalue, abs=1e-12 if n < 15 else 0.01)


def test_sign_flip_of_nothing_and_of_all_alike() -> None:
    assert sign_flip(np.zeros(5)) == 1.0
    assert sign_flip(np.full(5, 0.1)) == pytest.approx(2 / 2**5)
    assert 0 < sign_flip(np.full(40, 0.1)) < 0.001


def literal_holm(p: list[float]) -> list[float]:
    """Smallest level at which step-down rejection reaches each hypothesis."""
    adjusted = []
    for target in p:
        ordered = sorted(p)
        steps = [(len(p) - k) * q for k, q in enumerate(ordered) if q <= target]
        adjusted.append(min(1.0, max(steps)))
    return adjusted


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_equals_the_literal_version(p: list[float]) -> None:
    assert holm(p) == pytest.approx(literal_holm(p))


def test_holm_leaves_a_single_test_alone() -> None:
    assert holm([0.03]) == [0.03]
    assert holm([]) == []
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
