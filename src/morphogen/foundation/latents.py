"""A bank of latents and captions: images are encoded once, not at every step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from morphogen.data.prompts import Grammar, sample_caption, tokens
from morphogen.foundation.cache import cached
from morphogen.foundation.conditioning import Conditioning
from morphogen.foundation.images import make_phantom, to_signed, turned
from morphogen.foundation.model import Foundation
from morphogen.progress import track
from morphogen.training.rng import numpy_rng
from morphogen.training.task import Draw

CAPTIONS = 4
"""Captions kept per image; a step draws one of them."""
_PLACES = frozenset({"left", "right", "upper", "lower", "top", "bottom"})
"""Words of a given caption that a turned image would make untrue."""


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


def names_place(caption: str | None) -> bool:
    """Whether a given caption says where something is in its image, so that the image cannot be turned."""
    return caption is not None and not _PLACES.isdisjoint(tokens(caption))


def symmetries(item: Item, which: Sequence[int]) -> list[Item]:
    """The item turned and mirrored (numbers of `turned`).

    A given caption is kept; where it names a place the item is as well, as often, so that all items count alike. Other
    captions follow the new geometry.
    """
    return [
        Item(
            turned(item.image, k),
            None if item.mask is None else turned(item.mask, k),
            item.grammar, item.label, item.caption,
        )
        for k in (0 if names_place(item.caption) else turn for turn in which)
    ]  # fmt: skip


def build_bank(foundation: Foundation, items: Sequence[Item], cache: Path | None = None) -> LatentBank:
    """Encode `items`, or read their latents from the folder `cache` where they have been encoded before."""
    captions = [item.captions(seed) for seed, item in enumerate(items)]
    foundation.check_prompts([text for texts in captions for text in texts])
    return LatentBank(*posteriors(foundation, np.stack([item.image for item in items]), cache), captions)


def posteriors(foundation: Foundation, images: NDArray[np.uint8], cache: Path | None = None) -> tuple[Tensor, Tensor]:
    """Means and deviations (N, C, h, w) of the scaled latents of images (N, 3, R, R), on the CPU."""
    scale, shift = foundation.vae.config.scaling_factor, float(foundation.vae.config.get("shift_factor") or 0.0)
    content = (f"latents {scale} {shift}", foundation.vae, images)
    made = cached(cache, content, lambda: _encode(foundation, images, scale, shift))
    return made["mean"], made["std"]


@torch.no_grad()
def _encode(foundation: Foundation, images: NDArray[np.uint8], scale: float, shift: float) -> dict[str, Tensor]:
    means, stds = [], []
    rows = max(1, 64 * 64**2 // images[0, 0].size)  # of 384 px, what fits beside the networks
    for start in track(range(0, len(images), rows), "encoding images"):
        x = to_signed(images[start : start + rows]).to(foundation.device)
        posterior = foundation.vae.encode(x).latent_dist
        means.append(((posterior.mean - shift) * scale).cpu())
        stds.append((posterior.std * scale).cpu())
    return {"mean": torch.cat(means), "std": torch.cat(stds)}


def encode_texts(
    foundation: Foundation, texts: Sequence[str], size: int, cache: Path | None = None
) -> dict[str, Conditioning]:
    """Every text's conditioning for images of `size` px, encoded once; on the CPU, one row each."""
    distinct = sorted(set(texts))

    def make() -> dict[str, Tensor]:
        parts = [foundation.conditioning(distinct[k : k + 64], size).to("cpu") for k in range(0, len(distinct), 64)]
        return {name: value for name, value in vars(Conditioning.cat(parts)).items() if value is not None}

    tokens = (ids.cpu().numpy() for ids in foundation.tokens(distinct))
    made = Conditioning(**cached(cache, ("texts", str(size), *foundation.text_encoders, *tokens), make))
    return {text: made.rows(slice(k, k + 1)) for k, text in enumerate(distinct)}
