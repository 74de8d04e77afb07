"""Weights of a row's diffusion loss by how noisy its latent is."""

from __future__ import annotations

import torch
from torch import Tensor

from morphogen.foundation.model import Foundation


def noise_weights(foundation: Foundation, t: Tensor, most: float) -> Tensor:
    """(B, 1, 1, 1): w_t = sqrt((1 - abar) / abar), cut to lie between 1 and `most`; 1 for v-models.

    An error in eps is one of w_t times that in the clean latent: at the noisy end, where layout, sizes and colours of
    the picture are settled, the plain loss hardly sees it. (Ours: no paper states it.)

    Args:
        foundation: Whose schedule, and what its U-Net foretells.
        t: (B,) timesteps.
        most: Largest weight, 1 or more.
    """
    abar = foundation.alphas_cumprod(t)
    if foundation.v_prediction:
        return torch.ones_like(abar)
    return ((1 - abar) / abar).sqrt().clamp(1.0, most)
