"""The enhanced-alignment measure against its published statement, in exact fractions, pixel by pixel."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from morphogen.metrics.e_measure import e_measure, e_measure_from_counts


def literal_e(pred: np.ndarray, ref: np.ndarray) -> float:
    """Fan et al. 2018, and its code's division by N - 1; without the eps, which only keeps 0 / 0 at 0."""
    p, g = ([Fraction(int(value)) for value in mask.ravel()] for mask in (pred, ref))
    n = len(p)
    if not any(g):
        total = sum(1 - value for value in p)
    elif all(g):
        total = sum(p)
    else:
        mean_p, mean_g = sum(p) / n, sum(g) / n
        total = Fraction(0)
        for one, other in zip(p, g, strict=True):
            a, b = one - mean_p, other - mean_g
            aligned = 2 * a * b / (a * a + b * b)
            total += (aligned + 1) ** 2 / 4
    return float(Fraction(total) / max(n - 1, 1))


@settings(deadline=None, max_examples=150)
@given(
    st.tuples(st.integers(1, 7), st.integers(1, 7)),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0, 0.1, 0.5, 1]),
    st.sampled_from([0, 0.1, 0.5, 1]),
)
def test_matches_the_published_statement(shape: tuple[int, int], seed: int, density: float, other: float) -> None:
    rng = np.random.default_rng(seed)
    pred, ref = rng.random(shape) < density, rng.random(shape) < other
    assert e_measure(pred, ref) == pytest.approx(literal_e(pred, ref), abs=1e-12)


def test_many_counts_at_once() -> None:
    rng = np.random.default_rng(1)
    masks = rng.random((5, 8, 9)) < np.linspace(0, 1, 5)[:, None, None]
    ref = rng.random((8, 9)) < 0.4
    counts = np.array([[(mask & ref).sum(), mask.sum(), ref.sum()] for mask in masks])
    expected = [e_measure(mask, ref) for mask in masks]
    np.testing.assert_allclose(e_measure_from_counts(counts, ref.size), expected, rtol=1e-14)


def test_perfect_masks_score_n_over_n_minus_1() -> None:
    for ref in (np.zeros((3, 4), bool), np.ones((3, 4), bool), np.eye(3, 4, dtype=bool)):
        assert e_measure(ref, ref) == pytest.approx(12 / 11)
        assert e_measure(~ref, ref) == pytest.approx(0, abs=1e-12)
    assert e_measure(np.ones((1, 1), bool), np.ones((1, 1), bool)) == 1


def test_an_empty_prediction_is_neither_aligned_nor_opposed() -> None:
    assert e_measure(np.zeros((3, 4), bool), np.eye(3, 4, dtype=bool)) == pytest.approx(0.25 * 12 / 11)


@pytest.mark.realdata
def test_real_masks(real_data: Path) -> None:
    files = sorted((real_data / "polyps" / "kvasir_seg" / "masks").iterdir())[::150]
    for file in files:
        ref = np.array(Image.open(file).convert("L").resize((60, 48), Image.Resampling.NEAREST)) > 127
        pred = np.roll(ref, (3, -2), (0, 1))
        assert e_measure(pred, ref) == pytest.approx(literal_e(pred, ref), abs=1e-12)
