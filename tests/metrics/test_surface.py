"""Surface distances against a brute-force statement, MONAI, and closed forms."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.spatial.distance import cdist

from morphogen.metrics.surface import (
    SurfaceDistances,
    asd,
    assd,
    by_transform,
    by_tree,
    hd,
    hd95,
    hd95_pooled,
    surface_dice,
    surface_distances,
)

SPACINGS = [None, (0.5, 2.0), (1.0, 0.7, 3.0)]


def blobs(seed: int, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Two overlapping masks with ragged edges, non-empty, touching the border now and then."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1)
    masks = []
    for _ in range(2):
        centre, radius = rng.uniform(0, shape), rng.uniform(0.15, 0.5) * min(shape)
        mask = np.linalg.norm(grid - centre, axis=-1) + rng.normal(0, 0.5, shape) < radius
        mask[tuple(int(c) for c in centre)] = True
        masks.append(mask)
    return masks[0], masks[1]


def literal_surface(mask: np.ndarray) -> np.ndarray:
    """Coordinates of foreground pixels with a background neighbour along an axis, one pixel at a time."""
    found = []
    for index in np.argwhere(mask):
        for axis in range(mask.ndim):
            for step in (-1, 1):
                near = index.copy()
                near[axis] += step
                inside = 0 <= near[axis] < mask.shape[axis]
                if not inside or not mask[tuple(near)]:
                    found.append(tuple(index))
    return np.array(sorted(set(found)))


def literal_distances(pred: np.ndarray, ref: np.ndarray, spacing: tuple[float, ...] | None) -> list[np.ndarray]:
    step = np.ones(pred.ndim) if spacing is None else np.array(spacing)
    table = cdist(literal_surface(pred) * step, literal_surface(ref) * step)
    return [table.min(axis=1), table.min(axis=0)]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(13, 21), (6, 7, 9)]), st.booleans())
def test_matches_brute_force(seed: int, shape: tuple[int, ...], spaced: bool) -> None:
    pred, ref = blobs(seed, shape)
    spacing = next(s for s in SPACINGS if s and len(s) == len(shape)) if spaced else None
    to_ref, to_pred = literal_distances(pred, ref, spacing)
    ours = surface_distances(pred, ref, spacing)
    np.testing.assert_allclose(np.sort(ours.to_ref), np.sort(to_ref), rtol=1e-12)
    np.testing.assert_allclose(np.sort(ours.to_pred), np.sort(to_pred), rtol=1e-12)
    assert hd95(pred, ref, spacing) == pytest.approx(max(np.percentile(to_ref, 95), np.percentile(to_pred, 95)))
    assert asd(pred, ref, spacing) == pytest.approx(to_ref.mean())
    pooled = [*to_ref, *to_pred]
    assert assd(pred, ref, spacing) == pytest.approx(sum(pooled) / len(pooled))
    assert hd(pred, ref, spacing) == pytest.approx(max(pooled))
    assert hd95_pooled(pred, ref, spacing) == pytest.approx(np.percentile(pooled, 95))
    for tolerance in (0.0, 1.1, 2.6):
        near = sum(distance <= tolerance for distance in pooled)
        assert surface_dice(pred, ref, tolerance, spacing) == near / len(pooled)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_matches_brute_force_on_edge_cases(data: st.DataObject) -> None:
    """One pixel, one row, one column, full masks, dust."""
    shape = data.draw(st.sampled_from([(1, 1), (1, 9), (9, 1), (5, 6), (1, 4, 5), (3, 4, 5), (7,)]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    densities = st.sampled_from([0.02, 0.3, 0.8, 1.0])
    pred, ref = (rng.random(shape) < data.draw(densities) for _ in range(2))
    for mask in (pred, ref):
        mask[tuple(rng.integers(shape))] = True
    step = tuple(data.draw(st.sampled_from([1.0, 0.5, 3.0])) for _ in shape)
    to_ref, to_pred = literal_distances(pred, ref, step)
    ours = surface_distances(pred, ref, step)
    np.testing.assert_allclose(np.sort(ours.to_ref), np.sort(to_ref), rtol=1e-12)
    np.testing.assert_allclose(np.sort(ours.to_pred), np.sort(to_pred), rtol=1e-12)


@pytest.mark.parametrize("shape", [(40, 52), (12, 15, 17)])
def test_both_ways_to_take_distances_agree(shape: tuple[int, ...]) -> None:
    step = np.array([0.7, 2.0, 1.3][: len(shape)])
    for seed in range(6):
        edges = blobs(seed, shape)
        for one, other in zip(by_tree(*edges, step), by_transform(*edges, step), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-12)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_matches_monai(spacing: tuple[float, ...] | None) -> None:
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice

    shape = (40, 52) if spacing is None or len(spacing) == 2 else (12, 15, 17)
    for seed in range(4):
        pred, ref = blobs(seed, shape)
        one, two = (torch.from_numpy(mask[None, None].astype(np.float32)) for mask in (pred, ref))
        options = {"include_background": True, "spacing": spacing}
        expected = compute_hausdorff_distance(one, two, percentile=95, **options).item()
        assert hd95(pred, ref, spacing) == pytest.approx(expected, rel=1e-5)
        expected = compute_average_surface_distance(one, two, **options).item()
        assert asd(pred, ref, spacing) == pytest.approx(expected, rel=1e-5)
        expected = compute_average_surface_distance(one, two, symmetric=True, **options).item()
        assert assd(pred, ref, spacing) == pytest.approx(expected, rel=1e-5)
        expected = compute_hausdorff_distance(one, two, **options).item()
        assert hd(pred, ref, spacing) == pytest.approx(expected, rel=1e-5)
        for tolerance in (1.05, 2.55):
            expected = compute_surface_dice(one, two, [tolerance], **options).item()
            assert surface_dice(pred, ref, tolerance, spacing) == pytest.approx(expected, rel=1e-5)


def test_where_monai_differs_on_empty_masks() -> None:
    """It has no number for them: nan where both are empty, inf or nan (HD95) where one is; averages then drop them."""
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice

    empty, full = torch.zeros(1, 1, 30, 40), torch.ones(1, 1, 30, 40)
    for pred, ref, theirs, ours in ((empty, empty, math.nan, 0), (empty, full, math.inf, 50)):
        found = compute_hausdorff_distance(pred, ref, include_background=True).item()
        np.testing.assert_equal(found, theirs)
        found = compute_average_surface_distance(pred, ref, include_background=True).item()
        np.testing.assert_equal(found, theirs)
        assert math.isnan(compute_hausdorff_distance(pred, ref, include_background=True, percentile=95).item())
        assert [metric(pred[0, 0].numpy(), ref[0, 0].numpy()) for metric in (hd, hd95, asd)] == [ours] * 3
    assert math.isnan(compute_surface_dice(empty, empty, [2.0], include_background=True).item())
    assert compute_surface_dice(empty, full, [2.0], include_background=True).item() == 0


def test_hausdorff_matches_scikit_image() -> None:
    from skimage.metrics import hausdorff_distance

    for seed in range(4):
        pred, ref = blobs(seed, (30, 41))
        edges = [np.zeros_like(mask) for mask in (pred, ref)]
        for edge, mask in zip(edges, (pred, ref), strict=True):
            edge[tuple(literal_surface(mask).T)] = True
        assert hd(pred, ref) == pytest.approx(hausdorff_distance(*edges))


def test_closed_forms() -> None:
    pred, ref = np.zeros((30, 40), bool), np.zeros((30, 40), bool)
    pred[10, 5], ref[13, 9] = True, True
    assert hd95(pred, ref) == asd(pred, ref) == assd(pred, ref) == 5
    assert hd95(pred, ref, (2.0, 1.0)) == pytest.approx(np.hypot(6, 4))
    # a square within a square: from the inner side every distance is 2
    outer, inner = np.zeros((20, 20), bool), np.zeros((20, 20), bool)
    outer[3:17, 3:17], inner[5:15, 5:15] = True, True
    assert asd(inner, outer) == 2
    assert asd(outer, inner) > 2
    assert hd95(inner, outer) == hd95(outer, inner) > 2


def test_the_image_border_is_background() -> None:
    full = np.ones((9, 9), bool)
    centre = np.zeros((9, 9), bool)
    centre[4, 4] = True
    assert len(surface_distances(full, full).to_ref) == 32
    assert surface_distances(centre, full).to_ref == [4]


def test_pooled_and_directed_percentiles_are_not_the_same() -> None:
    """A stray pixel among 400: one of two directions sees it, and the pool of both does not."""
    found = SurfaceDistances(np.zeros(380), np.r_[np.zeros(15), np.full(5, 8.0)])
    assert (found.hd, found.hd95, found.hd95_pooled) == (8, 8, 0)


def test_a_tolerance_is_met_whatever_the_rounding() -> None:
    pred, ref = np.zeros((9, 9), bool), np.zeros((9, 9), bool)
    pred[3, 3], ref[3, 6] = True, True
    assert hd(pred, ref, (0.1, 0.1)) > 0.3  # 3 x 0.1 in binary
    assert surface_dice(pred, ref, 0.3, (0.1, 0.1)) == 1
    assert surface_dice(pred, ref, 0.299, (0.1, 0.1)) == 0


def test_surface_dice_of_empty_masks() -> None:
    empty, full = np.zeros((30, 40), int), np.ones((30, 40), int)
    assert surface_dice(empty, empty, 0) == surface_dice(full, full, 0) == 1
    assert surface_dice(empty, full, 1000) == surface_dice(full, empty, 1000) == 0


@pytest.mark.realdata
def test_real_polyps(real_data: Path) -> None:
    files = sorted((real_data / "polyps" / "kvasir_seg" / "masks").iterdir())[::180]
    for file in files:
        ref = np.array(Image.open(file).convert("L")) > 127
        check_all(np.roll(ref, (7, -4), (0, 1)), ref, (1.0, 1.0))


@pytest.mark.realdata
def test_real_volumes(real_data: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="the volumes are HDF5 files")
    file = sorted((real_data / "left_atrium").glob("*/mri_norm2.h5"))[0]
    with h5py.File(file) as held:
        ref = np.asarray(held["label"])[::3, ::3, ::3] > 0
    check_all(np.roll(ref, (2, -1, 1), (0, 1, 2)), ref, (1.875, 1.875, 3.75))


def check_all(pred: np.ndarray, ref: np.ndarray, spacing: tuple[float, ...]) -> None:
    """Every metric against all pairs of surface points."""
    to_ref, to_pred = literal_distances(pred, ref, spacing)
    pooled = np.concatenate([to_ref, to_pred])
    found = surface_distances(pred, ref, spacing)
    ours = [found.hd, found.hd95, found.hd95_pooled, found.asd, found.assd, found.surface_dice(2.0)]
    tail = max(np.percentile(to_ref, 95), np.percentile(to_pred, 95))
    theirs = [pooled.max(), tail, np.percentile(pooled, 95), to_ref.mean(), pooled.mean(), np.mean(pooled <= 2.0)]
    np.testing.assert_allclose(ours, theirs, atol=1e-9)


@pytest.mark.parametrize("metric", [hd, hd95, hd95_pooled, asd, assd])
def test_empty_masks(metric: Callable[..., float]) -> None:
    empty, full = np.zeros((30, 40), int), np.ones((30, 40), int)
    assert metric(empty, empty) == 0
    assert metric(empty, full) == metric(full, empty) == 50
    assert metric(full, empty, (2.0, 2.0)) == 100
    assert metric(full, full) == 0


def test_refuses() -> None:
    with pytest.raises(ValueError, match="prediction is"):
        hd95(np.zeros((2, 2)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="3 numbers"):
        hd95(np.zeros((2, 2)), np.zeros((2, 2)), (1, 1, 1))
