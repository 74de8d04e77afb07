"""The adapter: a small network that adds its features to a frozen U-Net's encoder, level by level.

F_c = {F_c^1, ..., F_c^n} = F_AD(C) for a condition C, and F_enc^i <- F_enc^i + F_c^i at every level i of the encoder
(Mou et al., T2I-Adapter, section 3.3). F_AD sees neither z_t nor t, so that it runs once for an image, whatever the
number of steps. The network is diffusers' `T2IAdapter`; the U-Net adds its features where it adds any adapter's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import T2IAdapter, UNet2DConditionModel
from torch import Tensor

from morphogen.errors import InputError
from morphogen.foundation.conditioning import Conditioning
from morphogen.foundation.model import Foundation


@dataclass(frozen=True)
class Networks:
    """A frozen foundation, and the adapter of its U-Net."""

    foundation: Foundation
    adapter: T2IAdapter


def adapter_for(foundation: Foundation, blocks: int) -> T2IAdapter:
    """An untrained adapter whose features fit the levels of the foundation's U-Net.

    A level with cross-attention takes its feature before it halves the resolution, one without takes it after. So a
    U-Net that begins with attention (Stable Diffusion 1.x) has the adapter of the paper, and one that begins without
    (SDXL, `tiny`) the authors' later one for SDXL, which begins at half the resolution and may feed the middle block.

    Args:
        foundation: Frozen.
        blocks: Residual blocks in each level of the adapter (2 in the paper).

    Raises:
        InputError: No adapter has features of these shapes.
    """
    unet, factor = foundation.unet, foundation.factor
    channels = list(unet.config.block_out_channels)
    kinds = [
        ("full_adapter", factor, channels),
        ("full_adapter_xl", 2 * factor, [*channels, channels[-1]]),
        ("full_adapter_xl", 2 * factor, channels),
    ]
    for kind, downscale, widths in kinds:
        with torch.device("meta"):
            shell = T2IAdapter(3, widths, blocks, downscale, kind)
        if _fits(shell, unet, factor):
            return T2IAdapter(3, widths, blocks, downscale, kind).to(foundation.device)
    raise InputError(
        f"{foundation.source}: the levels of its U-Net take the features of no T2I-Adapter; give another foundation"
    )


def _fits(adapter: T2IAdapter, unet: UNet2DConditionModel, factor: int) -> bool:
    """Whether every feature, in order, has channels and resolution of the place where the U-Net adds it."""
    side = factor * 2 ** len(unet.config.block_out_channels)  # pixels; divisible by every scale
    with torch.device("meta"):
        features = adapter(torch.empty(1, 3, side, side))
    found = [(feature.shape[1], side // feature.shape[2]) for feature in features]
    places = [(channels, factor * scale) for channels, scale in _places(unet)]
    return found in (places[:-1], places)


def _places(unet: UNet2DConditionModel) -> list[tuple[int, int]]:
    """(channels, latent cells per feature cell) of each level and, last, of the middle block."""
    places, scale = [], 1
    for block, channels in zip(unet.down_blocks, unet.config.block_out_channels, strict=True):
        halves = block.downsamplers is not None
        attends = getattr(block, "has_cross_attention", False)
        places.append((channels, scale if attends or not halves else 2 * scale))
        scale *= 2 if halves else 1
    return [*places, (unet.config.block_out_channels[-1], scale)]


def predict(foundation: Foundation, z_t: Tensor, t: Tensor, cond: Conditioning, features: Sequence[Tensor]) -> Tensor:
    """The adapted U-Net: (n B, C, h, w), in the scheduler's parametrisation.

    Args:
        foundation: Whose U-Net.
        z_t: (B, C, h, w) noisy latents.
        t: (B,) int64 timesteps.
        cond: Conditioning of n B rows; row i speaks of latent i mod B.
        features: The adapter's, each (B, C_l, h_l, w_l).
    """
    n = len(cond) // len(z_t)
    # The U-Net empties the list that it is given, and adds in place.
    added = [feature.repeat(n, 1, 1, 1) for feature in features]
    sample: Tensor = foundation.unet(
        z_t.repeat(n, 1, 1, 1), t.repeat(n), encoder_hidden_states=cond.states, added_cond_kwargs=cond.added,
        down_intrablock_additional_residuals=added,
    ).sample  # fmt: skip
    return sample


def cubic_timesteps(u: Tensor, steps: int) -> Tensor:
    """t = (1 - u^3) T for uniform u: (B,) int64 in [0, T), more of them large (T2I-Adapter, section 3.4).

    The layout of an image is settled early in sampling, at large t, so that guidance matters most there; the density of
    t / T = s is (1 - s)^(-2/3) / 3, and half of all timesteps lie above 7 T / 8.

    Args:
        u: (B,) in [0, 1).
        steps: T.
    """
    return ((1 - u.double() ** 3) * steps).long().clamp(max=steps - 1)
