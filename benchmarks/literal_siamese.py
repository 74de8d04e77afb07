"""Siamese-Diffusion's training step as published, written out with stock diffusers classes and nothing saved.

From pixels and texts: both encoders in every step, the whole U-Net for each of three predictions, the ControlNet four
times, deep copies of U-Net and ControlNet for the image branch, and the Online-Augmentation on all rows, weighted by
zero where it does not apply. Tests and benchmarks measure the package against it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from morphogen.foundation.model import Foundation
from morphogen.training.rng import normal


@dataclass(frozen=True)
class Step:
    """One global batch: pixels (B, 3, H, W) in [-1, 1], mask hints (B, 3, H, W) in [0, 1], texts, noise, timesteps."""

    pixels: Tensor
    mask_hint: Tensor
    prompts: list[str]
    seeds: list[int]
    eps: Tensor
    t: Tensor


def _control(net: Any, z: Tensor, t: Tensor, text: Tensor, hint: Tensor) -> tuple[list[Tensor], Tensor]:
    down, mid = net(z, t, encoder_hidden_states=text, controlnet_cond=hint, return_dict=False)
    return list(down), mid


def _unet(net: Any, z: Tensor, t: Tensor, text: Tensor, down: list[Tensor], mid: Tensor) -> Tensor:
    return net(
        z, t, encoder_hidden_states=text, down_block_additional_residuals=down, mid_block_additional_residual=mid
    ).sample


def literal_losses(
    foundation: Foundation,
    controlnet: Any,
    step: Step,
    w_i: float,
    w_c: float = 1.0,
    late: bool = True,
    T_tau: int = 200,
) -> dict[str, Tensor]:
    """L_m, L_i, L_c and L_m' of one step (Eq. 5 to 13), in the order in which the published code computes them."""
    unet, scheduler = foundation.unet, foundation.scheduler
    with torch.no_grad():
        posterior = foundation.vae.encode(step.pixels).latent_dist
        noise = normal(step.seeds, posterior.mean.shape[1:], "posterior").to(posterior.mean)
        z0 = (posterior.mean + posterior.std * noise) * foundation.vae.config.scaling_factor
        text = foundation.text_encoders[0](foundation.tokens(step.prompts)[0])[0]
    abar = scheduler.alphas_cumprod.to(z0)[step.t].view(-1, 1, 1, 1)
    z_t = abar.sqrt() * z0 + (1 - abar).sqrt() * step.eps

    eps_m = _unet(unet, z_t, step.t, text, *_control(controlnet, z_t, step.t, text, step.mask_hint))
    losses = {"L_m": F.mse_loss(eps_m, step.eps)}

    frozen_net, frozen_unet = copy.deepcopy(controlnet), copy.deepcopy(unet)
    down_i, mid_i = _control(controlnet, z_t, step.t, text, (step.pixels + 1) / 2)
    down_m, mid_m = _control(frozen_net, z_t, step.t, text, step.mask_hint)
    down = [w_i * i + m.detach() for i, m in zip(down_i, down_m, strict=True)]
    eps_mix = _unet(frozen_unet, z_t, step.t, text, down, w_i * mid_i + mid_m.detach())
    losses["L_i"] = F.mse_loss(eps_mix, step.eps)
    losses["L_c"] = w_c * F.mse_loss(eps_m, eps_mix.detach())

    if late:
        z0_new = (z_t - (1 - abar).sqrt() * eps_mix) / abar.sqrt()
        z_new = (abar.sqrt() * z0_new + (1 - abar).sqrt() * step.eps).detach()
        losses["L_m'"] = torch.zeros(())
        if (step.t < T_tau).any():
            eps_new = _unet(unet, z_new, step.t, text, *_control(controlnet, z_new, step.t, text, step.mask_hint))
            w_a = (step.t < T_tau).to(z0)
            losses["L_m'"] = (w_a * (eps_new - step.eps).square().mean(dim=(1, 2, 3))).mean()
    return losses
