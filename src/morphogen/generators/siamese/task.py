"""Siamese-Diffusion as a task of the training loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from morphogen.foundation.lora import merge_lora
from morphogen.foundation.model import Foundation
from morphogen.generators.mask_training import MaskTask, TrainingSet
from morphogen.generators.siamese.config import SiameseConfig
from morphogen.generators.siamese.control import HintedControlNet
from morphogen.generators.siamese.step import Inputs, Weights, step_losses
from morphogen.generators.siamese.trained import trained_networks
from morphogen.training.task import Batch, Phase, Progress

__all__ = ["SiameseTask", "TrainingSet"]


class SiameseTask(MaskTask):
    """Trains the ControlNet with its hint encoder, and the U-Net's decoder unless it is locked (`trained_networks`)."""

    def __init__(
        self,
        foundation: Foundation,
        controlnet: HintedControlNet,
        data: TrainingSet,
        config: SiameseConfig,
        cache: Path | None = None,
        sources: Sequence[str] = (),
    ) -> None:
        super().__init__(foundation, data, config, cache)
        self.controlnet, self.config, self.sources = controlnet, config, sources
        self.nets, self.modules = trained_networks(foundation, controlnet, config)

    def phases(self) -> Sequence[Phase]:
        parameters, c = [p for p in self.modules.parameters() if p.requires_grad], self.config
        return [
            Phase(
                "siamese", parameters, self.loss, lr=c.lr, weight_decay=c.weight_decay, schedule=c.lr_scheduler,
                warmup=c.lr_warmup_steps,
            )
        ]  # fmt: skip

    def weights(self, progress: Progress) -> Weights:
        """w_i = k / N (Eq. 5), or 1; the Online-Augmentation after N / 3 (Eq. 13)."""
        c = self.config
        late = progress.step > progress.max_steps / 3
        w_i = progress.fraction if c.w_i == "linear" else 1.0
        augment = c.online_augmentation and late
        return Weights(w_i, c.w_c, augment, c.T_tau, c.image_branch, c.adaptive_w_c, c.both_hints)

    def loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        hints = batch["mask_hint"], batch["image_hint"]
        x = Inputs(batch["z0"], batch["eps"], batch["t"], self.conditioning(batch), *hints)
        return step_losses(self.nets, x, self.weights(progress))

    def paint(self, shown: slice, prompts: Sequence[str], seeds: Sequence[int]) -> NDArray[np.uint8]:
        from morphogen.generators.siamese.sampling import sample_images

        data, images = self.data, self.data.images[shown] if self.config.both_hints else None
        return sample_images(self.nets, data.masks[shown], len(data.classes), prompts, seeds, self.config, images)

    def save(self, folder: Path) -> None:
        """A whole diffusers pipeline folder: the foundation with the trained decoder, and the ControlNet."""
        from morphogen.generators.siamese.artefact import save

        merge_lora(self.modules)
        save(folder, self.nets, self.config, self.data.classes, self.data.bank.captions, self.sources)
