"""T2I-Adapter as a task of the training loop: the adapter trains, everything else is frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from morphogen.generators.mask_training import MaskTask, TrainingSet
from morphogen.generators.t2i_adapter.adapter import Networks, cubic_timesteps, predict
from morphogen.generators.t2i_adapter.config import T2IAdapterConfig
from morphogen.training.rng import uniform
from morphogen.training.task import Batch, Phase, Progress


class T2IAdapterTask(MaskTask):
    """L_AD = E ||eps - eps_theta(z_t, t, c_t, F_AD(C))||^2 (Mou et al., section 3.3); of v-models ||v - v_theta||^2."""

    def __init__(self, nets: Networks, data: TrainingSet, config: T2IAdapterConfig, cache: Path | None = None) -> None:
        super().__init__(nets.foundation, data, config, cache)
        self.nets, self.config = nets, config
        self.modules = nn.ModuleDict({"adapter": nets.adapter.requires_grad_(True)})
        if config.gradient_checkpointing:
            nets.foundation.unet.enable_gradient_checkpointing()
        if config.mixed_precision != "no":  # where half-precision convolutions are faster in this layout
            for module in (nets.foundation.unet, nets.adapter):
                module.to(memory_format=torch.channels_last)

    def phases(self) -> Sequence[Phase]:
        c = self.config
        return [
            Phase(
                "adapter", list(self.modules.parameters()), self.loss, lr=c.lr, weight_decay=c.weight_decay,
                schedule=c.lr_scheduler, warmup=c.lr_warmup_steps,
            )
        ]  # fmt: skip

    def timesteps(self, seeds: Tensor) -> Tensor:
        """Drawn cubically, unless the settings say otherwise."""
        if self.config.timesteps == "uniform":
            return super().timesteps(seeds)
        return cubic_timesteps(uniform(seeds, "t"), self.foundation.scheduler.config.num_train_timesteps)

    def loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        z0, eps, t, foundation = batch["z0"], batch["eps"], batch["t"], self.foundation
        z_t = foundation.add_noise(z0, eps, t)
        output = predict(foundation, z_t, t, self.conditioning(batch), self.nets.adapter(batch["mask_hint"]))
        return {"L_AD": (output.to(z_t.dtype) - foundation.target(z0, eps, t)).square().mean()}

    def paint(self, shown: slice, prompts: Sequence[str], seeds: Sequence[int]) -> NDArray[np.uint8]:
        from morphogen.generators.t2i_adapter.sampling import sample_images

        masks, classes = self.data.masks[shown], len(self.data.classes)
        return sample_images(self.nets, masks, classes, prompts, seeds, self.config)

    def save(self, folder: Path) -> None:
        """A whole diffusers pipeline folder: the foundation as it was, and the adapter."""
        from morphogen.generators.t2i_adapter.artefact import save

        save(folder, self.nets, self.config, self.data.classes, self.data.bank.captions)
