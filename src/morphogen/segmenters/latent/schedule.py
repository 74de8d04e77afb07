"""The noise schedule of the latent segmenter (SDSeg's), and the timesteps that are visited."""

from __future__ import annotations

import torch
from torch import Tensor

from morphogen.segmenters.latent.config import T

BETA_START, BETA_END = 0.0015, 0.0155


def alphas_cumprod() -> Tensor:
    """abar_t = prod(1 - beta_i), beta_i the squares of T numbers evenly spaced from sqrt(.0015) to sqrt(.0155).

    Returns:
        (T,) float64.
    """
    roots = torch.linspace(BETA_START**0.5, BETA_END**0.5, T, dtype=torch.float64)
    return (1 - roots.square()).cumprod(dim=0)


def visited(steps: int) -> list[int]:
    """The timesteps of a prediction in `steps` steps, from T - 1 down, evenly spaced; none of them repeats."""
    return [T * (steps - i) // steps - 1 for i in range(steps)]
