"""Sampling: image and mask out of one noise, in one run of the solver."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from morphogen.foundation.conditioning import Conditioning
from morphogen.foundation.halves import DecoderHalf, encode
from morphogen.foundation.images import to_bytes
from morphogen.foundation.model import Foundation
from morphogen.foundation.solvers import guided, solve
from morphogen.generators.dual.config import DualConfig
from morphogen.generators.dual.layout import join, split
from morphogen.segmenters.latent.mask_latents import MaskLatents
from morphogen.training.rng import normal

DECODED = 2**15
"""Most pixels that are decoded in one call (at least one image): the memory of it is bounded."""


@torch.no_grad()
def make_pairs(
    foundation: Foundation, masks: MaskLatents, prompts: Sequence[str], seeds: Sequence[int], config: DualConfig
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Images, and the probability of a lesion beside each: clip((mean_ch D(z_m / s) + 1) / 2, 0, 1).

    Args:
        foundation: With the trained U-Net.
        masks: Reads the mask half.
        prompts: B texts.
        seeds: B seeds; row i depends on the i-th prompt and seed alone.
        config: Layout, resolution, solver, steps and guidance.

    Returns:
        (B, R, R, 3) uint8 and (B, R, R) in [0, 1].
    """
    image, mask = split(latents(foundation, prompts, seeds, config), config.layout)
    rows = max(1, DECODED // (config.resolution or foundation.resolution) ** 2)
    pictures = torch.cat([foundation.decode(z) for z in image.split(rows)])
    painted = torch.cat([masks.decoded(z).float().mean(dim=1) for z in mask.split(rows)])
    probability = ((painted + 1) / 2).clamp(0, 1).cpu().double().numpy()
    return to_bytes(pictures).transpose(0, 2, 3, 1), probability


@torch.no_grad()
def latents(foundation: Foundation, prompts: Sequence[str], seeds: Sequence[int], config: DualConfig) -> Tensor:
    """As `make_pairs`, before decoding: both latents, joined as the layout says.

    o = o(z_t, t, "") + g (o(z_t, t, c) - o(z_t, t, "")), for both halves; the two are computed in one batch.
    """
    side = config.resolution or foundation.resolution
    cond = foundation.told(prompts, side)
    both = config.guidance != 1 and any(prompts)  # without any words the two predictions are one
    if both:
        cond = Conditioning.cat([cond, foundation.told([""] * len(prompts), side)])
    decoder = DecoderHalf(foundation.unet)

    def denoise(z: Tensor, t: Tensor) -> Tensor:
        output = decoder(encode(foundation.unet, z, t, cond), cond)
        if not both:
            return output
        conditional, empty = output.chunk(2)
        return guided(conditional, empty, config.guidance)

    shape = (foundation.latent_shape[0], side // foundation.factor, side // foundation.factor)
    z_T = join(normal(seeds, shape, "z_T"), normal(seeds, shape, "z_T_m"), config.layout).to(foundation.device)
    return solve(denoise, z_T, foundation.scheduler.config, config.sampling_steps, config.solver)
