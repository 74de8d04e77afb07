"""Sampling: the adapter runs once an image, the U-Net at every step; guidance is of the text alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from morphogen.generators.mask_sampling import guided_by_text, painted, told_twice
from morphogen.generators.siamese.hint_images import mask_hint
from morphogen.generators.t2i_adapter.adapter import Networks, predict
from morphogen.generators.t2i_adapter.config import T2IAdapterConfig


@torch.no_grad()
def sample_images(
    nets: Networks,
    masks: NDArray[np.integer],
    classes: int,
    prompts: Sequence[str],
    seeds: Sequence[int],
    config: T2IAdapterConfig,
) -> NDArray[np.uint8]:
    """Paint images for masks.

    Args:
        nets: Foundation and trained adapter.
        masks: (B, H, W) label ids; H and W multiples of what adapter and U-Net halve.
        classes: Number of classes, background included.
        prompts: B texts.
        seeds: B seeds; row i depends on masks[i], prompts[i] and seeds[i] alone.
        config: Solver, steps and guidance scale.

    Returns:
        (B, H, W, 3) uint8.
    """
    foundation = nets.foundation
    features = nets.adapter(mask_hint(masks, classes).to(foundation.device))
    cond = told_twice(foundation, prompts, masks.shape[1], config.guidance)

    def adapted(z: Tensor, t: Tensor) -> Tensor:
        return predict(foundation, z, t, cond, features)

    size = (masks.shape[1], masks.shape[2])
    denoise = guided_by_text(adapted, config.guidance)
    return painted(foundation, denoise, size, seeds, config.sampling_steps, config.solver)
