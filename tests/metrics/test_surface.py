"""Surface distances against a brute-force statement, MONAI, and closed forms."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from morphogen.metrics.surface import asd, assd, hd95, surface_distances

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
    assert assd(pred, ref, spacing) == pytest.approx((to_ref.sum() + to_pred.sum()) / (len(to_ref) + len(to_pred)))


@pytest.mark.parametrize("spacing", SPACINGS)
def test_matches_monai(spacing: tuple[float, ...] | None) -> None:
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance

    shape = (40, 52) if spacing is None or len(spacing) == 2 else (12, 15, 17)
    for seed in range(4):
        pred, ref = blobs(seed, shape)
        one, two = pred[None, None].astype(np.float32), ref[None, None].astype(np.float32)
        options = {"include_background": True, "spacing": spacing}
        expected = compute_hausdorff_distance(one, two, percentile=95, **options).item()
        assert hd95(pred, ref, spacing) == pytest.approx(expected, rel=1e-5)
        expected = compute_average_surface_distance(one, two, **options).item()
        assert asd(pred, ref, spacing) == pytest.approx(expected, rel=1e-5)
        expected = compute_average_surface_distance(one, two, symmetric=True, **options).item()
        assert assd(pred, ref, spacing) == pytest.approx(expected, rel=1e-5)


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


@pytest.mark.parametrize("metric", [hd95, asd, assd])
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
