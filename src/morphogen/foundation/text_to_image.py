"""Images from words alone, by the foundation itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from morphogen.foundation.conditioning import Conditioning
from morphogen.foundation.halves import predict
from morphogen.foundation.model import Foundation
from morphogen.foundation.solvers import guided, solve
from morphogen.training.rng import normal


@torch.no_grad()
def text_to_image(
    foundation: Foundation, prompts: Sequence[str], seeds: Sequence[int], steps: int = 20, guidance: float = 2.0
) -> Tensor:
    """Sample (B, 3, R, R) images in [-1, 1] on the CPU, one per prompt and seed.

    Args:
        foundation: The model.
        prompts: B texts.
        seeds: B seeds; row i depends on prompts[i] and seeds[i] alone.
        steps: DPM-Solver++ steps.
        guidance: Classifier-free guidance scale.
    """
    cond = Conditioning.cat([foundation.conditioning(prompts), foundation.conditioning([""] * len(prompts))])
    z_T = normal(seeds, foundation.latent_shape, "z_T").to(foundation.device)

    def denoise(z: Tensor, t: Tensor) -> Tensor:
        conditional, empty = predict(foundation.unet, torch.cat([z, z]), torch.cat([t, t]), cond).chunk(2)
        return guided(conditional, empty, guidance)

    z0 = solve(denoise, z_T, foundation.scheduler.config, steps)
    return torch.cat([foundation.decode(z) for z in z0.split(16)]).cpu()
