"""Pre-train the hint path on phantoms, whose masks are free and exact: no real annotation is spent on it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from morphogen.data.prompts import Grammar
from morphogen.foundation.latents import build_bank, phantom_item
from morphogen.foundation.model import HINT, Foundation, forget_source
from morphogen.foundation.quiet import quiet
from morphogen.generators.siamese.config import SiameseConfig
from morphogen.generators.siamese.control import HintedControlNet
from morphogen.generators.siamese.task import SiameseTask, TrainingSet
from morphogen.training.checkpoint import write_folder
from morphogen.training.loop import fit
from morphogen.training.processes import processes
from morphogen.training.rng import seed_of
from morphogen.training.task import LoopConfig

FIRST_SEED = 10_000_000
"""Phantoms of the hint path lie apart from those that the foundation saw."""


def pretrain_hint(
    folder: Path, out: Path, steps: int, phantoms: int = 4000, seed: int = 0, hint: str = "dense"
) -> Path:
    """Train a hint encoder and its ControlNet on phantoms, decoder locked, into ``folder/hint``; resumes.

    Args:
        folder: A foundation's folder.
        out: Run folder.
        steps: Optimiser steps of 16 phantoms.
        phantoms: How many different ones.
        seed: Of everything random.
        hint: ``dense`` or ``plain``.
    """
    if (folder / HINT).exists():
        return folder / HINT
    foundation = Foundation.load(folder, processes().device)
    config = SiameseConfig(
        foundation=str(folder), hint=hint, init="zero", tuning="locked", image_branch=False, w_c=0.0,
        online_augmentation=False, prompt_drop=0.1, max_train_steps=steps, lr=3e-4, seed=seed,
    )  # fmt: skip
    torch.manual_seed(seed_of(seed, "hint"))
    controlnet = HintedControlNet.for_foundation(foundation, config.hint, config.hint_width)
    grammars = {name: Grammar.load(name) for name in ("polyp", "skin")}
    items = [phantom_item(FIRST_SEED + k, foundation.resolution, grammars) for k in range(phantoms)]
    data = TrainingSet(
        np.stack([item.image for item in items]), np.stack([item.mask for item in items if item.mask is not None]),
        build_bank(foundation, items), ("background", "lesion"),
    )  # fmt: skip
    loop = LoopConfig(
        max_train_steps=steps,
        train_batch_size=16,
        seed=seed,
        ema_decay=0.99,
        checkpointing_steps=200,
        validation_steps=500,
    )
    settings = {"stage": "hint", "phantoms": phantoms, **replace(config, foundation="this").stated()}
    trained = fit(SiameseTask(foundation, controlnet, data, config), loop, out, settings, "hint path on phantoms")

    @quiet()
    def half(target: Path) -> None:
        made = HintedControlNet.from_pretrained(trained / "controlnet", use_safetensors=True)
        made.half().save_pretrained(target, max_shard_size="10GB")
        forget_source(target)
        for extra in target.glob("*.md"):
            extra.unlink()

    with processes().main_process_first():
        if not (folder / HINT).exists():
            write_folder(folder / HINT, half)
            shutil.rmtree(trained.parent / "checkpoints", ignore_errors=True)
    return folder / HINT
