"""Mask transforms: pure, lesions never leave the frame, labels and parts are kept, areas follow the scale."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from morphogen.data.mask_transforms import MASK_TRANSFORMS, transform_mask
from morphogen.data.phantoms import phantom
from morphogen.errors import InputError

NAMES = sorted(MASK_TRANSFORMS)
EIGHT = np.ones((3, 3))


@st.composite
def label_maps(draw: st.DrawFn) -> np.ndarray:
    """Up to four ellipses of up to three labels anywhere, cut by the frame or not, down to single pixels."""
    height, width = draw(st.integers(12, 48)), draw(st.integers(12, 48))
    rows, columns = np.indices((height, width))
    mask = np.zeros((height, width), dtype=np.int64)
    for _ in range(draw(st.integers(0, 4))):
        y, x = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        a, b = draw(st.floats(0.5, 14)), draw(st.floats(0.5, 14))
        mask[((rows - y) / a) ** 2 + ((columns - x) / b) ** 2 <= 1] = draw(st.integers(1, 3))
    return mask


def sides(mask: np.ndarray) -> list[bool]:
    lesion = mask > 0
    return [bool(edge.any()) for edge in (lesion[0], lesion[-1], lesion[:, 0], lesion[:, -1])]


@settings(max_examples=300, deadline=None)
@given(mask=label_maps(), name=st.sampled_from(NAMES), seed=st.integers(0, 2**63 - 1))
def test_no_lesion_is_lost_cut_or_relabelled(mask: np.ndarray, name: str, seed: int) -> None:
    before = mask.copy()
    moved, params = transform_mask(mask, name, seed)
    np.testing.assert_array_equal(mask, before)
    assert (moved.shape, moved.dtype) == (mask.shape, mask.dtype)
    assert set(np.unique(moved[moved > 0])) == set(np.unique(mask[mask > 0]))
    vertical, horizontal = params["flip"]
    top, bottom, left, right = sides(mask)
    flipped = [bottom, top] if vertical else [top, bottom]
    flipped += [right, left] if horizontal else [left, right]
    assert sides(moved) == flipped
    for label in np.unique(mask[mask > 0]):
        assert ndimage.label(moved == label, EIGHT)[1] == ndimage.label(mask == label, EIGHT)[1]
        expected = params.get("scale", 1.0) ** 2 * (mask == label).sum()
        share, outlines = {"elastic": (0.25, 1), "all": (0.32, 3)}.get(name, (0.05, 1))
        tolerance = share * expected + outlines * 2 * np.sqrt(expected)
        assert abs((moved == label).sum() - expected) <= tolerance


@pytest.mark.parametrize("name", NAMES)
def test_is_pure_and_its_parameters_are_json(name: str) -> None:
    mask = phantom("mucosa", 2, 48)[1]
    first, params = transform_mask(mask, name, 11)
    again, same = transform_mask(mask, name, 11)
    np.testing.assert_array_equal(first, again)
    assert params == same == json.loads(json.dumps(params))
    assert (params["name"], params["version"]) == (name, 1)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"identity"}))
def test_seeds_change_the_result(name: str) -> None:
    mask = phantom("skin", 1, 64)[1]
    results = {transform_mask(mask, name, seed)[0].tobytes() for seed in range(8)}
    assert len(results) >= (3 if name == "flip" else 6)
    assert name == "random" or mask.tobytes() not in results


def test_identity_and_flip_are_exact() -> None:
    mask = np.arange(20).reshape(4, 5)
    np.testing.assert_array_equal(transform_mask(mask, "identity", 3)[0], mask)
    seen = set()
    for seed in range(12):
        moved, params = transform_mask(mask, "flip", seed)
        axes = tuple(axis for axis, flag in enumerate(params["flip"]) if flag)
        seen.add(axes)
        np.testing.assert_array_equal(moved, np.flip(mask, axes))
    assert seen == {(0,), (1,), (0, 1)}


def test_shift_moves_the_centre_by_what_it_says() -> None:
    mask = np.zeros((40, 60), dtype=np.int64)
    mask[15:22, 20:30] = 1
    for seed in range(20):
        moved, params = transform_mask(mask, "shift", seed)
        step = np.subtract(ndimage.center_of_mass(moved), ndimage.center_of_mass(mask))
        assert np.abs(step - params["shift"]).max() <= 0.5 + 1e-9


def test_affine_agrees_with_the_forward_map_of_an_ellipse() -> None:
    """A disc's image under scale and shift is a disc: compare with one drawn directly from the recorded numbers."""
    rows, columns = np.indices((96, 96))
    disc = (np.hypot(rows - 40.5, columns - 52.5) < 12).astype(np.int64)
    for seed in range(20):
        moved, params = transform_mask(disc, "random", seed)
        row, column = (95 - c if f else c for c, f in zip((40.5, 52.5), params["flip"], strict=True))
        row, column = row + params["shift"][0], column + params["shift"][1]
        direct = np.hypot(rows - row, columns - column) < 12 * params["scale"]
        assert 2 * (direct & (moved > 0)).sum() / (direct.sum() + moved.sum()) > 0.97


def test_draws_reach_their_limits_where_there_is_room() -> None:
    """Otherwise a check that refuses too much would pass every other test."""
    rows, columns = np.indices((96, 96))
    disc = (np.hypot(rows - 47.5, columns - 47.5) < 9).astype(np.int64)
    params = [transform_mask(disc, "random", seed)[1] for seed in range(80)]
    scales = np.log([p["scale"] for p in params]) / np.log(1.4)
    turns, shifts = np.array([p["angle"] for p in params]) / 45, np.array([p["shift"] for p in params]).ravel() / 24
    for values in (scales, turns, shifts):
        assert 0.9 < values.max() <= 1 + 1e-9
        assert -1 - 1e-9 <= values.min() < -0.9
        assert abs(values.std() - 1 / np.sqrt(3)) < 0.12


def test_rotation_turns_the_long_axis() -> None:
    from skimage.measure import regionprops

    rows, columns = np.indices((96, 96))
    bar = ((np.abs(rows - 48) < 4) & (np.abs(columns - 48) < 25)).astype(np.int64)
    for seed in range(10):
        moved, params = transform_mask(bar, "rotate", seed)
        turned = np.degrees(regionprops(moved)[0].orientation - regionprops(bar)[0].orientation)
        away = (turned - params["angle"] + 90) % 180 - 90
        assert abs(away) < 2.0


def test_a_cut_lesion_stays_cut_and_an_image_full_of_labels_stays() -> None:
    mask = np.zeros((32, 32), dtype=np.int64)
    mask[10:20, :8] = 1
    for seed in range(20):
        moved, params = transform_mask(mask, "random", seed)
        assert moved[:, -1 if params["flip"][1] else 0].any()
    full = np.repeat(np.arange(1, 5), 8)[:, None] * np.ones((1, 32), dtype=np.int64)
    moved, params = transform_mask(full, "random", 5)
    axes = tuple(axis for axis, flag in enumerate(params["flip"]) if flag)
    np.testing.assert_array_equal(moved, np.flip(full, axes))


def test_empty_masks_pass_and_wrong_ones_do_not() -> None:
    for name in NAMES:
        assert not transform_mask(np.zeros((9, 9), dtype=np.int64), name, 0)[0].any()
    with pytest.raises(InputError, match="random"):
        transform_mask(np.zeros((9, 9), dtype=np.int64), "shear", 0)
    with pytest.raises(InputError, match="integer labels"):
        transform_mask(np.zeros((9, 9)), "flip", 0)
