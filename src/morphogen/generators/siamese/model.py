"""The generator's face: train on a dataset, load a run, sample jobs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from morphogen.data.pairs import Pairs
from morphogen.data.records import Dataset
from morphogen.errors import InputError
from morphogen.foundation.cache import cache_of, forget
from morphogen.foundation.model import Foundation
from morphogen.generators.mask_sampling import SAMPLING, MaskSampler
from morphogen.generators.mask_training import adapted_foundation, check_texts, load_foundation
from morphogen.generators.mask_training import training_set as _training_set
from morphogen.generators.siamese.artefact import load as load_artefact
from morphogen.generators.siamese.config import ControlNetConfig, SiameseConfig, siamese_config
from morphogen.generators.siamese.control import HintedControlNet
from morphogen.generators.siamese.memory import fitted
from morphogen.generators.siamese.sampling import sample_images
from morphogen.generators.siamese.sources import checked_image, digests, refuse_transform, source_images
from morphogen.generators.siamese.task import SiameseTask
from morphogen.sampling.jobs import Job
from morphogen.training.loop import claim, fit, identity
from morphogen.training.rng import seed_of
from morphogen.training.task import LoopConfig

__all__ = ["CONFIG", "SAMPLING", "check", "load", "preset_config", "refuse_mask_transform", "train"]

CONFIG = SiameseConfig
preset_config = siamese_config


def refuse_mask_transform(config: SiameseConfig, name: str) -> None:
    """Refuse a mask transform that sampling could not follow.

    Raises:
        InputError: The networks read the image of a mask, too, and the image cannot be transformed so.
    """
    if config.both_hints:
        refuse_transform(name)


def check(data: Dataset, config: SiameseConfig) -> Foundation:
    """Refuse what training would refuse, before anything is written; returns the foundation, which it has to load.

    Raises:
        InputError: There are no masks, there is no such foundation or hint path, it does not make images from text
            alone, the resolution does not fit, the device has too little memory, or a prompt holds an unknown word.
    """
    foundation = load_foundation(data, config)
    fitted(foundation, config, foundation.side(config.resolution))
    start(foundation, config)
    check_texts(data, config, foundation)
    return foundation


def train(data: Dataset, config: SiameseConfig, out: Path) -> Path:
    """Train on the annotated records of `data`; called again, continue. Returns `out`.

    Raises:
        InputError: As `check`, or `out` holds another run.
    """
    annotated = data.annotated
    settings = {"generator": config.method, "records": list(annotated.ids), **config.stated()}
    claimed = {**settings, "training": identity(_loop(config))}
    if (out / "final").exists():
        claim(out, claimed)  # refuses another run's folder
        return out
    foundation = check(data, config)
    resolution = foundation.side(config.resolution)
    fit_here = fitted(foundation, config, resolution, out)
    claim(out, claimed)
    fit_here.announce(out)
    foundation, config = adapted_foundation(foundation, data, config, out), fit_here.config
    torch.manual_seed(seed_of(config.seed, "siamese"))
    controlnet = start(foundation, config)
    pairs = Pairs(annotated, resolution)
    training = _training_set(foundation, pairs, config, cache_of(out))
    sources = digests(pairs) if config.both_hints else []
    task = SiameseTask(foundation, controlnet, training, config, cache_of(out), sources)
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


class SiameseSampler(MaskSampler):
    """A trained Siamese-Diffusion or ControlNet: paints images for masks.

    It reads no real image, unless it is a ControlNet for mask and image: those read the image of each job's source,
    which must be one that they were trained on.
    """

    def __init__(self, run: Path, device: str | torch.device = "cpu") -> None:
        self.nets, info, hash = load_artefact(run / "final", device)
        kind = ControlNetConfig if info["generator"] == ControlNetConfig.method else SiameseConfig
        super().__init__(self.nets.foundation, kind(**info["config"]), info, hash)
        self.sources = frozenset(info.get("sources", ()))

    def check_masks(self, masks: Dataset, transform: str) -> None:
        """Refuse masks whose images are wanted and not to be had.

        Raises:
            InputError: The transform cannot be followed, or a mask has no image that the run was trained on.
        """
        refuse_mask_transform(self.config, transform)
        for record in masks.annotated if self.config.both_hints else ():
            checked_image(record, record.id, self.resolution, self.sources)

    def paint(
        self, jobs: Sequence[Job], masks: NDArray[np.int64], prompts: Sequence[str]
    ) -> tuple[NDArray[np.uint8], Sequence[dict[str, Any]]]:
        images: NDArray[np.uint8] | None = None
        more: list[dict[str, Any]] = [{} for _ in jobs]
        if self.config.both_hints:
            images = source_images(jobs, self.resolution, self.sources)
            more = [{"hint_input": "mask-image", "near_copy_of": job.source.id} for job in jobs if job.source]
        seeds = [job.seed for job in jobs]
        return sample_images(self.nets, masks, len(self.classes), prompts, seeds, self.config, images), more


def load(run: Path, device: str = "cpu") -> SiameseSampler:
    """The sampler of a finished run folder."""
    return SiameseSampler(run, device)
