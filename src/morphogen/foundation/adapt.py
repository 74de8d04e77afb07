"""Bring a foundation closer to a study's own images before a generator trains on them; masks are not needed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from morphogen.data.pairs import Pairs
from morphogen.data.prompts import Grammar
from morphogen.data.records import Dataset
from morphogen.foundation.denoiser_task import DenoiserTask
from morphogen.foundation.fit_prompt import prompts_for
from morphogen.foundation.latents import Item, build_bank, symmetries
from morphogen.foundation.model import Foundation
from morphogen.foundation.pretrain import phashes
from morphogen.training.loop import fit
from morphogen.training.task import LoopConfig


@dataclass(frozen=True, kw_only=True)
class AdaptConfig:
    """How to adapt a foundation."""

    foundation: str = "tiny"
    """What to adapt."""
    prompt: str | None = None
    """One prompt for all images; without it each record's caption, else the one that the foundation fits best."""
    max_train_steps: int = 300
    """Optimiser steps."""
    train_batch_size: int = 16
    """Rows per step."""
    lr: float = 2e-4
    """Peak learning rate (cosine)."""
    symmetries: bool = True
    """Train on the eight turned and mirrored versions of each image."""
    mixed_precision: str = "no"
    """no, bf16 or fp16."""
    seed: int = 0
    """Of everything random."""


def adapt(data: Dataset, config: AdaptConfig, out: Path) -> Path:
    """Fine-tune the denoiser on the images of `data`; called again, continue.

    The autoencoder stays as it is, so latents remain comparable. The card gains the ids and hashes of `data`.

    Returns:
        The adapted foundation's folder.
    """
    foundation = Foundation.load(config.foundation, "cuda" if torch.cuda.is_available() else "cpu")
    pairs = Pairs(data, foundation.resolution)
    known = prompts_for(foundation, pairs, config.prompt)
    grammar = Grammar.load("generic")
    turns = range(8) if config.symmetries else (0,)
    items = [
        turned
        for i, text in enumerate(known)
        for turned in symmetries(Item(pairs.image(i), None, grammar, caption=text), turns)
    ]
    note_training(foundation.card, data)
    loop = LoopConfig(
        max_train_steps=config.max_train_steps, train_batch_size=config.train_batch_size, seed=config.seed,
        ema_decay=0.99, mixed_precision=config.mixed_precision, checkpointing_steps=100,
    )  # fmt: skip
    task = DenoiserTask(foundation, build_bank(foundation, items), config.lr, preview_prompts=known[:1])
    settings = {"records": list(data.ids), **asdict(config)}
    return fit(task, loop, out, settings, "adapting the foundation")


def note_training(card: dict[str, Any], data: Dataset) -> None:
    """Add the ids and hashes of `data` to a card, beside those that it lists of a set of that name already."""
    known = card.setdefault("sets", {}).setdefault(data.name, {})
    for key, values in (("training_ids", data.ids), ("phashes", phashes(data))):
        known[key] = list(dict.fromkeys([*known.get(key, ()), *values]))
