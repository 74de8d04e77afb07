"""What generators that paint images for masks share before and while they train: checks, pairs, latents, batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from morphogen.data.pairs import Pairs
from morphogen.data.prompts import Grammar
from morphogen.data.records import Dataset
from morphogen.errors import InputError
from morphogen.foundation.adapt import AdaptConfig, adapted
from morphogen.foundation.conditioning import Conditioning
from morphogen.foundation.fit_prompt import prompts_for
from morphogen.foundation.latents import Item, LatentBank, build_bank, encode_texts, symmetries
from morphogen.foundation.model import Foundation
from morphogen.generators.siamese.hint_images import image_hint, mask_hint
from morphogen.training.processes import processes
from morphogen.training.rng import normal, uniform
from morphogen.training.task import Batch, Draw


class Recipe(Protocol):
    """Settings that all of these generators have."""

    @property
    def foundation(self) -> str: ...
    @property
    def adapt_steps(self) -> int | None: ...
    @property
    def prompt(self) -> str | None: ...
    @property
    def prompt_drop(self) -> float: ...
    @property
    def symmetries(self) -> bool: ...
    @property
    def mixed_precision(self) -> str: ...
    @property
    def seed(self) -> int: ...


@dataclass(frozen=True)
class TrainingSet:
    """Pairs with their cached latents: `images` (N, 3, R, R) uint8, `masks` (N, R, R) label ids, `bank` of N rows."""

    images: np.ndarray
    masks: np.ndarray
    bank: LatentBank
    classes: tuple[str, ...]


def load_foundation(data: Dataset, config: Recipe) -> Foundation:
    """The foundation to train on, where the process trains.

    Raises:
        InputError: `data` has no masks, there is no such foundation, or it does not make images from text alone.
    """
    if not len(data.annotated):
        raise InputError(f"{data.root}: has no mask to learn from; add masks/ with the stems of images/")
    foundation = Foundation.load(config.foundation, processes().device)  # under a launcher each has a device of its own
    foundation.refuse_other_inputs()
    return foundation


def check_texts(data: Dataset, config: Recipe, foundation: Foundation) -> None:
    """Refuse prompts and captions that the foundation does not understand.

    Raises:
        InputError: One of them holds an unknown word, or is too long.
    """
    if config.prompt is not None:
        foundation.check_prompts([config.prompt])
        return
    for record in data.annotated:
        try:
            foundation.check_prompts([record.caption] if record.caption else [])
        except InputError as error:
            raise InputError(f"{data.root}: the caption of {record.id}: {error}") from None


def adapted_foundation(foundation: Foundation, data: Dataset, config: Recipe, out: Path) -> Foundation:
    """The foundation, fine-tuned on the images of `data` where that is asked for or pays."""
    adaptation = AdaptConfig(
        foundation=config.foundation, prompt=config.prompt, symmetries=config.symmetries, seed=config.seed,
        mixed_precision=config.mixed_precision,
    )  # fmt: skip
    return adapted(foundation, data, adaptation, config.adapt_steps, out / "adapted")


def training_set(foundation: Foundation, pairs: Pairs, config: Recipe, cache: Path | None = None) -> TrainingSet:
    """All pairs, turned and mirrored where that is asked for, with their latents and captions."""
    known = prompts_for(foundation, pairs, config.prompt)
    grammar = Grammar.load("generic")
    turns = range(8) if config.symmetries else (0,)
    items = [
        turned
        for turn in turns
        for i, text in enumerate(known)
        for turned in symmetries(Item(pairs.image(i), pairs.mask(i), grammar, caption=text), (turn,))
    ]
    images, masks = (
        np.stack([item.image for item in items]),
        np.stack([item.mask for item in items if item.mask is not None]),
    )
    return TrainingSet(images, masks, build_bank(foundation, items, cache), pairs.dataset.classes)


class MaskTask:
    """What such a generator's task does but for its networks and its loss: rows, texts, devices, previews.

    Args:
        foundation: Its U-Net is what is on the device while the networks train.
        data: Training pairs.
        config: Settings.
        cache: Folder that keeps the texts' embeddings, or None.
    """

    def __init__(self, foundation: Foundation, data: TrainingSet, config: Recipe, cache: Path | None = None) -> None:
        self.foundation, self.data, self.prompt_drop = foundation, data, config.prompt_drop
        texts = ["", *(text for captions in data.bank.captions for text in captions)]
        self.texts = encode_texts(foundation, texts, data.images.shape[-1], cache)

    def __len__(self) -> int:
        return len(self.data.bank)

    def timesteps(self, seeds: Tensor) -> Tensor:
        """(B,) int64: uniform, unless a method says otherwise."""
        return (uniform(seeds, "t") * self.foundation.scheduler.config.num_train_timesteps).long()

    def batch(self, draws: Sequence[Draw]) -> Batch:
        """Latents, noise, timesteps, prompts and hint images of B rows, each a function of its draw alone."""
        seeds, index = torch.tensor([draw.seed for draw in draws]), [draw.index for draw in draws]
        mean, std, prompts = self.data.bank.rows(draws)
        prompts = ["" if u < self.prompt_drop else p for p, u in zip(prompts, uniform(seeds, "drop"), strict=True)]
        z0 = mean + std * normal(seeds, mean.shape[1:], "posterior")
        return {
            "seed": seeds,
            "z0": z0,
            "eps": normal(seeds, z0.shape[1:], "eps"),
            "t": self.timesteps(seeds),
            "prompts": prompts,
            "mask_hint": mask_hint(self.data.masks[index], len(self.data.classes)),
            "image_hint": image_hint(self.data.images[index]),
        }

    def conditioning(self, batch: Batch) -> Conditioning:
        """The texts of a batch, where its latents are."""
        return Conditioning.cat([self.texts[prompt] for prompt in batch["prompts"]]).to(batch["z0"].device)

    def to(self, device: Any) -> None:
        """The U-Net alone: latents and texts are encoded, so that the encoders would only take memory."""
        self.foundation.unet.to(device)
        for module in self._encoders:
            module.to("cpu")

    @property
    def _encoders(self) -> list[nn.Module]:
        return [self.foundation.vae, *self.foundation.text_encoders]

    def paint(self, shown: slice, prompts: Sequence[str], seeds: Sequence[int]) -> NDArray[np.uint8]:
        """Images for training pairs by the networks as they are, (B, H, W, 3) uint8."""
        raise NotImplementedError

    def preview(self, step: int, folder: Path) -> None:
        """Masks, samples for them, and the real images, one column each."""
        from morphogen.foundation.images import save_grid, to_signed

        shown = slice(0, 8)
        masks, classes = self.data.masks[shown], len(self.data.classes)
        prompts = [captions[0] for captions in self.data.bank.captions[shown]]
        for module in self._encoders:
            module.to(self.foundation.device)
        made = self.paint(shown, prompts, list(range(len(masks))))
        self.to(self.foundation.device)
        rows = [
            mask_hint(masks, classes) * 2 - 1,
            to_signed(made.transpose(0, 3, 1, 2)),
            to_signed(self.data.images[shown]),
        ]
        save_grid(torch.cat(rows), folder / f"step-{step:06d}.png", columns=len(masks))

    def validate(self, step: int) -> Mapping[str, float]:
        return {}
