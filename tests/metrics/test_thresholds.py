"""Scores over 256 thresholds against one mask a threshold, in exact fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morphogen.metrics.e_measure import e_measure
from morphogen.metrics.mae import mae
from morphogen.metrics.overlap import dice, iou
from morphogen.metrics.s_measure import s_measure
from morphogen.metrics.thresholds import score_map
from morphogen.metrics.weighted_f import weighted_f


def literal_masks(grey: np.ndarray) -> list[np.ndarray]:
    """The mask at every threshold k / 255 of the map, stretched in fractions."""
    low, high = int(grey.min()), int(grey.max())
    span = Fraction(high - low) if high > low else Fraction(255)
    start = low if high > low else 0
    stretched = [[(int(value) - start) / span for value in row] for row in grey]
    return [np.array([[value >= Fraction(k, 255) for value in row] for row in stretched]) for k in range(256)]


@settings(deadline=None, max_examples=15)
@given(st.data())
def test_matches_one_mask_a_threshold(data: st.DataObject) -> None:
    shape = data.draw(st.sampled_from([(1, 1), (1, 6), (4, 5)]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    low, high = sorted(data.draw(st.tuples(st.integers(0, 255), st.integers(0, 255))))
    grey = rng.integers(low, high + 1, shape).astype(np.uint8)
    ref = rng.random(shape) < data.draw(st.sampled_from([0, 0.4, 1]))
    found = score_map(grey, ref)
    masks = literal_masks(grey)
    for name, metric in (("dice", dice), ("iou", iou), ("e_measure", e_measure)):
        np.testing.assert_allclose(found.curves[name], [metric(mask, ref) for mask in masks], atol=1e-13)


def test_the_other_metrics_are_those_of_the_stretched_map() -> None:
    rng = np.random.default_rng(0)
    grey, ref = rng.integers(40, 91, (20, 30)).astype(np.uint8), rng.random((20, 30)) < 0.3
    grey[0, :2] = 40, 90
    p = (grey - 40.0) / 50
    assert score_map(grey, ref).values == {
        "s_measure": s_measure(p, ref),
        "weighted_f": weighted_f(p, ref),
        "mae": mae(p, ref),
    }


def test_a_map_of_black_and_white_scores_as_its_mask_but_at_threshold_0() -> None:
    rng = np.random.default_rng(1)
    mask, ref = rng.random((9, 9)) < 0.5, rng.random((9, 9)) < 0.5
    curve = score_map(mask * np.uint8(255), ref).curves["dice"]
    assert (curve[1:] == dice(mask, ref)).all()
    assert curve[0] == dice(np.ones_like(mask), ref)


def test_flags() -> None:
    dark, ref = np.zeros((3, 3), np.uint8), np.zeros((3, 3), bool)
    found = score_map(dark, ref)
    assert (found.empty, found.constant, found.highest) == (True, True, 0)
    assert found.curves["dice"].tolist() == [0] + [1] * 255
    assert found.values == {"s_measure": 1, "weighted_f": 1, "mae": 0}


def test_refuses() -> None:
    with pytest.raises(ValueError, match="the map is"):
        score_map(np.zeros((2, 2), np.uint8), np.zeros((2, 3), bool))
