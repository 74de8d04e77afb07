"""Sampling: a hole is painted from noise, or from the noised image, with guidance by the text alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from morphogen.foundation.conditioning import Conditioning
from morphogen.foundation.halves import DecoderHalf, encode
from morphogen.foundation.images import to_bytes, to_signed
from morphogen.foundation.inpainting import around
from morphogen.foundation.model import Foundation
from morphogen.foundation.solvers import Start, guided, solve
from morphogen.generators.inpaint.config import InpaintConfig
from morphogen.training.rng import normal

DECODED = 2**15
"""Most pixels that are encoded or decoded in one call (at least one image): the memory of it is bounded."""


@dataclass(frozen=True)
class Scene:
    """Where to paint: `images` (B, R, R, 3) uint8 and `holes` (B, R, R) bool, R a multiple of the latents' factor."""

    images: NDArray[np.uint8]
    holes: NDArray[np.bool_]

    @property
    def at_once(self) -> int:
        """Images that the autoencoder takes in one call."""
        return max(1, DECODED // self.holes[0].size)


@torch.no_grad()
def paint(
    foundation: Foundation, scene: Scene, prompts: Sequence[str], seeds: Sequence[int], config: InpaintConfig
) -> NDArray[np.uint8]:
    """Paint every hole, and with it the whole image anew as the autoencoder sees it.

    eps = eps(z_t, t, "", m, z_m) + g (eps(z_t, t, c, m, z_m) - eps(z_t, t, "", m, z_m)); hole and blanked image are
    given to both.

    Args:
        foundation: One that inpaints.
        scene: Images and holes.
        prompts: B texts.
        seeds: B seeds; row i depends on the i-th image, hole, prompt and seed alone.
        config: Solver, steps, guidance scale, strength and, on a GPU, precision.

    Returns:
        (B, R, R, 3) uint8.
    """
    z0 = latents(foundation, scene, prompts, seeds, config)
    return to_bytes(torch.cat([foundation.decode(z) for z in z0.split(scene.at_once)])).transpose(0, 2, 3, 1)


@torch.no_grad()
def latents(
    foundation: Foundation, scene: Scene, prompts: Sequence[str], seeds: Sequence[int], config: InpaintConfig
) -> Tensor:
    """As `paint`, before decoding: (B, C, R / factor, R / factor)."""
    device, side = foundation.device, scene.holes.shape[1]
    x = to_signed(scene.images.transpose(0, 3, 1, 2)).to(device)
    hole = torch.from_numpy(scene.holes)[:, None].float().to(device)
    parts = range(0, len(x), scene.at_once)
    rows = [slice(k, k + scene.at_once) for k in parts]
    given = torch.cat([around(foundation, x[k], hole[k]) for k in rows])
    start = None
    if config.strength < 1 or config.keep_known:
        z_I = torch.cat([foundation.encode(x[k]) for k in rows])
        start = Start(z_I, config.strength, 1 - given[:, :1] if config.keep_known else None)
    cond = foundation.told(prompts, side)
    both = config.guidance != 1 and any(prompts)  # without any words the two predictions are one
    if both:
        cond = Conditioning.cat([cond, foundation.told([""] * len(prompts), side)])
    decoder = DecoderHalf(foundation.unet)

    def denoise(z: Tensor, t: Tensor) -> Tensor:
        with precision(device, config.mixed_precision):
            output = decoder(encode(foundation.unet, torch.cat([z, given], dim=1), t, cond), cond)
        output = output.float()
        if not both:
            return output
        conditional, empty = output.chunk(2)
        return guided(conditional, empty, config.guidance)

    z_T = normal(seeds, (foundation.latent_shape[0], *given.shape[2:]), "z_T").to(device)
    return solve(denoise, z_T, foundation.scheduler.config, config.sampling_steps, config.solver, start)


def precision(device: torch.device, name: str) -> torch.autocast:
    """What the U-Net computes in: bf16 or fp16 on a GPU where `name` says so, else single precision.

    Autoencoder (whose values overflow in fp16 for SDXL), text encoders and the solver's steps stay in single precision.
    """
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(name)
    return torch.autocast(device.type, dtype, enabled=dtype is not None and device.type == "cuda")


def autoencode(foundation: Foundation, scene: Scene) -> NDArray[np.uint8]:
    """(B, R, R, 3) uint8: D(E(I)), what the autoencoder alone makes of the images."""
    x = to_signed(scene.images.transpose(0, 3, 1, 2)).to(foundation.device)
    made = torch.cat([foundation.autoencode(part) for part in x.split(scene.at_once)])
    return to_bytes(made).transpose(0, 2, 3, 1)
