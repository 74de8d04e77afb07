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
from morphogen.generators.siamese.artefact import load as load_artefact
from morphogen.generators.siamese.config import ControlNetConfig, SiameseConfig, siamese_config
from morphogen.generators.siamese.control import HintedControlNet
from morphogen.generators.siamese.memory import fitted
from morphogen.generators.siamese.sampling import sample_images
from morphogen.generators.siamese.task import SiameseTask, TrainingSet
from morphogen.sampling.jobs import Job, Pair
from morphogen.training.loop import claim, fit, identity
from morphogen.training.processes import processes
from morphogen.training.rng import seed_of
from morphogen.training.task import LoopConfig

CONFIG = SiameseConfig
preset_config = siamese_config
SAMPLING = ("solver", "sampling_steps", "guidance")
"""Options that are for sampling alone: one trained generator serves all their values."""


def check(data: Dataset, config: SiameseConfig) -> Foundation:
    """Refuse what training would refuse, before anything is written; returns the foundation, which it has to load.

    Raises:
        InputError: There are no masks, there is no such foundation or hint path, it does not make images from text
            alone, the resolution does not fit, the device has too little memory, or a prompt holds an unknown word.
    """
    annotated = data.annotated
    if not len(annotated):
        raise InputError(f"{data.root}: has no mask to learn from; add masks/ with the stems of images/")
    foundation = Foundation.load(config.foundation, _device())
    foundation.refuse_other_inputs()
    fitted(foundation, config, foundation.side(config.resolution))
    start(foundation, config)
    if config.prompt is not None:
        foundation.check_prompts([config.prompt])
        return foundation
    for record in annotated:
        try:
            foundation.check_prompts([record.caption] if record.caption else [])
        except InputError as error:
            raise InputError(f"{data.root}: the caption of {record.id}: {error}") from None
    return foundation


def train(data: Dataset, config: SiameseConfig, out: Path) -> Path:
    """Train on the annotated records of `data`; called again, continue. Returns `out`.

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
    resolution = foundation.side(config.resolution)
    fit_here = fitted(foundation, config, resolution, out)
    claim(out, claimed)
    fit_here.announce(out)
    foundation, config = _adapted(foundation, data, config, out), fit_here.config
    torch.manual_seed(seed_of(config.seed, "siamese"))
    controlnet = start(foundation, config)
    training = _training_set(foundation, Pairs(annotated, resolution), config, cache_of(out))
    task = SiameseTask(foundation, controlnet, training, config, cache_of(out))
    fit(task, _loop(config), out, settings, config.method)
    forget(out)
    return out


def _loop(config: SiameseConfig) -> LoopConfig:
    """Of the training loop; what is still open (`fitted`) is no part of a run's identity."""
    return LoopConfig(
        max_train_steps=config.max_train_steps, train_batch_size=config.train_batch_size,
        gradient_accumulation_steps=config.gradient_accumulation_steps or 1, mixed_precision=config.mixed_precision,
        ema_decay=config.ema_decay, seed=config.seed, checkpointing_steps=config.checkpointing_steps,
        validation_steps=config.validation_steps, max_grad_norm=config.max_grad_norm,
        optimizer="adamw" if config.optimizer == "auto" else config.optimizer,
    )  # fmt: skip


def _device() -> torch.device:
    """Where this process trains: under a launcher every process has a device of its own."""
    return processes().device


def _adapted(foundation: Foundation, data: Dataset, config: SiameseConfig, out: Path) -> Foundation:
    """The foundation, fine-tuned on the images of `data` where that is asked for or pays."""
    adaptation = AdaptConfig(
        foundation=config.foundation, prompt=config.prompt, symmetries=config.symmetries, seed=config.seed,
        mixed_precision=config.mixed_precision,
    )  # fmt: skip
    return adapted(foundation, data, adaptation, config.adapt_steps, out / "adapted")


def start(foundation: Foundation, config: SiameseConfig) -> HintedControlNet:
    """The ControlNet that training starts from: zero, as published, or the foundation's hint path made on phantoms.

    Raises:
        InputError: `init` asks for a hint path that the foundation lacks.
    """
    shipped = foundation.hint_folder
    if shipped is not None and HintedControlNet.load_config(shipped)["hint"] != config.hint:
        shipped = None
    if config.init == "pretrained" and shipped is None:
        raise InputError(f"--init pretrained: {foundation.source} ships no {config.hint} hint path; use --init zero")
    if shipped is not None and config.init != "zero":
        made = HintedControlNet.from_pretrained(shipped, use_safetensors=True, torch_dtype=torch.float32)
        return made.to(foundation.device)
    return HintedControlNet.for_foundation(foundation, config.hint, config.hint_width)


def _training_set(
    foundation: Foundation, pairs: Pairs, config: SiameseConfig, cache: Path | None = None
) -> TrainingSet:
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


class SiameseSampler:
    """A trained Siamese-Diffusion (or ControlNet): paints images for masks; never reads a real image."""

    needs = frozenset({"masks"})

    def __init__(self, run: Path, device: str | torch.device = "cpu") -> None:
        self.nets, info, self.hash = load_artefact(run / "final", device)
        self.classes = tuple(info["classes"])
        self.prompt: str = info["prompt"]
        kind = ControlNetConfig if info["generator"] == ControlNetConfig.method else SiameseConfig
        self.config = kind(**info["config"])
        self.resolution = self.config.resolution or self.nets.foundation.resolution

    def sample(self, jobs: Sequence[Job]) -> list[Pair]:
        """One image per job, painted for its mask at the generator's resolution.

        Raises:
            InputError: A job has no mask, or its prompt holds an unknown word.
        """
        size = (self.resolution, self.resolution)
        for job in jobs:
            if job.mask is None:
                raise InputError(f"{job.id}: siamese paints masks, and this sample has none; give --masks")
        masks = np.stack([resize_labels(job.mask, size) for job in jobs if job.mask is not None]).astype(np.int64)
        prompts = [self.prompt if job.prompt is None else job.prompt for job in jobs]
        images = sample_images(self.nets, masks, len(self.classes), prompts, [job.seed for job in jobs], self.config)
        origin = {"steps": self.config.sampling_steps, "solver": self.config.solver, "guidance": self.config.guidance}
        return [
            Pair(image, mask, {**origin, "prompt": prompt})
            for image, mask, prompt in zip(images, masks, prompts, strict=True)
        ]

    def with_sampling(self, **changes: object) -> SiameseSampler:
        """Change sampling settings (solver, sampling_steps, guidance)."""
        self.config = replace(self.config, **changes)  # type: ignore[arg-type]
        return self


def load(run: Path, device: str = "cpu") -> SiameseSampler:
    """The sampler of a finished run folder."""
    return SiameseSampler(run, device)
