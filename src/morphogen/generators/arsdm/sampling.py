"""Sampling: from noise to an image for a mask, guided by mask and text against neither."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from morphogen.generators.arsdm.config import ArSDMConfig
from morphogen.generators.arsdm.spade import class_maps
from morphogen.generators.arsdm.step import Networks
from morphogen.generators.mask_sampling import guided_by_text, painted, told_twice


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
    foundation = nets.foundation
    maps = class_maps(torch.from_numpy(masks.astype(np.int64)).to(foundation.device), nets.classes)
    cond = told_twice(foundation, prompts, masks.shape[1], config.guidance)
    if config.guidance != 1:  # SDM's guidance: the condition against none
        maps = torch.cat([maps, torch.zeros_like(maps)])

    def predict(z: Tensor, t: Tensor) -> Tensor:
        return nets.predict(z, t, cond, maps)

    denoise = guided_by_text(predict, config.guidance)
    return painted(foundation, denoise, (masks.shape[1], masks.shape[2]), seeds, config.sampling_steps, config.solver)
