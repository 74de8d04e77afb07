"""The generator's face: train on a dataset, load a run."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from morphogen.data.pairs import Pairs
from morphogen.data.prompts import Grammar
from morphogen.data.records import Dataset
from morphogen.errors import InputError
from morphogen.foundation.adapt import AdaptConfig, adapted
from morphogen.foundation.cache import cache_of, cached, forget
from morphogen.foundation.fit_prompt import pick_grammar
from morphogen.foundation.images import turned
from morphogen.foundation.known_words import check_grammar
from morphogen.foundation.latents import posteriors
from morphogen.foundation.model import Foundation
from morphogen.generators.dual import artefact
from morphogen.generators.dual.config import SAMPLING, SEGMENTER, DualConfig, dual_config
from morphogen.generators.dual.layout import refuse_other_width, widened
from morphogen.generators.dual.losses import Networks
from morphogen.generators.dual.sampler import DualSampler
from morphogen.generators.dual.task import DualTask, TrainingSet
from morphogen.generators.dual.words import captions, grammar_for, sentences
from morphogen.progress import say
from morphogen.segmenters import build
from morphogen.segmenters.latent.mask_autoencoder import Masks, hold_masks
from morphogen.segmenters.latent.mask_latents import MaskLatents
from morphogen.segmenters.predictor import load_segmenter
from morphogen.segmenters.task import SegmenterConfig, train_segmenter
from morphogen.training.loop import claim, fit, identity
from morphogen.training.processes import processes
from morphogen.training.rng import seed_of
from morphogen.training.task import LoopConfig

__all__ = ["CONFIG", "SAMPLING", "check", "load", "preset_config", "segmenter_of_loss", "train"]

CONFIG = DualConfig
preset_config = dual_config


def check(data: Dataset, config: DualConfig) -> Foundation:
    """Refuse what training would refuse, before anything is written; returns the foundation, which it has to load.

    Args:
        data: Images, most of them with masks. Those without train the image half alone.
        config: How.

    Raises:
        InputError: There are no masks, or masks of several classes; all masks of a class of the images are empty; a
            class has no word in the grammar; there is no such foundation, it has latents of another width, or the
            resolution does not fit; there is no such grammar; or a caption is too long or holds an unknown word.
    """
    if not len(data.annotated):
        raise InputError(f"{data.root}: has no mask to learn from; add masks/ with the stems of images/")
    if len(data.classes) != 2:
        named = ", ".join(data.classes[1:])
        raise InputError(f"{data.root}: its masks hold several classes ({named}); dual makes one lesion: join them")
    grammar = grammar_for(data, config.grammar)
    foundation = Foundation.load(config.foundation, processes().device)
    refuse_other_width(foundation)
    _refuse_empty_classes(Pairs(data.annotated, foundation.side(config.resolution)))
    if grammar is not None:
        check_grammar(foundation, grammar)
    for record in data:
        try:
            foundation.check_lengths([record.caption] if record.caption else [])
        except InputError as error:
            raise InputError(f"{data.root}: the caption of {record.id}: {error}") from None
    return foundation


def _refuse_empty_classes(pairs: Pairs) -> None:
    """Refuse a class of which no pair could be asked for later; no mask is read after the first lesion of its class.

    Raises:
        InputError: Names the class; or, where the images have none, the data.
    """
    labels = [record.label for record in pairs.dataset]
    unseen: set[str | None] = {label for label in labels if label is not None} or {None}
    for i, label in enumerate(labels):
        if label in unseen and pairs.mask(i).any():
            unseen.remove(label)
    for label in sorted(unseen, key=str):
        which = "no mask" if label is None else f"no mask of class {label!r}"
        remedy = "check them, or state --mask-values" + ", or leave that class out" * (label is not None)
        raise InputError(f"{pairs.dataset.root}: {which} holds a lesion at {pairs.resolution} px; {remedy}")


def train(data: Dataset, config: DualConfig, out: Path) -> Path:
    """Train on `data`; called again, continue.

    Raises:
        InputError: As `check`, or `out` holds another run.
    """
    settings = {"generator": config.method, "records": list(data.ids), **asdict(config)}
    claimed = {**settings, "training": identity(_loop(config))}
    if (out / "final").exists():
        claim(out, claimed)  # refuses another run's folder
        return out
    foundation = check(data, config)
    claim(out, claimed)
    if bare := len(data) - len(data.annotated):
        say(f"{data.root}: {bare} of {len(data)} images have no mask and train the image half alone")
    fit(_task(foundation, data, config, out), _loop(config), out, settings, config.method)
    forget(out)
    return out


def load(run: Path, device: str = "cpu") -> DualSampler:
    """The sampler of a finished run folder."""
    return DualSampler(artefact.load(run / "final", device))


def _task(foundation: Foundation, data: Dataset, config: DualConfig, out: Path) -> DualTask:
    pairs = Pairs(data, foundation.side(config.resolution))
    grammar = grammar_for(data, config.grammar) or pick_grammar(foundation, Pairs(data, foundation.resolution))
    adaptation = AdaptConfig(
        foundation=config.foundation, symmetries=config.symmetries, seed=config.seed,
        mixed_precision=config.mixed_precision,
    )  # fmt: skip
    fitted = adapted(foundation, data, adaptation, config.adapt_steps, out / "adapted")
    masks = mask_latents(fitted, pairs, config, out)
    segmenter = small_segmenter(pairs, config, out) if config.aligns else None
    torch.manual_seed(seed_of(config.seed, config.method))
    training = training_set(fitted, masks, pairs, config, grammar, cache_of(out))
    _announce(training, out)
    wide = widened(fitted) if config.layout == "joint" else replace(fitted, folder=None)
    return DualTask(Networks(wide, masks, segmenter), training, config, whole=fitted is not foundation)


def _announce(data: TrainingSet, out: Path) -> None:
    counts = Counter(label for label in data.labels if label is not None)
    classes = ", ".join(f"{label} {n}" for label, n in sorted(counts.items())) or "none is known"
    say(f"{out}: words of the grammar {data.grammar.name}; classes: {classes}")


def mask_latents(foundation: Foundation, pairs: Pairs, config: DualConfig, out: Path) -> MaskLatents:
    """A copy of the foundation's autoencoder that holds the masks, its decoder trained where need be (`hold_masks`)."""
    masks = MaskLatents(2, copy.deepcopy(foundation.vae)).to(processes().device).eval()
    hold_masks(masks, Masks([Pairs(pairs.dataset.annotated, pairs.resolution)]), config, out)
    masks.scale.mul_(config.mask_deviation)
    return masks.requires_grad_(False).eval()


