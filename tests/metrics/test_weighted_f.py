"""The weighted F-measure against its published statement, pixel by pixel."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from morphogen.metrics.mae import mae
from morphogen.metrics.weighted_f import weighted_f


def literal_f(p: np.ndarray, g: np.ndarray) -> float:
    """Margolin et al. 2014, beta 1; for maps and masks that are not empty.

    The nearest foreground pixel is looked for column by column, as MATLAB counts pixels; the first one is taken.
    """
    height, width = g.shape
    pixels = [(y, x) for x in range(width) for y in range(height)]
    foreground = [at for at in pixels if g[at]]
    error = {at: abs(float(p[at]) - float(g[at])) for at in pixels}
    nearest = {at: min(foreground, key=lambda f: (f[0] - at[0]) ** 2 + (f[1] - at[1]) ** 2) for at in pixels}
    carried = {at: error[at] if g[at] else error[nearest[at]] for at in pixels}
    kernel = {(y, x): math.exp(-(y * y + x * x) / (2 * 5**2)) for y in range(-3, 4) for x in range(-3, 4)}
    whole = sum(kernel.values())
    weighted = {}
    for y, x in pixels:
        blurred = sum(k * carried.get((y + dy, x + dx), 0.0) for (dy, dx), k in kernel.items()) / whole
        if g[y, x]:
            weighted[y, x] = min(error[y, x], blurred)
        else:
            distance = math.dist((y, x), nearest[y, x])
            weighted[y, x] = error[y, x] * (2 - math.exp(math.log(1 - 0.5) / 5 * distance))
    on = sum(weighted[at] for at in foreground)
    off = sum(weighted[at] for at in pixels if not g[at])
    true = len(foreground) - on
    recall = 1 - on / len(foreground)
    precision = true / (true + off) if true + off else 0.0
    return 2 * recall * precision / (recall + precision) if recall + precision else 0.0


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_matches_the_published_statement(data: st.DataObject) -> None:
    shape = data.draw(st.sampled_from([(1, 1), (1, 9), (9, 1), (7, 8), (12, 5)]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    ref = rng.random(shape) < data.draw(st.sampled_from([0.05, 0.3, 0.8, 1.0]))
    ref[rng.integers(shape[0]), rng.integers(shape[1])] = True
    pred = rng.random(shape) * (rng.random(shape) < 0.7)
    if data.draw(st.booleans()):
        pred = pred > 0.6
    if pred.any():
        assert weighted_f(pred, ref) == pytest.approx(literal_f(pred, ref), abs=1e-12)


def test_small_objects_in_large_images_are_cut_out_without_a_trace() -> None:
    rng = np.random.default_rng(5)
    for corner in ((0, 0), (9, 12), (14, 19)):
        pred, ref = np.zeros((18, 24), bool), np.zeros((18, 24), bool)
        part = tuple(slice(c, c + 4) for c in corner)
        pred[part], ref[part] = rng.random((4, 4)) < 0.6, True
        assert weighted_f(pred, ref) == pytest.approx(literal_f(pred, ref), abs=1e-12)


def test_empty_masks() -> None:
    empty, corner = np.zeros((5, 6), bool), np.zeros((5, 6), bool)
    corner[:2, :2] = True
    assert weighted_f(empty, empty) == 1
    assert weighted_f(corner, empty) == weighted_f(empty, corner) == 0
    # the published code rewards the miss, because its blur loses errors beyond the image border
    assert literal_f(empty, corner) > 0.1
    assert weighted_f(corner, corner) == pytest.approx(1)


def test_mae_is_a_mean_of_absolute_differences() -> None:
    assert mae(np.array([[0.25, 1.0], [0.0, 0.5]]), np.array([[False, True], [True, False]])) == 1.75 / 4


@pytest.mark.realdata
def test_real_masks(real_data: Path) -> None:
    files = sorted((real_data / "polyps" / "kvasir_seg" / "masks").iterdir())[::300]
    for k, file in enumerate(files):
        ref = np.array(Image.open(file).convert("L").resize((32, 26), Image.Resampling.NEAREST)) > 127
        pred = np.random.default_rng(k).random(ref.shape) / 2 + ref / 2
        assert weighted_f(pred, ref) == pytest.approx(literal_f(pred, ref), abs=1e-12)
        mask = np.roll(ref, 2, 1)
        assert weighted_f(mask, ref) == pytest.approx(literal_f(mask, ref), abs=1e-12)
