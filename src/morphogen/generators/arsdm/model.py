"""The generator's face: train on a dataset, load a run, sample jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from morphogen.data.pairs import Pairs
from morphogen.data.records import Dataset
from morphogen.foundation.cache import cache_of, forget
from morphogen.foundation.model import Foundation
from morphogen.generators.arsdm import refiner
from morphogen.generators.arsdm.artefact import load as load_artefact
from morphogen.generators.arsdm.config import ArSDMConfig, arsdm_config
from morphogen.generators.arsdm.sampling import sample_images
from morphogen.generators.arsdm.task import ArSDMTask
from morphogen.generators.arsdm.trained import made_networks
from morphogen.generators.mask_sampling import SAMPLING, MaskSampler
from morphogen.generators.mask_training import adapted_foundation, check_texts, load_foundation, training_set
from morphogen.sampling.jobs import Job
from morphogen.training.loop import claim, fit, identity
from morphogen.training.rng import seed_of
from morphogen.training.task import LoopConfig

__all__ = ["CONFIG", "SAMPLING", "check", "load", "preset_config", "segmenter_of_loss", "train"]

CONFIG = ArSDMConfig
preset_config = arsdm_config
segmenter_of_loss = refiner.words


def check(data: Dataset, config: ArSDMConfig) -> Foundation:
    """Refuse what training would refuse, before anything is written; returns the foundation, which it has to load.

    Raises:
        InputError: There are no masks, there is no such foundation or segmenter, it does not make images from text
            alone, the resolution does not fit, or a prompt holds an unknown word.
    """
    _loop(config)  # refuses what it cannot do
    foundation = load_foundation(data, config)
    refiner.check(config, len(data.classes), foundation.side(config.resolution))
    check_texts(data, config, foundation)
    return foundation


def train(data: Dataset, config: ArSDMConfig, out: Path) -> Path:
    """Train on the annotated records of `data`; called again, continue. Returns `out`.

    First the foundation is adapted, then the segmenter is trained (``out/segmenter``), then the generator.

    Raises:
        InputError: As `check`, or `out` holds another run.
    """
    annotated = data.annotated
    settings = {"generator": config.method, "records": list(annotated.ids), **asdict(config)}
    claimed = {**settings, "training": identity(_loop(config))}
    if (out / "final").exists():
        claim(out, claimed)  # refuses another run's folder
        return out
    foundation = check(data, config)
    claim(out, claimed)
    foundation = adapted_foundation(foundation, data, config, out)
    pairs = Pairs(annotated, foundation.side(config.resolution))
    segmenter = refiner.trained(pairs, config, out)
    torch.manual_seed(seed_of(config.seed, "arsdm"))
    nets = made_networks(foundation, len(data.classes), config.spade_width)
    training = training_set(foundation, pairs, config, cache_of(out))
    task = ArSDMTask(nets, segmenter, training, config, cache_of(out))
    fit(task, _loop(config), out, settings, config.method)
    forget(out)
    return out


def _loop(config: ArSDMConfig) -> LoopConfig:
    return LoopConfig(
        max_train_steps=config.max_train_steps, train_batch_size=config.train_batch_size,
        gradient_accumulation_steps=config.gradient_accumulation_steps, mixed_precision=config.mixed_precision,
        ema_decay=config.ema_decay, seed=config.seed, checkpointing_steps=config.checkpointing_steps,
        validation_steps=config.validation_steps, max_grad_norm=config.max_grad_norm, optimizer=config.optimizer,
    )  # fmt: skip


class ArSDMSampler(MaskSampler):
    """A trained ArSDM: paints images for masks; never reads a real image."""

    def __init__(self, run: Path, device: str | torch.device = "cpu") -> None:
        self.nets, info, hash = load_artefact(run / "final", device)
        super().__init__(self.nets.foundation, ArSDMConfig(**info["config"]), info, hash)

    def paint(
        self, jobs: Sequence[Job], masks: NDArray[np.int64], prompts: Sequence[str]
    ) -> tuple[NDArray[np.uint8], Sequence[dict[str, Any]]]:
        images = sample_images(self.nets, masks, prompts, [job.seed for job in jobs], self.config)
        return images, [{} for _ in jobs]


def load(run: Path, device: str = "cpu") -> ArSDMSampler:
    """The sampler of a finished run folder."""
    return ArSDMSampler(run, device)
