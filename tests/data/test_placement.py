"""Lesions laid into a field of view: wholly inside, no part lost, labels kept; cut ones stay at a border."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from morphogen.data.mask_transforms import MASK_TRANSFORMS
from morphogen.data.mask_words import AREA_BINS, area_bin
from morphogen.data.masks import resize_labels
from morphogen.data.placement import LIMITS, nearest, place_mask
from morphogen.data.regions import largest_region
from morphogen.errors import InputError

EIGHT = np.ones((3, 3))


def ellipse(shape: tuple[int, int], row: float, column: float, a: float, b: float) -> np.ndarray:
    rows, columns = np.indices(shape)
    return ((rows - row) / a) ** 2 + ((columns - column) / b) ** 2 <= 1


@st.composite
def masks(draw: st.DrawFn) -> np.ndarray:
    """One to three ellipses of two labels, cut by the frame or not, down to single pixels."""
    shape = draw(st.tuples(st.integers(24, 48), st.integers(24, 48)))
    mask = np.zeros(shape, dtype=np.int64)
    for _ in range(draw(st.integers(1, 3))):
        row, column = draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))
        mask[ellipse(shape, row, column, draw(st.floats(0.5, 14)), draw(st.floats(0.5, 14)))] = draw(st.integers(1, 2))
    return mask


@st.composite
def fields(draw: st.DrawFn) -> np.ndarray:
    """All of the frame, an ellipse or an octagon in it, perhaps with a box and a line of text taken out."""
    shape = draw(st.tuples(st.integers(24, 64), st.integers(24, 64)))
    rows, columns = np.indices(shape)
    kind = draw(st.sampled_from(("all", "ellipse", "octagon")))
    field = np.ones(shape, dtype=bool)
    if kind == "ellipse":
        field = ellipse(shape, shape[0] / 2, shape[1] / 2, shape[0] * 0.45, shape[1] * 0.4)
    elif kind == "octagon":
        inner = [np.minimum(index, n - 1 - index) for index, n in ((rows, shape[0]), (columns, shape[1]))]
        field = (inner[0] >= 2) & (inner[1] >= 3) & (inner[0] + inner[1] >= 10)
    if draw(st.booleans()):
        field[-shape[0] // 3 :, : shape[1] // 3] = False
    if draw(st.booleans()):
        field[shape[0] // 4 : shape[0] // 4 + 3, 3 : shape[1] // 2] = False
    return field


NAMES = st.sampled_from(sorted(MASK_TRANSFORMS))
SEEDS = st.integers(0, 2**63 - 1)


@settings(max_examples=250, deadline=None)
@given(mask=masks(), field=fields(), name=NAMES, seed=SEEDS, area=st.sampled_from((None, *AREA_BINS)))
def test_every_lesion_lies_wholly_inside_with_all_its_labels(
    mask: np.ndarray, field: np.ndarray, name: str, seed: int, area: str | None
) -> None:
    before = mask.copy()
    placed, params = place_mask(mask, field, name, seed, area=area)
    np.testing.assert_array_equal(mask, before)
    assert (placed.shape, placed.dtype) == (field.shape, mask.dtype)
    assert not ((placed > 0) & ~field).any()
    assert set(np.unique(placed)) == {0, *np.unique(mask[mask > 0])}
    if not params["border"]:  # nor does it touch the frame or the edge of the field
        assert not ((placed > 0) & ~ndimage.binary_erosion(field, EIGHT)).any()
    json.dumps(params)


@settings(max_examples=150, deadline=None)
@given(mask=masks(), seed=SEEDS)
def test_where_there_is_room_parts_and_areas_are_kept(mask: np.ndarray, seed: int) -> None:
    field = np.ones(tuple(n + 60 for n in mask.shape), dtype=bool)
    grown = np.zeros(field.shape, dtype=np.int64)
    grown[30:-30, 30:-30] = mask
    placed, params = place_mask(grown, field, "identity", seed)
    assert (params["size"], params["cut"]) == (1.0, False)
    rows, columns = np.nonzero(grown)
    at = (params["at"][0] - rows.min(), params["at"][1] - columns.min())
    np.testing.assert_array_equal(placed, np.roll(grown, at, (0, 1)))


@settings(max_examples=100, deadline=None)
@given(mask=masks(), seed=SEEDS, height=st.integers(6, 90), width=st.integers(6, 90))
def test_resized_lesions_lose_no_part(mask: np.ndarray, seed: int, height: int, width: int) -> None:
    inside = np.zeros(tuple(n + 8 for n in mask.shape), dtype=np.int64)
    inside[4:-4, 4:-4] = mask
    placed, params = place_mask(inside, np.ones((height, width), dtype=bool), "identity", seed)
    assert set(np.unique(placed)) == set(np.unique(inside))
    for label in np.unique(inside[inside > 0]):
        n, m = (ndimage.label(array == label, EIGHT)[1] for array in (inside, placed))
        scale = min(height / inside.shape[0], width / inside.shape[1]) * params["size"]
        assert m == n or (scale < 1 and m >= 1), (n, m, scale)


def test_a_lesion_that_is_reduced_to_a_pixel_keeps_room_for_each_of_its_labels() -> None:
    mask = np.zeros((48, 48), dtype=np.int64)
    mask[20, 20:23], mask[21, 20:22] = 2, (1, 2)
    placed, _ = place_mask(mask, np.ones((6, 6), dtype=bool), "identity", 0)
    assert set(np.unique(placed)) == {0, 1, 2}


def test_a_speck_survives_a_reduction() -> None:
    mask = np.zeros((90, 90), dtype=np.int64)
    mask[ellipse(mask.shape, 45, 45, 12, 12)] = 1
    mask[20, 20], mask[70, 25] = 2, 1
    for seed in range(20):
        placed, _ = place_mask(mask, np.ones((31, 31), dtype=bool), "identity", seed)
        assert (placed == 2).sum() == 1
        assert ndimage.label(placed == 1, EIGHT)[1] == 2


def test_it_is_a_pure_function_and_places_vary() -> None:
    mask = ellipse((40, 40), 20, 20, 6, 4).astype(np.int64)
    field = ellipse((60, 60), 30, 30, 28, 28)
    one, two = (place_mask(mask, field, "all", 5) for _ in range(2))
    assert np.array_equal(one[0], two[0])
    assert one[1] == two[1]
    places = np.array([place_mask(mask, field, "flip", seed)[1]["at"] for seed in range(60)])
    assert (np.ptp(places, axis=0) > 25).all()


def test_a_lesion_too_large_for_the_field_is_made_smaller_and_never_cut() -> None:
    mask = ellipse((80, 80), 40, 40, 36, 36).astype(np.int64)
    field = ellipse((80, 80), 40, 40, 20, 20)
    placed, params = place_mask(mask, field, "identity", 0)
    assert 0.4 < params["size"] < 20 / 36
    assert not (placed[~field]).any()
    assert abs(placed.sum() / mask.sum() / params["size"] ** 2 - 1) < 0.1


class TestCut:
    """A half disc, straight where its own frame cut it."""

    def test_it_lies_along_the_same_kind_of_border(self) -> None:
        mask = ellipse((60, 80), 0, 30, 14, 14).astype(np.int64)
        field = np.zeros((60, 80), dtype=bool)
        field[6:-6, 8:-8] = True
        for seed in range(20):
            placed, params = place_mask(mask, field, "all", seed)
            assert (params["cut"], params["border"]) == (True, True)
            rows = np.flatnonzero(placed.any(axis=1))
            straight = placed[rows[0]].sum() > placed[rows[-1]].sum()
            assert straight == (not params["flip"][0])
            assert (rows[0] - 6 if straight else 53 - rows[-1]) <= 3

    def test_a_lesion_that_its_own_field_of_view_cut(self) -> None:
        own = np.zeros((60, 80), dtype=bool)
        own[:, 20:] = True
        mask = (ellipse((60, 80), 30, 20, 12, 12) & own).astype(np.int64)
        assert place_mask(mask, np.ones((60, 80), dtype=bool), "identity", 0)[1]["cut"] is False
        for seed in range(10):
            placed, params = place_mask(mask, np.ones((60, 80), dtype=bool), "identity", seed, own)
            assert (params["cut"], params["border"]) == (True, True)
            assert np.flatnonzero(placed.any(axis=0))[0] <= 3

    def test_text_in_its_own_image_cuts_nothing(self) -> None:
        own = np.ones((60, 80), dtype=bool)
        own[28:32, 20:40] = False
        mask = ellipse((60, 80), 30, 30, 10, 10).astype(np.int64)
        assert place_mask(mask, np.ones((60, 80), dtype=bool), "identity", 0, own)[1]["cut"] is False

    def test_a_touch_is_no_cut(self) -> None:
        mask = ellipse((60, 80), 12, 30, 12, 14).astype(np.int64)
        assert mask[0].any()
        assert place_mask(mask, np.ones((60, 80), dtype=bool), "identity", 0)[1]["cut"] is False

    def test_where_no_border_fits_it_is_laid_inside_and_said(self) -> None:
        mask = np.ones((60, 60), dtype=np.int64)  # cut on all sides
        placed, params = place_mask(mask, ellipse((60, 60), 30, 30, 25, 25), "identity", 0)
        assert (params["cut"], params["border"]) == (True, False)
        assert placed.any()


class TestAreas:
    @pytest.mark.parametrize("own", [0.008, 0.05, 0.15])
    @pytest.mark.parametrize("area", list(AREA_BINS))
    def test_they_fall_into_the_bin_or_as_near_as_the_limits_allow(self, own: float, area: str) -> None:
        radius = 120 * np.sqrt(own / np.pi)
        mask = ellipse((120, 120), 60, 60, radius, radius).astype(np.int64)
        bins = list(AREA_BINS)
        for seed in range(8):
            placed, params = place_mask(mask, np.ones((120, 120), dtype=bool), "identity", seed, area=area)
            assert LIMITS[0] - 0.01 < params["size"] < LIMITS[1] + 0.01
            assert abs(placed.sum() / mask.sum() / params["size"] ** 2 - 1) < 0.15
            low, high = AREA_BINS[area]
            if own * LIMITS[0] ** 2 < high and own * LIMITS[1] ** 2 > low:
                assert area_bin(placed) == area
            else:
                assert bins.index(area_bin(placed)) == bins.index(area) - (1 if own < low else -1)

    def test_they_fill_the_bin(self) -> None:
        mask = ellipse((160, 160), 80, 80, 22, 22).astype(np.int64)
        shares = [
            np.mean(place_mask(mask, np.ones((160, 160), bool), "identity", s, area="2-8%")[0]) for s in range(30)
        ]
        assert min(shares) < 0.03
        assert max(shares) > 0.06


def test_an_empty_mask_and_a_field_without_room() -> None:
    mask = np.zeros((20, 20), dtype=np.int64)
    with pytest.raises(InputError, match="holds no lesion"):
        place_mask(mask, np.ones((20, 20), dtype=bool), "identity", 0)
    mask[8:12, 8:12] = 1
    with pytest.raises(InputError, match="no room"):
        place_mask(mask, np.zeros((20, 20), dtype=bool), "identity", 0)


@settings(max_examples=60, deadline=None)
@given(mask=masks(), height=st.integers(1, 90), width=st.integers(1, 90))
def test_nearest_is_that_of_the_label_maps(mask: np.ndarray, height: int, width: int) -> None:
    np.testing.assert_array_equal(nearest(mask, (height, width)), resize_labels(mask, (height, width)))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), height=st.integers(3, 14), width=st.integers(3, 14), least=st.floats(0.1, 1))
def test_the_largest_region_by_trying_all(seed: int, height: int, width: int, least: float) -> None:
    rng = np.random.default_rng(seed)
    free = rng.uniform(size=(height, width)) > rng.choice([0.02, 0.1, 0.4])
    best = 0
    for h in range(1, height + 1):
        w = max(1, round(h * width / height))
        boxes = [free[r : r + h, c : c + w].all() for r in range(height - h + 1) for c in range(width - w + 1)]
        best = h if h >= least * height and any(boxes) else best
    found = largest_region(free, least)
    assert (found is not None) == (best > 0)
    if found is None:
        return
    rows, columns = found
    assert free[found].all()
    assert rows.stop - rows.start == best
    assert columns.stop - columns.start == max(1, round(best * width / height))
