"""Geometric augmentation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from morphogen.data.augment import Geometry, affine_maps, warp_pairs

RIGID = Geometry(probability=0.0)


def _pair(size: int = 16, batch: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.normal(size=(batch, 3, size, size)).astype(np.float32))
    return images, torch.from_numpy(rng.integers(0, 4, size=(batch, size, size)))


def test_flips_and_quarter_turns_are_exact_and_all_eight_occur() -> None:
    images, masks = _pair()
    expected = {}
    for turns in range(4):
        for flip in (False, True):
            image, mask = torch.rot90(images, turns, (2, 3)), torch.rot90(masks, turns, (1, 2))
            expected[turns, flip] = (image.flip(3), mask.flip(2)) if flip else (image, mask)
    seen = set()
    for seed in range(60):
        image, mask = warp_pairs(images, masks, affine_maps([seed], RIGID))
        matching = [key for key, (_, m) in expected.items() if torch.equal(m, mask)]
        assert len(matching) == 1
        torch.testing.assert_close(image, expected[matching[0]][0], rtol=1e-4, atol=1e-4)
        seen.add(matching[0])
    assert len(seen) == 8


def test_agrees_with_scipy_under_a_general_map() -> None:
    size = 24
    images, masks = _pair(size)
    maps = affine_maps([5], Geometry(probability=1.0))
    warped, moved = warp_pairs(images, masks, maps)
    # output pixel (row, column) -> normalised (x, y) -> input pixel, by hand
    rows, columns = np.mgrid[:size, :size]
    x, y = (2 * columns + 1) / size - 1, (2 * rows + 1) / size - 1
    a = maps[0].double().numpy()
    source_x, source_y = a[0, 0] * x + a[0, 1] * y + a[0, 2], a[1, 0] * x + a[1, 1] * y + a[1, 2]
    at = np.stack([((source_y + 1) * size - 1) / 2, ((source_x + 1) * size - 1) / 2])
    inside = ((at > 0) & (at < size - 1)).all(axis=0)
    reference = ndimage.map_coordinates(images[0, 1].double().numpy(), at, order=1, mode="reflect")
    np.testing.assert_allclose(warped[0, 1].numpy()[inside], reference[inside], atol=1e-4)
    nearest = ndimage.map_coordinates(masks[0].numpy(), at, order=0, mode="reflect")
    assert (moved[0].numpy() == nearest)[inside].mean() > 0.99  # a tie may fall either way
    assert inside.mean() > 0.5


def test_each_row_depends_on_its_own_seed_alone() -> None:
    images, masks = _pair(batch=4)
    together = warp_pairs(images, masks, affine_maps([1, 2, 3, 4]))
    alone = warp_pairs(images[2:3], masks[2:3], affine_maps(torch.tensor([3])))
    assert torch.equal(together[0][2:3], alone[0])
    assert torch.equal(together[1][2:3], alone[1])
    assert len({tuple(m.flatten().tolist()) for m in affine_maps(range(20))}) > 8


def test_masks_keep_their_labels_and_types_and_images_their_colours() -> None:
    images, masks = _pair(batch=8)
    warped, moved = warp_pairs(images, masks, affine_maps(range(8)))
    assert moved.dtype == masks.dtype
    assert set(moved.unique().tolist()) <= {0, 1, 2, 3}
    flat = torch.full((8, 3, 16, 16), 0.25)
    torch.testing.assert_close(warp_pairs(flat, masks, affine_maps(range(8)))[0], flat)
    assert warped.min() >= images.min()
    assert warped.max() <= images.max()


def test_image_and_mask_move_together() -> None:
    grid = torch.zeros(1, 3, 64, 64)
    grid[..., 20:40, 10:30] = 1
    for seed in range(20):
        image, mask = warp_pairs(grid, grid[:, 0].long(), affine_maps([seed], Geometry(probability=1.0)))
        disagree = ((image[:, 0] > 0.5).long() != mask).float().mean()
        assert disagree < 0.02


def test_limits_are_kept() -> None:
    geometry = Geometry(probability=1.0, degrees=30, scale=1.5, shift=0.2)
    maps = affine_maps(range(300), geometry)
    scale = maps[:, :, :2].det().abs().sqrt()
    assert 1 / 1.5 <= scale.min() < 0.75
    assert 1.4 < scale.max() <= 1.5 + 1e-5
    assert 0.35 < maps[:, :, 2].abs().max() <= 0.4
    angle = torch.rad2deg(torch.atan2(maps[:, 1, 0], maps[:, 1, 1])) % 90
    assert torch.minimum(angle, 90 - angle).max() <= 30 + 1e-3


def test_needs_squares() -> None:
    with pytest.raises(ValueError, match="square"):
        warp_pairs(torch.zeros(1, 3, 8, 16), torch.zeros(1, 8, 16), affine_maps([0]))
