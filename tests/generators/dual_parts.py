"""What the tests of the dual generator share: small labelled skin, a small foundation, and short trainings."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from morphogen.data.pairs import Pairs
from morphogen.data.phantoms import phantom_dataset
from morphogen.data.prompts import Grammar
from morphogen.data.records import Dataset
from morphogen.foundation.model import Foundation
from morphogen.generators.dual.config import DualConfig
from morphogen.generators.dual.layout import widened
from morphogen.generators.dual.losses import Networks
from morphogen.generators.dual.model import bare_segmenter, training_set
from morphogen.generators.dual.task import DualTask
from morphogen.segmenters.latent.mask_latents import MaskLatents

CLASSES = ("melanoma", "nevus", "nevus", "seborrheic keratosis", "nevus", "melanoma")


def labelled(folder: Path, bare: int = 0) -> Dataset:
    """Six phantoms with classes and without given captions; the last `bare` of them without a mask."""
    data = phantom_dataset(folder, "skin", len(CLASSES), 32, seed=1)
    records = [replace(r, label=label, caption=None) for r, label in zip(data, CLASSES, strict=True)]
    kept = len(records) - bare
    return replace(data, records=(*records[:kept], *(replace(r, mask=None) for r in records[kept:])))


def quick(foundation: Path | str, **changes: object) -> DualConfig:
    """Settings that train in seconds."""
    values: dict[str, Any] = {
        "max_train_steps": 3, "train_batch_size": 4, "sampling_steps": 2, "align_after": 1, "segmenter_steps": 2,
        "lr_warmup_steps": 0, **changes,
    }  # fmt: skip
    return DualConfig(foundation=str(foundation), **values)


def parts(foundation: Foundation, config: DualConfig) -> Networks:
    """The networks of the loss, none of them trained, the U-Net a copy."""
    torch.manual_seed(0)
    foundation = replace(foundation, unet=copy.deepcopy(foundation.unet))
    wide = widened(foundation) if config.layout == "joint" else foundation
    masks = MaskLatents(2, foundation.vae)
    masks.scale.fill_(1.3)
    return Networks(wide, masks.eval(), bare_segmenter().requires_grad_(False).eval())


def task_of(foundation: Foundation, data: Dataset, config: DualConfig) -> DualTask:
    """The task on untrained networks."""
    nets = parts(foundation, config)
    training = training_set(foundation, nets.masks, Pairs(data, 32), config, Grammar.load("skin"))
    return DualTask(nets, training, config)
