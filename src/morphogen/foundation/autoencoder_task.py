"""Training of a foundation's autoencoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from morphogen.foundation.images import ImagePool, to_signed
from morphogen.foundation.model import Foundation
from morphogen.training.rng import normal
from morphogen.training.task import Batch, Draw, Phase, Progress

KL_WEIGHT = 1e-6


class AutoencoderTask:
    """L1 + gradient L1 + 1e-6 KL (Rombach et al. 2022, appendix G, without the adversarial part).

    The L1 of horizontal and vertical differences keeps edges that a plain L1 averages away.
    """

    def __init__(self, foundation: Foundation, pool: ImagePool, held_out: np.ndarray, lr: float) -> None:
        self.foundation, self.pool, self.held_out, self.lr = foundation, pool, held_out, lr
        foundation.vae.requires_grad_(True).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.modules = nn.ModuleDict({"vae": foundation.vae})

    def __len__(self) -> int:
        return len(self.pool)

    def phases(self) -> Sequence[Phase]:
        parameters = list(self.foundation.vae.parameters())
        return [Phase("autoencoder", parameters, self.loss, lr=self.lr, weight_decay=0.0, schedule="cosine", warmup=50)]

    def batch(self, draws: Sequence[Draw]) -> Batch:
        images = np.stack([self.pool.image(draw) for draw in draws])
        return {"x": to_signed(images), "seed": torch.tensor([draw.seed for draw in draws])}

    def loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        x = batch["x"].contiguous(memory_format=torch.channels_last)
        posterior = self.foundation.vae.encode(x).latent_dist
        noise = normal(batch["seed"].cpu(), posterior.mean.shape[1:], "posterior").to(posterior.mean)
        y = self.foundation.vae.decode(posterior.mean + posterior.std * noise).sample.float()
        return {
            "l1": (y - x).abs().mean(),
            "edges": edge_difference(y, x),
            "kl": KL_WEIGHT * posterior.kl().float().mean(),
        }

    def to(self, device: Any) -> None:
        pass

    def preview(self, step: int, folder: Path) -> None:
        from morphogen.foundation.images import save_grid

        x = to_signed(self.held_out[:8]).to(self.foundation.device)
        save_grid(torch.cat([x, self.foundation.autoencode(x)]).cpu(), folder / f"step-{step:06d}.png", columns=8)

    def validate(self, step: int) -> Mapping[str, float]:
        return {"psnr": psnr(self.foundation, self.held_out)}

    def save(self, folder: Path) -> None:
        self.foundation.vae.save_pretrained(folder)


def edge_difference(y: Tensor, x: Tensor) -> Tensor:
    """Mean absolute difference of the finite differences of two (B, C, H, W) images, over both directions."""
    return F.l1_loss(y.diff(dim=-1), x.diff(dim=-1)) + F.l1_loss(y.diff(dim=-2), x.diff(dim=-2))


@torch.no_grad()
def psnr(foundation: Foundation, images: np.ndarray) -> float:
    """Mean over images of the reconstruction's peak signal-to-noise ratio in dB, for (N, 3, H, W) uint8 images."""
    values = []
    for start in range(0, len(images), 64):
        x = to_signed(images[start : start + 64]).to(foundation.device)
        error = ((foundation.autoencode(x) - x) / 2).double().square().mean(dim=(1, 2, 3))
        values += (-10 * error.log10()).tolist()
    return float(np.mean(values))


@torch.no_grad()
def latent_scale(foundation: Foundation, images: np.ndarray) -> float:
    """1 / standard deviation of the latents of (N, 3, H, W) uint8 images: the scaling factor that makes it 1."""
    z = torch.cat(
        [
            foundation.vae.encode(to_signed(images[i : i + 64]).to(foundation.device)).latent_dist.mean
            for i in range(0, len(images), 64)
        ]
    )
    return float(1 / z.std())
