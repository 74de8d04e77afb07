"""Denoising from noise to latent: any diffusers solver, classifier-free guidance in one batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

SOLVERS = ("ddim", "dpm")

Denoise = Callable[[Tensor, Tensor], Tensor]
"""``(z_t (B, C, h, w), t (B,) int64) -> (B, C, h, w)``, the model's output in the scheduler's parametrisation."""


def make_solver(name: str, config: Any) -> Any:
    """``ddim`` (eta 0, as published) or ``dpm`` (DPM-Solver++ 2M, Lu et al. 2022) on the model's own noise schedule.

    The steps of ``dpm`` end at the last timestep, where there is nothing but noise, as the sample begins (Lin et al.,
    WACV 2024, section 3.3); those of ``ddim`` lie as published.
    """
    if name == "ddim":
        return DDIMScheduler.from_config(config)
    return DPMSolverMultistepScheduler.from_config(
        config, algorithm_type="dpmsolver++", solver_order=2, use_karras_sigmas=False, timestep_spacing="trailing"
    )


@torch.no_grad()
def solve(denoise: Denoise, z_T: Tensor, config: Any, steps: int, solver: str = "dpm") -> Tensor:
    """Integrate from pure noise.

    Args:
        denoise: Guided model.
        z_T: (B, C, h, w) standard normal.
        config: Config of the model's scheduler.
        steps: Solver steps; each calls `denoise` once.
        solver: One of `SOLVERS`.

    Returns:
        (B, C, h, w) scaled latent z_0.
    """
    scheduler = make_solver(solver, config)
    scheduler.set_timesteps(steps, device=z_T.device)
    z = z_T * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        z = scheduler.step(denoise(z, t.expand(len(z)).long()), t, z).prev_sample
    return z


def guided(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance (Ho & Salimans 2022, Eq. 6 with w = scale - 1): scale 1 is the conditional model."""
    return unconditional + scale * (conditional - unconditional)
