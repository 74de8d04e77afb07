"""Diffusion over one-hot masks: the forward process, and DDIM for a network that foretells the mask itself.

x_0 = b (2 onehot(y) - 1) over all K classes, background included, with the scale b in (0, 1]; betas are linear from
1e-4 to 0.02 over T = 1000 steps (Ho et al. 2020, arXiv:2006.11239):

    x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps,  eps ~ N(0, 1)

Masks are smooth, so that at low t x_t gives the answer away and the image is ignored. A scale below 1 takes from the
signal what noise covers (Chen et al. 2023, arXiv:2301.10972), and t may be drawn from its noisy end more often.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from morphogen.training.rng import normal, uniform

T = 1000
_BETAS = (1e-4, 0.02)

Denoise = Callable[[Tensor, Tensor], Tensor]
"""x_t (B, K, *S) and t (B,) -> logits (B, K, *S) of the classes."""


def alphas_bar() -> Tensor:
    """(T,) float64: abar_t = prod_{s <= t} (1 - beta_s)."""
    return torch.cumprod(1 - torch.linspace(*_BETAS, T, dtype=torch.float64), dim=0)


def signal(labels: Tensor, n_classes: int, scale: float) -> Tensor:
    """(B, *S) int64 class ids -> x_0 (B, K, *S) float32, values -scale and scale."""
    return scale * (2 * F.one_hot(labels, n_classes).movedim(-1, 1).float() - 1)


def signal_of_logits(logits: Tensor, scale: float) -> Tensor:
    """(B, K, *S) logits -> scale (2 softmax - 1): in the range of the x_0 that the network was trained on."""
    return scale * (2 * logits.float().softmax(dim=1) - 1)


def draw_t(seeds: Tensor, late: float, stream: str) -> Tensor:
    """(B,) int64 time steps of the rows: t = floor(T u^(1 / (1 + late))), uniform where `late` is 0.

    Its density grows as (t / T)^late, so that ``late`` of 1 draws t > 500 three times in four.
    """
    return (T * uniform(seeds, f"t {stream}") ** (1 / (1 + late))).long().clamp(max=T - 1)


def noised(x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """x_t of (B, K, *S) x_0, (B,) t and noise like x_0."""
    abar = alphas_bar().to(x_0.device)[t].view(-1, *[1] * (x_0.ndim - 1))
    return (abar.sqrt() * x_0 + (1 - abar).sqrt() * eps).float()


def noise(seeds: Tensor, shape: Sequence[int], stream: str, device: torch.device) -> Tensor:
    """(B, *shape) standard normal noise of the rows' seeds."""
    return normal(seeds, shape, stream).to(device)


def timesteps(steps: int) -> list[int]:
    """`steps` time steps from T - 1 down to 0, evenly spaced and rounded: 999, 888, ..., 0 for ten; for one, 999."""
    if steps == 1:
        return [T - 1]
    return [round((T - 1) * i / (steps - 1)) for i in reversed(range(steps))]


@torch.no_grad()
def ddim(denoise: Denoise, x_T: Tensor, steps: int, scale: float) -> Tensor:
    """Class probabilities from noise, by DDIM with eta = 0 (Song et al. 2021, arXiv:2010.02502, eq. 12).

    At every step x_0 = scale (2 softmax(logits) - 1), which lies in the range of the training signal, so that nothing
    is clamped, and eps = (x_t - sqrt(abar_t) x_0) / sqrt(1 - abar_t) carries on to the next time step.

    Args:
        denoise: The network, the image in it.
        x_T: (B, K, *S) noise.
        steps: Calls of the network, 1 to T.
        scale: b of the signal.

    Returns:
        (B, K, *S) float32: softmax of the last logits.
    """
    abar, times = alphas_bar(), timesteps(steps)
    x_t, logits = x_T, x_T
    for t, following in zip(times, [*times[1:], None], strict=True):
        logits = denoise(x_t, torch.full((len(x_t),), t, device=x_t.device))
        if following is not None:
            x_0 = signal_of_logits(logits, scale)
            eps = (x_t - abar[t].sqrt() * x_0) / (1 - abar[t]).sqrt()
            x_t = (abar[following].sqrt() * x_0 + (1 - abar[following]).sqrt() * eps).float()
    return logits.float().softmax(dim=1)
