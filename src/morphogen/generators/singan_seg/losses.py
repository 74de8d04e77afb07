"""What the two networks of a scale are trained by: WGAN-GP on patches, and the reconstruction of the one image.

Gulrajani et al., Improved Training of Wasserstein GANs, arXiv 1704.00028; in SinGAN's form, arXiv 1905.01164.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def gradient_penalty(critic: nn.Module, real: Tensor, fake: Tensor, epsilon: Tensor) -> Tensor:
    """mean over pixels of (||grad D(x)||_2 - 1)^2 at x = epsilon real + (1 - epsilon) fake.

    The norm is taken over the channels of every pixel, as in SinGAN's code, and not over the image: D is a sum over
    patches.

    Args:
        critic: D.
        real: (1, 4, H, W).
        fake: (B, 4, H, W), detached.
        epsilon: (B,) in [0, 1).

    Returns:
        Scalar.
    """
    mixed = torch.lerp(fake, real.expand_as(fake), epsilon.to(fake)[:, None, None, None]).requires_grad_()
    scores = critic(mixed)
    (gradient,) = torch.autograd.grad(scores.sum(), mixed, create_graph=True)
    return (gradient.norm(2, dim=1) - 1).square().mean()


def discriminator_losses(
    critic: nn.Module, real: Tensor, fake: Tensor, epsilon: Tensor, weight: float
) -> dict[str, Tensor]:
    """-mean D(real) + mean D(fake) + lambda gradient penalty.

    Args:
        critic: D.
        real: (1, 4, H, W).
        fake: (B, 4, H, W), detached.
        epsilon: (B,) in [0, 1).
        weight: lambda.
    """
    losses = {"real": -critic(real).mean(), "fake": critic(fake).mean()}
    if weight:
        losses["penalty"] = weight * gradient_penalty(critic, real, fake, epsilon)
    return losses


def generator_losses(
    critic: nn.Module, fake: Tensor, rebuilt: Tensor, real: Tensor, weight: float
) -> dict[str, Tensor]:
    """-mean D(fake) + alpha mean (rebuilt - real)^2.

    Args:
        critic: D.
        fake: (B, 4, H, W) of drawn noise.
        rebuilt: (1, 4, H, W) of the fixed noise.
        real: (1, 4, H, W).
        weight: alpha.
    """
    return {"adversarial": -critic(fake).mean(), "reconstruction": weight * F.mse_loss(rebuilt, real)}


def amplitude(weight: float, rebuilt: Tensor, real: Tensor) -> float:
    """sigma_n = weight sqrt(mean (up(x_rec_(n-1)) - x_n)^2): as much noise as there are details to add.

    Args:
        weight: `noise_weight`.
        rebuilt: (1, 4, H, W), what the coarser scales make of the fixed noise, at this size.
        real: (1, 4, H, W).
    """
    return weight * float(F.mse_loss(rebuilt, real).sqrt())
