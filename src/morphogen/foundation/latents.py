"""A bank of latents and captions: images are encoded once, not at every step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from morphogen.data.prompts import Grammar, sample_caption
from morphogen.foundation.images import make_phantom, to_signed, turned
from morphogen.foundation.model import Foundation
from morphogen.progress import track
from morphogen.training.rng import numpy_rng
from morphogen.training.task import Draw

CAPTIONS = 4
"""Captions kept per image; a step draws one of them."""


@dataclass(frozen=True)
class Item:
    """An image (3, R, R) uint8, its label map (R, R) or None, and what is known of it."""

    image: np.ndarray
    mask: np.ndarray | None
    grammar: Grammar
    label: str | None = None
    caption: str | None = None

    def captions(self, seed: int) -> list[str]:
        """The given caption, or `CAPTIONS` sentences that geometry and pixels decide."""
        if self.caption is not None:
            return [self.caption]
        picture = self.image.transpose(1, 2, 0)
        rngs = (numpy_rng(seed, "caption", k) for k in range(CAPTIONS))
        return [sample_caption(self.grammar, picture, self.mask, self.label, rng=rng) for rng in rngs]


class LatentBank:
    """Posterior means and deviations (N, C, h, w), and captions."""

    def __init__(self, mean: Tensor, std: Tensor, captions: list[list[str]]) -> None:
        self.mean, self.std, self.captions = mean, std, captions

    def __len__(self) -> int:
        return len(self.captions)

    def rows(self, draws: Sequence[Draw]) -> tuple[Tensor, Tensor, list[str]]:
        """Means and deviations (B, C, h, w) float32 of scaled latents, and one caption each."""
        index = torch.tensor([draw.index for draw in draws])
        prompts = []
        for draw in draws:
            options = self.captions[draw.index]
            prompts.append(options[int(numpy_rng(draw.seed, "which").integers(len(options)))])
        return self.mean[index], self.std[index], prompts


def phantom_item(seed: int, resolution: int, grammars: dict[str, Grammar]) -> Item:
    """A phantom with its grammar (`mucosa` -> polyp, `skin` -> skin)."""
    image, mask, kind = make_phantom(seed, resolution)
    return Item(image, mask, grammars["polyp" if kind == "mucosa" else "skin"])


def symmetries(item: Item, which: Sequence[int]) -> list[Item]:
    """The item turned and mirrored (numbers of `turned`); a given caption is kept, others follow the new geometry."""
    return [
        Item(
            turned(item.image, k),
            None if item.mask is None else turned(item.mask, k),
            item.grammar, item.label, item.caption,
        )
        for k in which
    ]  # fmt: skip


@torch.no_grad()
def build_bank(foundation: Foundation, items: Sequence[Item], cache: Path | None = None) -> LatentBank:
    """Encode `items`; with `cache`, read that file where it exists, else write it (it can be deleted at any time)."""
    captions = [item.captions(seed) for seed, item in enumerate(items)]
    foundation.check_prompts([text for texts in captions for text in texts])
    if cache is not None and cache.exists():
        stored = load_file(cache)
        return LatentBank(stored["mean"], stored["std"], captions)
    means, stds = [], []
    scale, shift = foundation.vae.config.scaling_factor, float(foundation.vae.config.get("shift_factor") or 0.0)
    for start in track(range(0, len(items), 64), "encoding images"):
        x = to_signed(np.stack([item.image for item in items[start : start + 64]])).to(foundation.device)
        posterior = foundation.vae.encode(x).latent_dist
        means.append(((posterior.mean - shift) * scale).cpu())
        stds.append((posterior.std * scale).cpu())
    bank = LatentBank(torch.cat(means), torch.cat(stds), captions)
    if cache is not None:
        beside = cache.with_name(f".{cache.name}.tmp")  # a killed process must not leave half a bank under its name
        save_file({"mean": bank.mean, "std": bank.std}, beside)
        beside.replace(cache)
    return bank
