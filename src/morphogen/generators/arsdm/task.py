"""ArSDM as a task of the training loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from morphogen.foundation.conditioning import Conditioning
from morphogen.foundation.latents import encode_texts
from morphogen.generators.arsdm.config import ArSDMConfig
from morphogen.generators.arsdm.step import Inputs, Networks, Weights, step_losses
from morphogen.generators.arsdm.trained import trained_modules
from morphogen.generators.siamese.task import TrainingSet
from morphogen.training.rng import normal, uniform
from morphogen.training.task import Batch, Draw, Phase, Progress


class ArSDMTask:
    """Trains the SPADE layers, and the U-Net or its decoder (`trained_modules`); the segmenter stays as it is."""

    def __init__(
        self,
        nets: Networks,
        segmenter: nn.Module | None,
        data: TrainingSet,
        config: ArSDMConfig,
        cache: Path | None = None,
    ) -> None:
        self.nets, self.segmenter, self.data, self.config = nets, segmenter, data, config
        self.foundation = nets.foundation
        self.modules = trained_modules(nets, config)
        texts = ["", *(text for captions in data.bank.captions for text in captions)]
        self.texts = encode_texts(self.foundation, texts, data.images.shape[-1], cache)

    def __len__(self) -> int:
        return len(self.data.bank)

    def phases(self) -> Sequence[Phase]:
        parameters, c = [p for p in self.modules.parameters() if p.requires_grad], self.config
        return [
            Phase(
                "arsdm", parameters, self.loss, lr=c.lr, weight_decay=c.weight_decay, schedule=c.lr_scheduler,
                warmup=c.lr_warmup_steps,
            )
        ]  # fmt: skip

    def batch(self, draws: Sequence[Draw]) -> Batch:
        seeds, index = torch.tensor([draw.seed for draw in draws]), [draw.index for draw in draws]
        mean, std, prompts = self.data.bank.rows(draws)
        dropped = uniform(seeds, "drop") < self.config.condition_drop
        z0 = mean + std * normal(seeds, mean.shape[1:], "posterior")
        steps = self.foundation.scheduler.config.num_train_timesteps
        return {
            "seed": seeds,
            "z0": z0,
            "eps": normal(seeds, z0.shape[1:], "eps"),
            "t": (uniform(seeds, "t") * steps).long(),
            "prompts": ["" if gone else prompt for prompt, gone in zip(prompts, dropped, strict=True)],
            "dropped": dropped,
            "mask": torch.from_numpy(self.data.masks[index]).long(),
        }

    def weights(self, progress: Progress) -> Weights:
        """The refinement from `refine_from` of the run on."""
        c = self.config
        return Weights(c.adaptive, c.w_r if progress.fraction >= c.refine_from else 0.0, c.T_r)

    def loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        cond = Conditioning.cat([self.texts[prompt] for prompt in batch["prompts"]]).to(batch["z0"].device)
        named = {name: batch[name] for name in ("z0", "eps", "t", "mask", "dropped", "seed")}
        return step_losses(self.nets, Inputs(cond=cond, **named), self.weights(progress), self.segmenter)

    def to(self, device: Any) -> None:
        """The U-Net and, for the refinement, segmenter and autoencoder; latents and texts are encoded already."""
        self.foundation.unet.to(device)
        for module in self.foundation.text_encoders:
            module.to("cpu")
        if self.segmenter is None:
            self.foundation.vae.to("cpu")
        else:
            self.foundation.vae.to(device)
            self.segmenter.to(device)

    def preview(self, step: int, folder: Path) -> None:
        """Masks, samples for them, and the real images, one column each."""
        from morphogen.foundation.images import save_grid, to_signed
        from morphogen.generators.arsdm.sampling import sample_images
        from morphogen.generators.siamese.hint_images import mask_hint

        shown, foundation = slice(0, 8), self.foundation
        masks, classes = self.data.masks[shown], len(self.data.classes)
        prompts = [captions[0] for captions in self.data.bank.captions[shown]]
        for module in (foundation.vae, *foundation.text_encoders):
            module.to(foundation.device)
        made = sample_images(self.nets, masks, prompts, list(range(len(masks))), self.config)
        self.to(foundation.device)
        rows = [
            mask_hint(masks, classes) * 2 - 1,
            to_signed(made.transpose(0, 3, 1, 2)),
            to_signed(self.data.images[shown]),
        ]
        save_grid(torch.cat(rows), folder / f"step-{step:06d}.png", columns=len(masks))

    def validate(self, step: int) -> Mapping[str, float]:
        return {}

    def save(self, folder: Path) -> None:
        """The foundation with the trained U-Net, and the SPADE layers."""
        from morphogen.generators.arsdm.artefact import save

        save(folder, self.nets, self.config, self.data.classes, self.data.bank.captions)
