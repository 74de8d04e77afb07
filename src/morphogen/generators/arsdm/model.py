"""The generator's face: train on a dataset, load a run, sample jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from morphogen.data.masks import resize_labels
from morphogen.data.pairs import Pairs
from morphogen.data.prompts import Grammar
from morphogen.data.records import Dataset
from morphogen.errors import InputError
from morphogen.foundation.adapt import AdaptConfig, adapted
from morphogen.foundation.cache import cache_of, forget
from morphogen.foundation.fit_prompt import prompts_for
from morphogen.foundation.latents import Item, build_bank, symmetries
from morphogen.foundation.model import Foundation
from morphogen.generators.arsdm import refiner
from morphogen.generators.arsdm.artefact import load as load_artefact
from morphogen.generators.arsdm.config import ArSDMConfig, arsdm_config
from morphogen.generators.arsdm.sampling import sample_images
from morphogen.generators.arsdm.task import ArSDMTask
from morphogen.generators.arsdm.trained import made_networks
from morphogen.generators.siamese.task import TrainingSet
from morphogen.sampling.jobs import Job, Pair
from morphogen.training.loop import claim, fit, identity
from morphogen.training.processes import processes
from morphogen.training.rng import seed_of
from morphogen.training.task import LoopConfig

CONFIG = ArSDMConfig
preset_config = arsdm_config
SAMPLING = ("solver", "sampling_steps", "guidance")
"""Options that are for sampling alone: one trained generator serves all their values."""


def check(data: Dataset, config: ArSDMConfig) -> Foundation:
    """Refuse what training would refuse, before anything is written; returns the foundation, which it has to load.

    Raises:
        InputError: There are no masks, there is no such foundation or segmenter, it does not make images from text
            alone, the resolution does not fit, or a prompt holds an unknown word.
    """
    annotated = data.annotated
    if not len(annotated):
        raise InputError(f"{data.root}: has no mask to learn from; add masks/ with the stems of images/")
    _loop(config)  # refuses what it cannot do
    foundation = Foundation.load(config.foundation, processes().device)
    foundation.refuse_other_inputs()
    refiner.check(config, len(data.classes), foundation.side(config.resolution))
    if config.prompt is not None:
        foundation.check_prompts([config.prompt])
        return foundation
    for record in annotated:
        try:
            foundation.check_prompts([record.caption] if record.caption else [])
        except InputError as error:
            raise InputError(f"{data.root}: the caption of {record.id}: {error}") from None
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
    foundation = _adapted(foundation, data, config, out)
    pairs = Pairs(annotated, foundation.side(config.resolution))
    segmenter = refiner.trained(pairs, config, out)
    torch.manual_seed(seed_of(config.seed, "arsdm"))
    nets = made_networks(foundation, len(data.classes), config.spade_width)
    training = _training_set(foundation, pairs, config, cache_of(out))
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


def _adapted(foundation: Foundation, data: Dataset, config: ArSDMConfig, out: Path) -> Foundation:
    """The foundation, fine-tuned on the images of `data` where that is asked for or pays."""
    adaptation = AdaptConfig(
        foundation=config.foundation, prompt=config.prompt, symmetries=config.symmetries, seed=config.seed,
        mixed_precision=config.mixed_precision,
    )  # fmt: skip
    return adapted(foundation, data, adaptation, config.adapt_steps, out / "adapted")


def _training_set(foundation: Foundation, pairs: Pairs, config: ArSDMConfig, cache: Path) -> TrainingSet:
    grammar, known = Grammar.load("generic"), prompts_for(foundation, pairs, config.prompt)
    items = [
        turned
        for turn in (range(8) if config.symmetries else (0,))
        for i, text in enumerate(known)
        for turned in symmetries(Item(pairs.image(i), pairs.mask(i), grammar, caption=text), (turn,))
    ]
    masks = np.stack([item.mask for item in items if item.mask is not None])
    bank = build_bank(foundation, items, cache)
    return TrainingSet(np.stack([item.image for item in items]), masks, bank, pairs.dataset.classes)


class ArSDMSampler:
    """A trained ArSDM: paints images for masks; never reads a real image."""

    needs = frozenset({"masks"})

    def __init__(self, run: Path, device: str | torch.device = "cpu") -> None:
        self.nets, info, self.hash = load_artefact(run / "final", device)
        self.classes = tuple(info["classes"])
        self.prompt: str = info["prompt"]
        self.config = ArSDMConfig(**info["config"])
        self.resolution = self.config.resolution or self.nets.foundation.resolution

    def sample(self, jobs: Sequence[Job]) -> list[Pair]:
        """One image per job, painted for its mask at the generator's resolution.

        Raises:
            InputError: A job has no mask, or its prompt holds an unknown word.
        """
        size = (self.resolution, self.resolution)
        for job in jobs:
            if job.mask is None:
                raise InputError(f"{job.id}: arsdm paints masks, and this sample has none; give --masks")
        masks = np.stack([resize_labels(job.mask, size) for job in jobs if job.mask is not None]).astype(np.int64)
        prompts = [self.prompt if job.prompt is None else job.prompt for job in jobs]
        images = sample_images(self.nets, masks, prompts, [job.seed for job in jobs], self.config)
        origin = {"steps": self.config.sampling_steps, "solver": self.config.solver, "guidance": self.config.guidance}
        return [
            Pair(image, mask, {**origin, "prompt": prompt})
            for image, mask, prompt in zip(images, masks, prompts, strict=True)
        ]

    def with_sampling(self, **changes: object) -> ArSDMSampler:
        """Change sampling settings (solver, sampling_steps, guidance)."""
        self.config = replace(self.config, **changes)  # type: ignore[arg-type]
        return self


def load(run: Path, device: str = "cpu") -> ArSDMSampler:
    """The sampler of a finished run folder."""
    return ArSDMSampler(run, device)
