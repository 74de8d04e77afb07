"""Sampling: a ControlNet with text-only guidance. Siamese-Diffusion's image branch is for training alone; a ControlNet
for mask and image reads the real image here as well."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from morphogen.foundation.halves import encode
from morphogen.generators.mask_sampling import guided_by_text, painted, told_twice
from morphogen.generators.siamese.config import SiameseConfig
from morphogen.generators.siamese.control import summed
from morphogen.generators.siamese.hint_images import hints_of
from morphogen.generators.siamese.step import Networks


@torch.no_grad()
def sample_images(
    nets: Networks,
    masks: NDArray[np.integer],
    classes: int,
    prompts: Sequence[str],
    seeds: Sequence[int],
    config: SiameseConfig,
    images: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Paint images for masks.

    Args:
        nets: Trained networks.
        masks: (B, H, W) label ids; H and W multiples of the foundation's factor times its U-Net's.
        classes: Number of classes, background included.
        prompts: B texts.
        seeds: B seeds; row i depends on masks[i], prompts[i], seeds[i] and images[i] alone.
        config: Solver, steps and guidance scale.
        images: (B, 3, H, W) real images of these masks, whose residuals are added to those of the masks, or None.

    Returns:
        (B, H, W, 3) uint8.
    """
    foundation, net = nets.foundation, nets.controlnet
    hints = hints_of(masks, classes, images)
    embedded = [net.embed(hint.to(foundation.device)) for hint in hints]  # once for all steps
    cond = told_twice(foundation, prompts, masks.shape[1], config.guidance)

    def predict(z: Tensor, t: Tensor) -> Tensor:
        c = summed([net.residuals(z, t, cond, one) for one in embedded])
        return nets.decoder(encode(foundation.unet, z, t, cond), cond, c)

    size = (masks.shape[1], masks.shape[2])
    denoise = guided_by_text(predict, config.guidance)
    return painted(foundation, denoise, size, seeds, config.sampling_steps, config.solver)
