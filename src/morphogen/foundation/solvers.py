"""Denoising from noise to latent: any diffusers solver, classifier-free guidance in one batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Start:
    """Where to begin instead of noise alone.

    Attributes:
        z0: (B, C, h, w) clean latents.
        strength: How much of the way they are noised, in (0, 1]; 1 begins at noise alone.
        keep: (B, 1, h, w) in {0, 1}, where the result shall be `z0`: there every step begins at the noised `z0` (as in
            RePaint, Lugmayr et al. 2022, Eq. 8, without its repetitions); None: nowhere.
    """

    z0: Tensor
    strength: float = 1.0
    keep: Tensor | None = None


@torch.no_grad()
def solve(
    denoise: Denoise, z_T: Tensor, config: Any, steps: int, solver: str = "dpm", start: Start | None = None
) -> Tensor:
    """Integrate from pure noise, or from a noised latent.

    Args:
        denoise: Guided model.
        z_T: (B, C, h, w) standard normal.
        config: Config of the model's scheduler.
        steps: Solver steps; each calls `denoise` once. Below strength 1 the first ones are left out (Meng et al. 2022,
            SDEdit; as many as diffusers' pipelines leave out, but at least one step is made).
        solver: One of `SOLVERS`.
        start: Where to begin, and what of it to keep; None: `z_T` alone.

    Returns:
        (B, C, h, w) scaled latent z_0.
    """
    scheduler = make_solver(solver, config)
    scheduler.set_timesteps(steps, device=z_T.device)
    timesteps, z = scheduler.timesteps, z_T * scheduler.init_noise_sigma
    if start is not None and start.strength < 1:
        first = (steps - max(1, int(steps * start.strength))) * scheduler.order
        timesteps = timesteps[first:]
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(first)
        z = scheduler.add_noise(start.z0, z_T, timesteps[:1].expand(len(z_T)))
    keep = None if start is None else start.keep
    for t in timesteps:
        if start is not None and keep is not None:
            z = torch.where(keep > 0, scheduler.add_noise(start.z0, z_T, t.expand(len(z))), z)
        z = scheduler.step(denoise(z, t.expand(len(z)).long()), t, z).prev_sample
    return z if start is None or keep is None else torch.where(keep > 0, start.z0, z)


def guided(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance (Ho & Salimans 2022, Eq. 6 with w = scale - 1): scale 1 is the conditional model."""
    return unconditional + scale * (conditional - unconditional)
