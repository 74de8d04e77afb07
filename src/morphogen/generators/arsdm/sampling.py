"""Sampling: from noise to an image for a mask, guided by mask and text against neither."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from morphogen.foundation.conditioning import Conditioning
from morphogen.foundation.images import to_bytes
from morphogen.foundation.solvers import guided, solve
from morphogen.generators.arsdm.config import ArSDMConfig
from morphogen.generators.arsdm.spade import class_maps
from morphogen.generators.arsdm.step import Networks
from morphogen.training.rng import normal

DECODED = 2**15
"""Most pixels that are decoded in one call (at least one image), so that the memory of decoding is bounded."""


@torch.no_grad()
def sample_images(
    nets: Networks, masks: NDArray[np.integer], prompts: Sequence[str], seeds: Sequence[int], config: ArSDMConfig
) -> NDArray[np.uint8]:
    """Paint images for masks.

    Args:
        nets: Trained networks.
        masks: (B, H, W) label ids; H and W multiples of the foundation's factor.
        prompts: B texts.
        seeds: B seeds; row i depends on masks[i], prompts[i] and seeds[i] alone.
        config: Solver, steps and guidance scale.

    Returns:
        (B, H, W, 3) uint8.
    """
    foundation, device = nets.foundation, nets.foundation.device
    n, shape = len(masks), (foundation.latent_shape[0], *(side // foundation.factor for side in masks.shape[1:]))
    maps = class_maps(torch.from_numpy(masks.astype(np.int64)).to(device), nets.classes)
    cond = foundation.told(prompts, masks.shape[1])
    both = config.guidance != 1
    if both:  # SDM, Eq. 10: the condition against none
        cond = Conditioning.cat([cond, foundation.told([""] * n, masks.shape[1])])
        maps = torch.cat([maps, torch.zeros_like(maps)])

    def denoise(z: Tensor, t: Tensor) -> Tensor:
        output = nets.predict(z, t, cond, maps)
        if not both:
            return output
        conditional, empty = output.chunk(2)
        return guided(conditional, empty, config.guidance)

    z_T = normal(seeds, shape, "z_T").to(device)
    z0 = solve(denoise, z_T, foundation.scheduler.config, config.sampling_steps, config.solver)
    parts = z0.split(max(1, DECODED // masks[0].size))
    return to_bytes(torch.cat([foundation.decode(part) for part in parts])).transpose(0, 2, 3, 1)
