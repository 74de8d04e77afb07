"""The scales of one pair: their sides and widths, what is real at each, and how noise climbs through them.

Shaham et al., SinGAN, ICCV 2019, arXiv 1905.01164; scale 0 is the coarsest here, as in the authors' code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from morphogen.generators.singan_seg.networks import CHANNELS, RECEPTIVE_FIELD, Generator
from morphogen.training.rng import normal

LEAST_SIDE = RECEPTIVE_FIELD
"""The discriminator judges patches of this side: a smaller picture holds none."""
WIDTH, MOST_WIDTH, DOUBLED_EVERY = 32, 128, 4


def sides(resolution: int, factor: float, least: int) -> tuple[int, ...]:
    """Side of every scale in pixels, the coarsest first: ceil(R r^(N - n)) for n = 0 to N.

    N = ceil(log_factor(least / R)) + 1, and r = (least / R)^(1 / N), so that the coarsest side is `least`.

    Args:
        resolution: R, at least `least`.
        factor: Ratio of two scales that is aimed at, in (0, 1).
        least: Side of the coarsest scale.
    """
    last = math.ceil(math.log(least / resolution) / math.log(factor)) + 1
    ratio = (least / resolution) ** (1 / last)
    inner = (math.ceil(round(resolution * ratio ** (last - n), 6)) for n in range(1, last))  # 25.000000000000004 is 25
    return (least, *inner, resolution)


def width(scale: int) -> int:
    """Channels of both networks of a scale: 32, twice as many every four scales, at most 128."""
    return min(WIDTH * 2 ** (scale // DOUBLED_EVERY), MOST_WIDTH)


def resized(x: Tensor, side: int) -> Tensor:
    """(B, C, H, W) to (B, C, side, side), bicubic, antialiased where it gets smaller."""
    return F.interpolate(x, (side, side), mode="bicubic", antialias=True, align_corners=False)


@dataclass(frozen=True)
class Scale:
    """A trained scale: its generator in evaluation mode, and sigma, the amplitude of its noise."""

    generator: Generator
    amplitude: float


def climb(scales: Sequence[Scale], noise: Sequence[Tensor]) -> Tensor:
    """x_n = G_n(sigma_n z_n, up(x_(n-1))) from x_(-1) = 0, through all of `scales`.

    Args:
        scales: The coarsest first.
        noise: z_n of each, (B, 4, side, side).

    Returns:
        (B, 4, side, side) about [-1, 1], of the last scale.
    """
    x = torch.zeros_like(noise[0])
    for scale, z in zip(scales, noise, strict=True):
        x = scale.generator(scale.amplitude * z, resized(x, z.shape[-1]))
    return x


def drawn_noise(seeds: Sequence[int] | Tensor, sides_: Sequence[int]) -> list[Tensor]:
    """z_n for every scale, (B, 4, side, side): standard normal, at the coarsest scale the same map in all channels."""
    return [
        normal(seeds, (1 if n == 0 else CHANNELS, side, side), f"z_{n}").expand(-1, CHANNELS, -1, -1)
        for n, side in enumerate(sides_)
    ]


def fixed_noise(z_star: Tensor, sides_: Sequence[int]) -> list[Tensor]:
    """z_rec = {z*, 0, ..., 0}, which must give the training pair back.

    Args:
        z_star: (1, 1, side, side) of the coarsest scale.
        sides_: Of the scales.
    """
    coarsest = z_star.expand(-1, CHANNELS, -1, -1)
    return [coarsest, *(torch.zeros(1, CHANNELS, side, side, device=z_star.device) for side in sides_[1:])]
