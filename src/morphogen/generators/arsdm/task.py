"""ArSDM as a task of the training loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from morphogen.generators.arsdm.config import ArSDMConfig
from morphogen.generators.arsdm.step import Inputs, Networks, Weights, step_losses
from morphogen.generators.arsdm.trained import trained_modules
from morphogen.generators.mask_training import MaskTask, TrainingSet
from morphogen.training.rng import uniform
from morphogen.training.task import Batch, Draw, Phase, Progress


class ArSDMTask(MaskTask):
    """Trains the SPADE layers, and the U-Net or its decoder (`trained_modules`); the segmenter stays as it is."""

    def __init__(
        self,
        nets: Networks,
        segmenter: nn.Module | None,
        data: TrainingSet,
        config: ArSDMConfig,
        cache: Path | None = None,
    ) -> None:
        super().__init__(nets.foundation, data, config, cache)
        self.nets, self.segmenter, self.config = nets, segmenter, config
        self.modules = trained_modules(nets, config)

    def phases(self) -> Sequence[Phase]:
        parameters, c = [p for p in self.modules.parameters() if p.requires_grad], self.config
        return [
            Phase(
                "arsdm", parameters, self.loss, lr=c.lr, weight_decay=c.weight_decay, schedule=c.lr_scheduler,
                warmup=c.lr_warmup_steps,
            )
        ]  # fmt: skip

    def batch(self, draws: Sequence[Draw]) -> Batch:
        """As of all mask generators; rows that lost their prompt lose their mask, too."""
        made = super().batch(draws)
        dropped = uniform(made["seed"], "drop") < self.config.condition_drop
        mask = torch.from_numpy(self.data.masks[[draw.index for draw in draws]]).long()
        return {**made, "dropped": dropped, "mask": mask}

    def weights(self, progress: Progress) -> Weights:
        """The refinement from `refine_from` of the run on."""
        c = self.config
        return Weights(c.adaptive, c.w_r if progress.fraction >= c.refine_from else 0.0, c.T_r)

    def loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        named = {name: batch[name] for name in ("z0", "eps", "t", "mask", "dropped", "seed")}
        x = Inputs(cond=self.conditioning(batch), **named)
        return step_losses(self.nets, x, self.weights(progress), self.segmenter)

    def to(self, device: Any) -> None:
        """The U-Net and, for the refinement, segmenter and autoencoder; latents and texts are encoded already."""
        super().to(device)
        if self.segmenter is not None:
            self.foundation.vae.to(device)
            self.segmenter.to(device)

    def paint(self, shown: slice, prompts: Sequence[str], seeds: Sequence[int]) -> NDArray[np.uint8]:
        from morphogen.generators.arsdm.sampling import sample_images

        return sample_images(self.nets, self.data.masks[shown], prompts, seeds, self.config)

    def save(self, folder: Path) -> None:
        """The foundation with the trained U-Net, and the SPADE layers."""
        from morphogen.generators.arsdm.artefact import save

        save(folder, self.nets, self.config, self.data.classes, self.data.bank.captions)
