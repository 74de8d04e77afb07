"""Geometric augmentation, the same for an image and its mask; colours are never touched.

Every sample is resampled once, through one affine map that composes a flip, a quarter turn and, half of the time, a
rotation, a change of scale and a shift. What comes into the frame from outside is the mirror image of what is inside,
for the mask too, so that the pair stays exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from morphogen.training.rng import torch_rng


@dataclass(frozen=True)
class Geometry:
    """How far the affine part goes.

    Attributes:
        probability: Chance of rotation, scale and shift; flip and quarter turn are always drawn.
        degrees: Largest rotation, either way.
        scale: Largest change of size: the factor lies in [1 / scale, scale], uniform in its logarithm.
        shift: Largest shift along each axis, as a part of the side.
    """

    probability: float = 0.5
    degrees: float = 45.0
    scale: float = 1.25
    shift: float = 0.1


def affine_maps(seeds: Sequence[int] | Tensor, geometry: Geometry | None = None) -> Tensor:
    """One affine map per sample, a function of its seed alone.

    Args:
        seeds: B sample seeds.
        geometry: Limits of the maps.

    Returns:
        (B, 2, 3) float32: output coordinates (x, y, 1) in [-1, 1] -> input coordinates, as `F.affine_grid` takes them.
    """
    return torch.stack([_affine_map(int(seed), geometry or Geometry()) for seed in seeds])


def _affine_map(seed: int, geometry: Geometry) -> Tensor:
    flip, turn, chance, angle, size, right, down = torch.rand(7, generator=torch_rng(seed, "geometry")).tolist()
    quarter = round(math.cos(int(4 * turn) * math.pi / 2)), round(math.sin(int(4 * turn) * math.pi / 2))
    cos, sin = quarter
    linear = torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float32)
    if flip < 0.5:
        linear = linear @ torch.diag(torch.tensor([-1.0, 1.0]))
    offset = torch.zeros(2)
    if chance < geometry.probability:
        radians = math.radians(geometry.degrees) * (2 * angle - 1)
        factor = geometry.scale ** (2 * size - 1)
        cos, sin = math.cos(radians) / factor, math.sin(radians) / factor
        linear = torch.tensor([[cos, -sin], [sin, cos]]) @ linear
        offset = 2 * geometry.shift * torch.tensor([2 * right - 1, 2 * down - 1])
    return torch.cat([linear, offset[:, None]], dim=1)


def warp_pairs(images: Tensor, masks: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
    """Resample images (bilinear) and masks (nearest neighbour) through the same maps, mirrored at the frame.

    Args:
        images: (B, C, R, R) float; square, because a quarter turn swaps the axes.
        masks: (B, R, R) integer label ids.
        maps: (B, 2, 3) from `affine_maps`.

    Returns:
        Images and masks of the same shapes and types.

    Raises:
        ValueError: The images are not square, or the masks have another size.
    """
    if images.shape[-1] != images.shape[-2] or masks.shape[-2:] != images.shape[-2:]:
        raise ValueError(f"expected square images and masks of one size, got {images.shape} and {masks.shape}")
    grid = F.affine_grid(maps.to(images), list(images.shape), align_corners=False)
    # float32 carries label ids up to 2^24 exactly, and nearest neighbour copies them
    labels = masks[:, None].to(images.dtype)
    warped = F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    moved = F.grid_sample(labels, grid, mode="nearest", padding_mode="reflection", align_corners=False)
    return warped, moved[:, 0].to(masks.dtype)
