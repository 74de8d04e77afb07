"""Training of a foundation's text-conditional latent denoiser: noise prediction with classifier-free dropout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from morphogen.foundation.conditioning import Conditioning
from morphogen.foundation.halves import predict
from morphogen.foundation.latents import LatentBank
from morphogen.foundation.model import Foundation
from morphogen.foundation.text_to_image import text_to_image
from morphogen.training.rng import normal, uniform
from morphogen.training.task import Batch, Draw, Phase, Progress


class DenoiserTask:
    """L = E || target - U(z_t, t, c) ||^2 (Ho et al. 2020, Eq. 14), c empty in `drop` of the rows (Ho & Salimans 2022).

    The text encoder trains along where the foundation is small enough to have a vocabulary of its own.
    """

    def __init__(
        self,
        foundation: Foundation,
        bank: LatentBank,
        lr: float,
        drop: float = 0.1,
        preview_prompts: Sequence[str] = (),
    ) -> None:
        self.foundation, self.bank, self.lr, self.drop = foundation, bank, lr, drop
        self.preview_prompts = list(preview_prompts)
        self.trains_text = bool(foundation.card.get("vocabulary"))
        self.modules = nn.ModuleDict({"unet": foundation.unet})
        if self.trains_text:
            self.modules["text_encoder"] = foundation.text_encoders[0]
        self.modules.requires_grad_(True)

    def __len__(self) -> int:
        return len(self.bank)

    def phases(self) -> Sequence[Phase]:
        parameters = [p for p in self.modules.parameters() if p.requires_grad]
        return [Phase("denoiser", parameters, self.loss, lr=self.lr, weight_decay=0.01, schedule="cosine", warmup=100)]

    def batch(self, draws: Sequence[Draw]) -> Batch:
        seeds = torch.tensor([draw.seed for draw in draws])
        mean, std, prompts = self.bank.rows(draws)
        prompts = ["" if u < self.drop else p for p, u in zip(prompts, uniform(seeds, "drop"), strict=True)]
        z0 = mean + std * normal(seeds, mean.shape[1:], "posterior")
        t = (uniform(seeds, "t") * self.foundation.scheduler.config.num_train_timesteps).long()
        return {"z0": z0, "eps": normal(seeds, z0.shape[1:], "eps"), "t": t, "prompts": prompts, "seed": seeds}

    def loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        foundation, z0, eps, t = self.foundation, batch["z0"], batch["eps"], batch["t"]
        if self.trains_text:
            cond = Conditioning(foundation.text_encoders[0](foundation.tokens(batch["prompts"])[0])[0])
        else:
            cond = foundation.conditioning(batch["prompts"])
        output = predict(foundation.unet, foundation.add_noise(z0, eps, t), t, cond)
        return {"mse": F.mse_loss(output.float(), foundation.target(z0, eps, t))}

    def to(self, device: Any) -> None:
        self.foundation.vae.to(device)
        for encoder in self.foundation.text_encoders:
            encoder.to(device)

    def preview(self, step: int, folder: Path) -> None:
        if self.preview_prompts:
            from morphogen.foundation.images import save_grid

            prompts = [prompt for prompt in self.preview_prompts for _ in range(8)]
            x = text_to_image(self.foundation, prompts, seeds=list(range(len(prompts))), steps=20)
            save_grid(x, folder / f"step-{step:06d}.png", columns=8)

    def validate(self, step: int) -> Mapping[str, float]:
        return {}

    def save(self, folder: Path) -> None:
        self.foundation.save(folder)
        self.foundation.copy_hint(folder)
