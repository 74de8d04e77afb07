"""The structure measure against its published statement, in exact fractions, pixel by pixel."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from morphogen.metrics.mae import mae
from morphogen.metrics.s_measure import s_measure
from morphogen.metrics.weighted_f import weighted_f

Grid = list[list[Fraction]]


def mean(values: list[Fraction]) -> Fraction:
    return sum(values, Fraction(0)) / len(values)


def spread(a: list[Fraction], b: list[Fraction]) -> Fraction:
    """Covariance with N - 1; 0 for one pixel."""
    x, y = mean(a), mean(b)
    return sum(((p - x) * (q - y) for p, q in zip(a, b, strict=True)), Fraction(0)) / max(len(a) - 1, 1)


def literal_object(values: list[Fraction]) -> float:
    x = mean(values)
    return float(2 * x) / (float(x) ** 2 + 1 + math.sqrt(spread(values, values)))


def literal_quadrant(p: list[Fraction], g: list[Fraction]) -> float:
    x, y = mean(p), mean(g)
    alpha = 4 * x * y * spread(p, g)
    beta = (x**2 + y**2) * (spread(p, p) + spread(g, g))
    if alpha:
        return float(alpha / beta)
    return 0.0 if beta else 1.0


def literal_s(grey: np.ndarray, ref: np.ndarray) -> float:
    """Fan et al. 2017 with p = grey / 255, coordinates counted from 1 as in the published code."""
    height, width = ref.shape
    pixels = [(y, x) for y in range(height) for x in range(width)]
    p = {at: Fraction(int(grey[at]), 255) for at in pixels}
    g = {at: Fraction(int(ref[at])) for at in pixels}
    on = [at for at in pixels if g[at]]
    off = [at for at in pixels if not g[at]]
    if not on or not off:
        share = mean(list(p.values()))
        return float(share if on else 1 - share)
    mu = len(on) / len(pixels)
    s_object = mu * literal_object([p[at] for at in on]) + (1 - mu) * literal_object([1 - p[at] for at in off])
    cut = [math.floor(Fraction(sum(at[axis] + 1 for at in on), len(on)) + Fraction(1, 2)) for axis in (0, 1)]
    s_region = 0.0
    for below in (False, True):
        for right in (False, True):
            part = [at for at in pixels if (at[0] + 1 > cut[0]) == below and (at[1] + 1 > cut[1]) == right]
            if part:
                s_region += len(part) / len(pixels) * literal_quadrant([p[a] for a in part], [g[a] for a in part])
    return max(0.0, (s_object + s_region) / 2)


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_matches_the_published_statement(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    ref = rng.random(shape) < data.draw(st.sampled_from([0.0, 0.05, 0.3, 0.7, 1.0]))
    levels = data.draw(st.sampled_from([[0, 255], [0, 128, 255], [60], [0], list(range(256))]))
    grey = rng.choice(levels, shape).astype(np.uint8)
    assert s_measure(grey / 255, ref) == pytest.approx(literal_s(grey, ref), abs=1e-12)
    mask = grey > 127
    assert s_measure(mask, ref) == pytest.approx(literal_s(mask * np.uint8(255), ref), abs=1e-12)


def test_a_mask_and_its_map_of_zeros_and_ones_score_alike() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask, ref = rng.random((30, 41)) < 0.3, rng.random((30, 41)) < 0.3
        assert s_measure(mask, ref) == pytest.approx(s_measure(mask.astype(float), ref), abs=1e-12)


def test_a_reference_of_0_and_255_is_a_mask() -> None:
    rng = np.random.default_rng(1)
    grey, ref = rng.random((9, 12)), rng.random((9, 12)) < 0.4
    for score in (s_measure, weighted_f, mae):
        assert score(grey, ref * np.uint8(255)) == score(grey, ref)


@pytest.mark.parametrize("full", [False, True])
def test_references_of_one_kind(full: bool) -> None:
    ref = np.full((5, 8), full)
    assert s_measure(ref, ref) == 1
    assert s_measure(~ref, ref) == 0
    assert s_measure(np.full(ref.shape, 0.25), ref) == (0.25 if full else 0.75)


def test_a_perfect_mask_scores_1_also_at_the_border_and_as_one_pixel() -> None:
    corner, edge, inner = (np.zeros((6, 9), bool) for _ in range(3))
    corner[-1, -1] = edge[:, -1] = inner[2:4, 3:6] = True
    for ref in (corner, edge, inner):
        assert s_measure(ref, ref) == pytest.approx(1, abs=1e-9)


def test_rounding_halves_up() -> None:
    """Foreground in rows 2 and 3 of 4 (from 1): the cut lies after row 3, where numpy's rounding would give 2."""
    ref = np.array([[0, 0], [1, 1], [1, 1], [0, 0]], bool)
    pred = np.array([[0, 0], [1, 1], [0, 0], [1, 1]], bool)
    assert s_measure(pred, ref) == pytest.approx(literal_s(pred * np.uint8(255), ref), abs=1e-12)


@pytest.mark.realdata
def test_real_masks(real_data: Path) -> None:
    files = sorted((real_data / "polyps" / "kvasir_seg" / "masks").iterdir())[::150]
    for k, file in enumerate(files):
        ref = np.array(Image.open(file).convert("L").resize((40, 32), Image.Resampling.NEAREST)) > 127
        grey = np.random.default_rng(k).integers(0, 256, ref.shape).astype(np.uint8) // 2 + ref * np.uint8(120)
        assert s_measure(grey / 255, ref) == pytest.approx(literal_s(grey, ref), abs=1e-12)
        assert s_measure(grey > 127, ref) == pytest.approx(literal_s((grey > 127) * np.uint8(255), ref), abs=1e-12)
