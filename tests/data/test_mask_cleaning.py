"""Cleaning of painted masks, against literal statements of each of its steps."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from skimage.morphology import disk

from morphogen.data.mask_cleaning import clean


def components(mask: np.ndarray, corners: bool) -> list[set[tuple[int, int]]]:
    """Connected parts by flooding, in reading order of their first pixel."""
    left, found = {(int(r), int(c)) for r, c in np.argwhere(mask)}, []
    steps = [d for d in product((-1, 0, 1), repeat=2) if d != (0, 0) and (corners or 0 in d)]
    for start in sorted(left):
        if start not in left:
            continue
        part, front = {start}, [start]
        left.discard(start)
        while front:
            r, c = front.pop()
            near = {(r + dr, c + dc) for dr, dc in steps} & left
            left -= near
            part |= near
            front += near
        found.append(part)
    return found


def literal(probability: np.ndarray, radius: int) -> np.ndarray:
    """Threshold, largest part, every hole filled, the union of the discs that fit, the largest part of it."""
    shape = probability.shape

    def largest(mask: np.ndarray) -> np.ndarray:
        out = np.zeros(shape, bool)
        parts = components(mask, corners=True)
        for pixel in max(parts, key=len, default=set()):
            out[pixel] = True
        return out

    mask = largest(probability > 0.5)
    for part in components(~mask, corners=False):
        if not any(r in (0, shape[0] - 1) or c in (0, shape[1] - 1) for r, c in part):
            for pixel in part:
                mask[pixel] = True
    if radius == 0:
        return mask
    offsets = np.argwhere(disk(radius)) - radius
    opened = np.zeros(shape, bool)
    for centre in product(range(shape[0]), range(shape[1])):
        inside = [(r, c) for r, c in offsets + centre if 0 <= r < shape[0] and 0 <= c < shape[1]]
        if all(mask[p] for p in inside):
            for p in inside:
                opened[p] = True
    return largest(opened)


@pytest.mark.parametrize("side", [48, 300, 512])
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_cleaning_is_what_it_says(side: int, seed: int) -> None:
    """At 300 px the radius is 1, at 512 px 2: a small field lies within otherwise certain background."""
    field = gaussian_filter(np.random.default_rng(seed).normal(size=(34, 38)), 1.5)
    probability = np.zeros((side, side + 8))
    probability[:34, :38] = 1 / (1 + np.exp(-12 * field))
    found = clean(probability)
    radius = {48: 0, 300: 1, 512: 2}[side]
    assert found.radius == radius
    expected = literal(probability[:48, :48], radius)
    np.testing.assert_array_equal(found.mask[:48, :48], expected)
    assert found.mask[48:].sum() == found.mask[:, 48:].sum() == 0
    values = probability[:34, :38].ravel().tolist()
    unclear, certain = sum(0.2 < p < 0.8 for p in values), sum(p > 0.5 for p in values)
    assert found.ambiguous == pytest.approx(unclear / max(certain, 1))
    assert found.raw_area == pytest.approx(certain / probability.size)
    assert found.area == pytest.approx(expected.sum() / probability.size)


def test_nothing_stays_nothing() -> None:
    found = clean(np.zeros((64, 64)))
    assert (found.mask.sum(), found.area, found.raw_area, found.ambiguous) == (0, 0, 0, 0)
    assert found.mask.dtype == np.int64


def test_all_stays_all() -> None:
    for side in (64, 512):
        found = clean(np.ones((side, side)))
        assert found.mask.all()
        assert (found.area, found.ambiguous) == (1, 0)


def test_one_half_is_no_lesion_and_unclear() -> None:
    found = clean(np.full((8, 8), 0.5))
    assert (found.area, found.ambiguous) == (0, 64)


def test_the_larger_of_two_parts_stays() -> None:
    probability = np.zeros((64, 64))
    probability[4:10, 4:10] = probability[30:50, 30:50] = 0.9
    probability[38:42, 38:42] = 0.1
    found = clean(probability)
    assert found.mask.sum() == 400
    assert found.mask[4:10, 4:10].sum() == 0
    assert (found.raw_area, found.area) == ((36 + 400 - 16) / 64**2, 400 / 64**2)


def test_a_single_pixel_stays_at_small_sides_and_goes_at_large_ones() -> None:
    for side, n in ((64, 1), (512, 0)):
        probability = np.zeros((side, side))
        probability[20, 20] = 1.0
        found = clean(probability)
        assert (found.mask.sum(), found.raw_area) == (n, 1 / side**2)


def test_the_shorter_side_sets_the_radius() -> None:
    assert [clean(np.zeros(shape)).radius for shape in ((512, 2048), (1024, 600), (127, 127), (129, 129))] == [
        2,
        2,
        0,
        1,
    ]


def test_a_bridge_that_the_opening_cuts_leaves_one_part() -> None:
    probability = np.zeros((512, 512))
    probability[100:200, 100:200] = probability[100:160, 300:360] = 1.0
    probability[120:123, 200:300] = 1.0
    mask = clean(probability).mask
    assert len(components(mask[::4, ::4], corners=True)) == 1
    assert mask[:, 250:].sum() == 0


def test_unclear_probabilities_exclude_their_limits() -> None:
    probability = np.zeros((64, 64))
    probability[10:20, 10:20] = 0.9
    probability[10, 10:13] = (0.8, 0.79, 0.2)
    assert clean(probability).ambiguous == pytest.approx(1 / 99)


def test_what_half_a_cell_blurs_is_not_called_unclear() -> None:
    probability = np.zeros((32, 32))
    probability[8:24, 8:24] = 1.0
    blurred = probability.copy()
    blurred[8:24, 8:10] = 0.7  # two pixels deep, along one side
    blurred[8:24, 6:8] = 0.3
    assert clean(blurred).ambiguous == pytest.approx(4 * 16 / 256)
    assert clean(blurred, cell=4).ambiguous == 0
    blurred[16, 16] = 0.7  # 8 px inside
    blurred[2, 2] = 0.3  # far outside
    assert clean(blurred, cell=4).ambiguous == pytest.approx(2 / 256)
    assert np.array_equal(clean(blurred, cell=4).mask, clean(blurred).mask)
    assert clean(np.full((8, 8), 0.5), cell=4).ambiguous == 64
    assert clean(np.full((8, 8), 0.7), cell=4).ambiguous == 1
