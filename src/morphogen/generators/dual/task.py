"""Training: the U-Net learns to make image and mask out of noise and words, together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from morphogen.data.prompts import Grammar
from morphogen.foundation.images import turned
from morphogen.foundation.lora import ATTENTION, FEED_FORWARD, add_lora, lora_modules
from morphogen.generators.dual.config import DualConfig
from morphogen.generators.dual.layout import join
from morphogen.generators.dual.losses import Networks, Rows, draw_decoded, pair_losses
from morphogen.generators.dual.words import Sentences
from morphogen.sampling.budgets import Caption
from morphogen.training.balance import Balance
from morphogen.training.rng import normal, numpy_rng, uniform
from morphogen.training.task import Batch, Draw, Group, Phase, Progress

SHOWN = 8
"""Pairs of a preview."""


@dataclass(frozen=True)
class TrainingSet:
    """N images, in T symmetries (`turned`), those of one symmetry together.

    Attributes:
        images: (N, 3, R, R) uint8, as they are.
        masks: (N, R, R) uint8 in {0, 1}; zeros where there is none.
        known: (N,) bool, whether there is a mask.
        mean, std: (T N, C, h, w), posteriors of the images' latents.
        z_mask: (T N, C, h, w), latents of the masks.
        sentences: N.
        captions: Of the images with a lesion.
        classes: Class names by label id of the masks.
        grammar: How images are put into words.
    """

    images: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    known: NDArray[np.bool_]
    mean: Tensor
    std: Tensor
    z_mask: Tensor
    sentences: Sequence[Sentences]
    captions: Sequence[Caption]
    classes: tuple[str, ...]
    grammar: Grammar

    def __len__(self) -> int:
        return len(self.images)

    @property
    def labels(self) -> list[str | None]:
        """Class of every image."""
        return [one.label for one in self.sentences]


class DualTask:
    """Trains the whole U-Net, or low-rank updates beside which widened layers train whole.

    Args:
        nets: The foundation, its U-Net widened for the joint layout; the mask autoencoder; and the small segmenter.
        data: Pairs and words.
        config: How.
        whole: Write the whole foundation at the end, since its weights are nowhere else: it was adapted.
    """

    def __init__(self, nets: Networks, data: TrainingSet, config: DualConfig, whole: bool = True) -> None:
        self.nets, self.data, self.config, self.whole = nets, data, config, whole
        self.foundation = nets.foundation
        self.modules = trained_modules(nets.foundation.unet, config)
        self.balance = Balance(data.labels, config.class_balance)

    def __len__(self) -> int:
        return len(self.data)

    def phases(self) -> Sequence[Phase]:
        """One; the widened layers have a learning rate of their own."""
        c, unet = self.config, self.foundation.unet
        parameters = [p for p in self.modules.parameters() if p.requires_grad]
        convs = [*unet.conv_in.parameters(), *unet.conv_out.parameters()] if c.layout == "joint" else []
        own = {id(p) for p in convs}
        groups = [Group([p for p in parameters if id(p) not in own], 1.0, c.weight_decay)]
        groups += [Group(convs, c.conv_lr / c.lr, c.weight_decay)] if convs else []
        return [
            Phase(
                "dual", parameters, self.loss, lr=c.lr, weight_decay=c.weight_decay, schedule=c.lr_scheduler,
                warmup=c.lr_warmup_steps, groups=groups,
            )
        ]  # fmt: skip

    def batch(self, draws: Sequence[Draw]) -> Batch:
        """Latents, noise, timesteps, words and masks, all by the rows' seeds."""
        c, data, seeds = self.config, self.data, torch.tensor([draw.seed for draw in draws])
        items = [self.balance.item(draw) for draw in draws]
        turns = [self._turn(item, draw.seed) for item, draw in zip(items, draws, strict=True)]
        rows = torch.tensor([turn * len(data) + item for item, turn in zip(items, turns, strict=True)])
        shape = data.mean.shape[1:]
        image = data.mean[rows] + data.std[rows] * normal(seeds, shape, "posterior")
        steps = self.foundation.scheduler.config.num_train_timesteps
        t = (uniform(seeds, "t") * steps).long()
        known = torch.from_numpy(data.known[items])
        masks = [turned(data.masks[item], turn) for item, turn in zip(items, turns, strict=True)]
        return {
            "seed": seeds,
            "z0": join(image, data.z_mask[rows], c.layout),
            "eps": join(normal(seeds, shape, "eps"), normal(seeds, shape, "eps_m"), c.layout),
            "t": t,
            "prompts": [
                data.sentences[item].drawn(turn, draw.seed, c.prompt_drop, c.label_share)
                for item, turn, draw in zip(items, turns, draws, strict=True)
            ],
            "known": known,
            "mask": torch.from_numpy(np.stack(masks)),
            "decoded": draw_decoded(c, seeds, t, known, steps).tolist(),
        }

    def _turn(self, item: int, seed: int) -> int:
        """The symmetry of a row, among those that its caption can follow."""
        if not self.config.symmetries:
            return 0
        turns = self.data.sentences[item].turns
        return turns[int(numpy_rng(seed, "turn").integers(len(turns)))]

    def loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        """`pair_losses`; the alignment from `align_after` steps on."""
        told = self.foundation.told(batch["prompts"], self.data.images.shape[-1])
        rows = Rows(
            batch["z0"], batch["eps"], batch["t"], told, batch["known"], batch["mask"],
            [k for k, decoded in enumerate(batch["decoded"]) if decoded],
        )  # fmt: skip
        return pair_losses(self.nets, rows, self.config, progress.step >= self.config.align_after)

    def to(self, device: Any) -> None:
        """Everything: words are encoded and estimates decoded at every step."""
        for module in (*self.foundation.modules, self.nets.masks, self.nets.segmenter):
            if module is not None:
                module.to(device)

    def preview(self, step: int, folder: Path) -> None:
        """Training pairs, and below them pairs made of their captions, each image beside its mask's outline."""
        from morphogen.generators.dual.sampling import make_pairs
        from morphogen.segmenters.preview import write_preview

        shown = [k for k, one in enumerate(self.data.sentences) if one.lesion][:SHOWN]
        if not shown:
            return
        prompts = [self.data.sentences[k].full() for k in shown]
        images, made = make_pairs(self.nets.foundation, self.nets.masks, prompts, range(len(shown)), self.config)
        found = (made > 0.5).astype(np.uint8)
        masks = np.concatenate([self.data.masks[shown], found])
        pictures = np.concatenate([self.data.images[shown], images.transpose(0, 3, 1, 2)])
        write_preview(folder / f"step-{step:06d}.png", pictures, masks, np.zeros_like(masks, dtype=np.int64))

    def validate(self, step: int) -> Mapping[str, float]:
        return {}

    def save(self, folder: Path) -> None:
        """Foundation with the trained U-Net, or updates alone; mask autoencoder; words (`artefact.save`)."""
        from morphogen.generators.dual.artefact import save

        save(folder, self)


def lora_targets(config: DualConfig) -> tuple[str, ...]:
    """Ends of the names of the layers that have low-rank updates."""
    return ATTENTION if config.lora_targets == "attention" else (*ATTENTION, *FEED_FORWARD)


def trained_modules(unet: Any, config: DualConfig) -> nn.ModuleDict:
    """What a checkpoint holds, with gradients switched on; the U-Net is changed in place.

    Args:
        unet: Of the layout.
        config: `tuning` full: the whole U-Net. lora: the updates, which share their parameters with the U-Net, and for
            the joint layout its first and last layer.
    """
    if config.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    if config.tuning == "full":
        modules = nn.ModuleDict({"unet": unet})
        modules.requires_grad_(True)
    else:
        add_lora(unet, lora_targets(config), config.lora_rank, config.lora_alpha, gaussian=True)
        modules = lora_modules(unet)
        if config.layout == "joint":
            for name in ("conv_in", "conv_out"):
                modules[name] = unet.get_submodule(name).requires_grad_(True)
    if config.mixed_precision != "no":  # where half-precision convolutions are faster in this layout
        unet.to(memory_format=torch.channels_last)
    return modules