def small_segmenter(pairs: Pairs, config: DualConfig, out: Path) -> nn.Module:
    """S: a small U-Net, trained on the generator's own pairs in ``out/segmenter``, frozen."""
    name, architecture = SEGMENTER
    annotated = Pairs(pairs.dataset.annotated, pairs.resolution)
    settings = SegmenterConfig(
        architecture=architecture, max_train_steps=config.segmenter_steps, seed=config.segmenter_seed,
        mixed_precision=config.mixed_precision,
    )  # fmt: skip
    nothing = Pairs(pairs.dataset.select(()), pairs.resolution)
    run = train_segmenter(name, annotated, nothing, settings, out / "segmenter")
    return load_segmenter(run, processes().device).net.requires_grad_(False).eval()


def segmenter_of_loss(config: DualConfig) -> str | None:
    """S as ``name+option=value``; None where nothing is aligned."""
    name, architecture = SEGMENTER
    return "+".join([name, *(f"{k}={v}" for k, v in architecture.items())]) if config.aligns else None


def bare_segmenter() -> nn.Module:
    """The network of `small_segmenter`, untrained."""
    name, architecture = SEGMENTER
    return build(name, 2, architecture, pretrained=False)


def training_set(
    foundation: Foundation,
    masks: MaskLatents,
    pairs: Pairs,
    config: DualConfig,
    grammar: Grammar,
    cache: Path | None = None,
) -> TrainingSet:
    """Latents of images and masks, in all symmetries where asked, and what can be said of every image.

    Args:
        foundation: Encodes the images; refuses words that it does not know.
        masks: Encodes the masks.
        pairs: The images at the resolution of training; not all need a mask.
        config: Symmetries.
        grammar: Says what is in them, where no caption does.
        cache: Where latents are kept.
    """
    said = sentences(pairs, grammar)
    turns = range(8) if config.symmetries else range(1)
    foundation.check_prompts([one.full(turn) for one in said for turn in turns] + [one.plain() for one in said])
    known = np.array([record.mask is not None for record in pairs.dataset])
    blank = np.zeros((pairs.resolution, pairs.resolution), dtype=np.uint8)
    images = pairs.images()
    labels = np.stack([pairs.mask(i) if known[i] else blank for i in range(len(pairs))])
    encoded = [
        (*posteriors(foundation, turned(images, turn), cache), encode_masks(masks, turned(labels, turn), cache))
        for turn in turns
    ]
    mean, std, z_mask = (torch.cat(part) for part in zip(*encoded, strict=True))
    return TrainingSet(images, labels, known, mean, std, z_mask, said, captions(said), pairs.dataset.classes, grammar)


def encode_masks(masks: MaskLatents, labels: NDArray[np.uint8], cache: Path | None = None) -> Tensor:
    """(N, C, h, w): latents of (N, R, R) masks, on the CPU; cached as those of the images."""

    @torch.no_grad()
    def make() -> dict[str, Tensor]:
        rows = max(1, 64 * 64**2 // labels[0].size)
        parts = torch.from_numpy(labels).long().split(rows)
        return {"z": torch.cat([masks.encode_mask(part.to(masks.scale.device)).cpu() for part in parts])}

    return cached(cache, (f"mask latents {float(masks.scale)}", masks.autoencoder, labels), make)["z"]


def _loop(config: DualConfig) -> LoopConfig:
    return LoopConfig(
        max_train_steps=config.max_train_steps, train_batch_size=config.train_batch_size,
        gradient_accumulation_steps=config.gradient_accumulation_steps, mixed_precision=config.mixed_precision,
        ema_decay=config.ema_decay, seed=config.seed, checkpointing_steps=config.checkpointing_steps,
        validation_steps=config.validation_steps, max_grad_norm=config.max_grad_norm, optimizer=config.optimizer,
    )  # fmt: skip
