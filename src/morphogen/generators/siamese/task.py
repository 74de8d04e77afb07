"""Siamese-Diffusion as a task of the training loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from morphogen.foundation.conditioning import Conditioning
from morphogen.foundation.latents import LatentBank, encode_texts
from morphogen.foundation.lora import merge_lora
from morphogen.foundation.model import Foundation
from morphogen.generators.siamese.config import SiameseConfig
from morphogen.generators.siamese.control import HintedControlNet
from morphogen.generators.siamese.hint_images import image_hint, mask_hint
from morphogen.generators.siamese.step import Inputs, Weights, step_losses
from morphogen.generators.siamese.trained import trained_networks
from morphogen.training.rng import normal, uniform
from morphogen.training.task import Batch, Draw, Phase, Progress


@dataclass(frozen=True)
class TrainingSet:
    """Pairs with their cached latents: `images` (N, 3, R, R) uint8, `masks` (N, R, R) label ids, `bank` of N rows."""

    images: np.ndarray
    masks: np.ndarray
    bank: LatentBank
    classes: tuple[str, ...]


class SiameseTask:
    """Trains the ControlNet with its hint encoder, and the U-Net's decoder unless it is locked (`trained_networks`)."""

    def __init__(
        self,
        foundation: Foundation,
        controlnet: HintedControlNet,
        data: TrainingSet,
        config: SiameseConfig,
        cache: Path | None = None,
    ) -> None:
        self.foundation, self.controlnet, self.data, self.config = foundation, controlnet, data, config
        self.nets, self.modules = trained_networks(foundation, controlnet, config)
        texts = ["", *(text for captions in data.bank.captions for text in captions)]
        self.texts = encode_texts(foundation, texts, data.images.shape[-1], cache)

    def __len__(self) -> int:
        return len(self.data.bank)

    def phases(self) -> Sequence[Phase]:
        parameters, c = [p for p in self.modules.parameters() if p.requires_grad], self.config
        return [
            Phase(
                "siamese", parameters, self.loss, lr=c.lr, weight_decay=c.weight_decay, schedule=c.lr_scheduler,
                warmup=c.lr_warmup_steps,
            )
        ]  # fmt: skip

    def batch(self, draws: Sequence[Draw]) -> Batch:
        seeds, index = torch.tensor([draw.seed for draw in draws]), [draw.index for draw in draws]
        mean, std, prompts = self.data.bank.rows(draws)
        prompts = [
            "" if u < self.config.prompt_drop else p for p, u in zip(prompts, uniform(seeds, "drop"), strict=True)
        ]
        z0 = mean + std * normal(seeds, mean.shape[1:], "posterior")
        steps = self.foundation.scheduler.config.num_train_timesteps
        return {
            "seed": seeds,
            "z0": z0,
            "eps": normal(seeds, z0.shape[1:], "eps"),
            "t": (uniform(seeds, "t") * steps).long(),
            "prompts": prompts,
            "mask_hint": mask_hint(self.data.masks[index], len(self.data.classes)),
            "image_hint": image_hint(self.data.images[index]),
        }

    def weights(self, progress: Progress) -> Weights:
        """w_i = k / N (Eq. 5); the Online-Augmentation after N / 3 (Eq. 13)."""
        c = self.config
        late = progress.step > progress.max_steps / 3
        return Weights(progress.fraction, c.w_c, c.online_augmentation and late, c.T_tau, c.image_branch)

    def loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        cond = Conditioning.cat([self.texts[prompt] for prompt in batch["prompts"]]).to(batch["z0"].device)
        x = Inputs(batch["z0"], batch["eps"], batch["t"], cond, batch["mask_hint"], batch["image_hint"])
        return step_losses(self.nets, x, self.weights(progress))

    def to(self, device: Any) -> None:
        """The U-Net alone: latents and texts are encoded, so that the encoders would only take memory."""
        self.foundation.unet.to(device)
        for module in self._encoders:
            module.to("cpu")

    @property
    def _encoders(self) -> list[nn.Module]:
        return [self.foundation.vae, *self.foundation.text_encoders]

    def preview(self, step: int, folder: Path) -> None:
        """Masks, samples for them, and the real images, one column each."""
        from morphogen.foundation.images import save_grid, to_signed
        from morphogen.generators.siamese.sampling import sample_images

        shown = slice(0, 8)
        masks, classes = self.data.masks[shown], len(self.data.classes)
        prompts = [captions[0] for captions in self.data.bank.captions[shown]]
        for module in self._encoders:
            module.to(self.foundation.device)
        made = sample_images(self.nets, masks, classes, prompts, seeds=list(range(len(masks))), config=self.config)
        self.to(self.foundation.device)
        rows = [
            mask_hint(masks, classes) * 2 - 1,
            to_signed(made.transpose(0, 3, 1, 2)),
            to_signed(self.data.images[shown]),
        ]
        save_grid(torch.cat(rows), folder / f"step-{step:06d}.png", columns=len(masks))

    def validate(self, step: int) -> Mapping[str, float]:
        return {}

    def save(self, folder: Path) -> None:
        """A whole diffusers pipeline folder: the foundation with the trained decoder, and the ControlNet."""
        from morphogen.generators.siamese.artefact import save

        merge_lora(self.modules)
        save(folder, self.nets, self.config, self.data.classes, self.data.bank.captions)
