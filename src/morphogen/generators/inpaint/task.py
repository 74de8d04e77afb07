"""Training: the U-Net learns to paint what the words say into a hole, given the image around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from morphogen.data.prompts import Grammar
from morphogen.foundation.conditioning import Conditioning
from morphogen.foundation.halves import predict
from morphogen.foundation.images import to_signed
from morphogen.foundation.inpainting import around
from morphogen.foundation.latents import LatentBank, encode_texts
from morphogen.foundation.lora import ATTENTION, add_lora, lora_modules
from morphogen.foundation.model import Foundation
from morphogen.foundation.noise_weights import noise_weights
from morphogen.generators.inpaint.config import InpaintConfig
from morphogen.generators.inpaint.holes import elsewhere, paste
from morphogen.training.rng import normal, numpy_rng, uniform
from morphogen.training.task import Batch, Draw, Group, Phase, Progress

FIRST_LAYER = 10.0
"""Factor on the learning rate of a widened first layer, which has to learn from zero what hole and image mean."""


@dataclass(frozen=True)
class TrainingSet:
    """What is trained on.

    Attributes:
        images: (N, 3, R, R) uint8.
        holes: (N, R, R) bool, each image's lesion with its feather; empty where there is none.
        bank: Latents and captions of the N images.
        classes: Class names by label id.
        grammar: How lesions are put into words; its sentence for normal tissue goes with holes off the lesion.
        counts: How often the images have each word that only pixels decide (`words.count_words`).
    """

    images: NDArray[np.uint8]
    holes: NDArray[np.bool_]
    bank: LatentBank
    classes: tuple[str, ...]
    grammar: Grammar
    counts: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


class InpaintTask:
    """Trains the whole U-Net, or low-rank updates of its attention, beside which a widened first layer trains whole.

    Args:
        foundation: One that inpaints.
        data: Images, holes and words.
        config: How.
        whole: Write the whole foundation at the end, since its weights are nowhere else: it was widened or adapted.
        widened: Its U-Net was widened just before.
        cache: Where text embeddings are kept.
    """

    def __init__(
        self,
        foundation: Foundation,
        data: TrainingSet,
        config: InpaintConfig,
        whole: bool = True,
        widened: bool = True,
        cache: Path | None = None,
    ) -> None:
        self.foundation, self.data, self.config = foundation, data, config
        self.whole, self.widened = whole, widened
        self.modules = trained_modules(foundation, config, widened)
        texts = ["", data.grammar.empty, *(text for captions in data.bank.captions for text in captions)]
        self.texts = encode_texts(foundation, texts, data.images.shape[-1], cache)
        self._lesions = np.flatnonzero(data.holes.any((1, 2)))

    def __len__(self) -> int:
        return len(self.data.bank)

    def phases(self) -> Sequence[Phase]:
        parameters, c = [p for p in self.modules.parameters() if p.requires_grad], self.config
        first = [p for p in self.foundation.unet.conv_in.parameters() if p.requires_grad] if self.widened else []
        rest = [p for p in parameters if all(p is not other for other in first)]
        groups = [Group(rest, 1.0, c.weight_decay), Group(first, FIRST_LAYER, c.weight_decay)] if first else []
        return [
            Phase(
                "inpaint", parameters, self.loss, lr=c.lr, weight_decay=c.weight_decay, schedule=c.lr_scheduler,
                warmup=c.lr_warmup_steps, groups=groups,
            )
        ]  # fmt: skip

    def batch(self, draws: Sequence[Draw]) -> Batch:
        """Latents, noise, timesteps, words, and the image with its hole, all by the rows' seeds."""
        seeds, index = torch.tensor([draw.seed for draw in draws]), [draw.index for draw in draws]
        mean, std, captions = self.data.bank.rows(draws)
        holes, prompts = [], []
        for draw, caption, u in zip(draws, captions, uniform(seeds, "drop"), strict=True):
            hole, off_lesion = self.hole(draw)
            holes.append(hole)
            prompt = self.data.grammar.empty if off_lesion else caption
            prompts.append("" if u < self.config.prompt_drop else prompt)
        z0 = mean + std * normal(seeds, mean.shape[1:], "posterior")
        steps = self.foundation.scheduler.config.num_train_timesteps
        return {
            "seed": seeds,
            "z0": z0,
            "eps": normal(seeds, z0.shape[1:], "eps"),
            "t": (uniform(seeds, "t") * steps).long(),
            "prompts": prompts,
            "image": to_signed(self.data.images[index]),
            "hole": torch.from_numpy(np.stack(holes))[:, None].float(),
        }

    def hole(self, draw: Draw) -> tuple[NDArray[np.bool_], bool]:
        """(R, R) hole of one row, and whether it lies off the lesion (so that normal tissue is what is to be painted).

        One of three kinds, in the shares of the config: the image's own lesion, another one's moved off it, or all.
        """
        c, rng, own = self.config, numpy_rng(draw.seed, "hole"), self.data.holes[draw.index]
        u = rng.uniform()
        if u < c.hole_all or not len(self._lesions):
            return np.ones_like(own), False
        if u < c.hole_all + c.hole_normal or not own.any():
            other = self.data.holes[self._lesions[int(rng.integers(len(self._lesions)))]]
            moved = elsewhere(other, own, rng)
            if moved is not None:
                return moved, True
        return (own if own.any() else np.ones_like(own)), False

    def loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        """w_t ||o - y||^2 over the latent, and lesion_weight times that inside the hole (after Polyp-Gen's guidance).

        o is the U-Net's output for [z_t; m; E(I (1 - M))] and y what it is trained to say, eps or v; w_t is `weights`.
        """
        z0, eps, t = batch["z0"], batch["eps"], batch["t"]
        cond = Conditioning.cat([self.texts[prompt] for prompt in batch["prompts"]]).to(z0.device)
        given = around(self.foundation, batch["image"], batch["hole"])
        z_t = self.foundation.add_noise(z0, eps, t)
        output = predict(self.foundation.unet, torch.cat([z_t, given], dim=1), t, cond).float()
        weights = noise_weights(self.foundation, t, self.config.noise_weight)
        error = (output - self.foundation.target(z0, eps, t)).square().mean(dim=1, keepdim=True) * weights
        losses = {"L": error.mean()}
        if self.config.lesion_weight:
            m = given[:, :1]
            inside = (error * m).sum(dim=(1, 2, 3)) / m.sum(dim=(1, 2, 3)).clamp(min=1)
            losses["L_hole"] = self.config.lesion_weight * inside.mean()
        return losses

    def to(self, device: Any) -> None:
        """U-Net and autoencoder, which encodes what is around the holes; the texts are encoded already."""
        self.foundation.unet.to(device)
        self.foundation.vae.to(device)
        for encoder in self.foundation.text_encoders:
            encoder.to("cpu")

    def preview(self, step: int, folder: Path) -> None:
        """Training images, what is painted into their holes with their captions, and the holes, one column each."""
        from morphogen.foundation.images import save_grid
        from morphogen.generators.inpaint.sampling import Scene, paint

        n = min(8, len(self.data.images))
        images, holes = self.data.images[:n].transpose(0, 2, 3, 1), self.data.holes[:n]
        for module in self.foundation.text_encoders:
            module.to(self.foundation.device)
        prompts = [captions[0] for captions in self.data.bank.captions[:n]]
        painted = paint(self.foundation, Scene(images, holes), prompts, list(range(n)), self.config)
        self.to(self.foundation.device)
        made = [paste(g, i, m.astype(np.float32)) for g, i, m in zip(painted, images, holes, strict=True)]
        blank = [np.where(m[..., None], np.uint8(128), i) for i, m in zip(images, holes, strict=True)]
        rows = np.stack([*images, *blank, *made]).transpose(0, 3, 1, 2)
        save_grid(to_signed(rows), folder / f"step-{step:06d}.png", columns=n)

    def validate(self, step: int) -> Mapping[str, float]:
        return {}

    def save(self, folder: Path) -> None:
        """A diffusers folder that any inpainting pipeline loads, or the low-rank updates alone (`artefact.save`)."""
        from morphogen.generators.inpaint.artefact import save

        save(folder, self)


def trained_modules(foundation: Foundation, config: InpaintConfig, widened: bool) -> nn.ModuleDict:
    """What a checkpoint holds, with gradients switched on; the U-Net is changed in place.

    Args:
        foundation: One that inpaints.
        config: `tuning` full: the whole U-Net. lora: the updates, which share their parameters with the U-Net.
        widened: With lora, train the first layer whole.
    """
    unet = foundation.unet
    if config.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    if config.tuning == "full":
        modules = nn.ModuleDict({"unet": unet})
        modules.requires_grad_(True)
    else:
        add_lora(unet, ATTENTION, config.lora_rank, config.lora_alpha, gaussian=True)
        modules = lora_modules(unet)
        if widened:
            modules["conv_in"] = unet.conv_in.requires_grad_(True)
    if config.mixed_precision != "no":  # where half-precision convolutions are faster in this layout
        unet.to(memory_format=torch.channels_last)
    return modules
