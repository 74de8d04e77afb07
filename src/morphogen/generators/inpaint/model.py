"""The generator's face: train on a dataset, load a run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from morphogen.data.mask_words import choices
from morphogen.data.masks import resize_labels
from morphogen.data.pairs import Pairs, native_mask
from morphogen.data.prompts import Grammar, fill_slots, slots_of, tokens
from morphogen.data.records import Dataset
from morphogen.errors import InputError
from morphogen.foundation.adapt import AdaptConfig, adapted
from morphogen.foundation.cache import cache_of, forget
from morphogen.foundation.fit_prompt import pick_grammar
from morphogen.foundation.images import turned
from morphogen.foundation.inpainting import widen
from morphogen.foundation.known_words import check_grammar
from morphogen.foundation.latents import Item, build_bank, names_place, symmetries
from morphogen.foundation.model import Foundation
from morphogen.generators.inpaint import artefact
from morphogen.generators.inpaint.checks import refuse_other_channels, refuse_other_layout
from morphogen.generators.inpaint.config import SAMPLING, InpaintConfig, inpaint_config
from morphogen.generators.inpaint.holes import feather_of, grown
from morphogen.generators.inpaint.normals import check_normals, make_normals
from morphogen.generators.inpaint.sampler import InpaintSampler
from morphogen.generators.inpaint.task import InpaintTask, TrainingSet
from morphogen.generators.inpaint.words import count_words, prompt_for, stated
from morphogen.progress import say
from morphogen.training.loop import claim, fit, identity
from morphogen.training.processes import processes
from morphogen.training.rng import numpy_rng, seed_of
from morphogen.training.task import LoopConfig

__all__ = ["CONFIG", "SAMPLING", "check", "load", "preset_config", "train"]

CONFIG = InpaintConfig
preset_config = inpaint_config

NORMALS = "normals"
"""Sub-folder of a run: the images to paint into that it made for itself."""


def check(data: Dataset, config: InpaintConfig, prompt: str | None = None) -> Foundation:
    """Refuse what training would refuse, before anything is written; returns the foundation, which it has to load.

    Args:
        data: Images and masks to train on.
        config: How.
        prompt: What lesions will be painted with later, at places and in sizes that are not known yet.

    Raises:
        InputError: There are no masks; there is no such foundation, it is of another family than the preset's, or it
            paints no holes and is not to be widened; the resolution does not fit; there is no such grammar or folder of
            normal images, or none to be made; a caption or the prompt is too long or holds an unknown word; or the
            prompt states what geometry decides.
    """
    if not len(data.annotated):
        raise InputError(f"{data.root}: has no mask to learn from; add masks/ with the stems of images/")
    check_normals(config.normals, data)
    grammar = None if config.grammar == "auto" else Grammar.load(config.grammar)
    foundation = Foundation.load(config.foundation, processes().device)
    refuse_other_layout(foundation, config)
    refuse_other_channels(foundation, config)
    foundation.side(config.resolution)
    if grammar is not None:
        check_grammar(foundation, grammar)
    for record in data.annotated:
        try:
            foundation.check_lengths([record.caption] if record.caption else [])
        except InputError as error:
            raise InputError(f"{data.root}: the caption of {record.id}: {error}") from None
    if prompt is not None:
        _check_prompt(foundation, data, config, prompt)
    return foundation


def _check_prompt(foundation: Foundation, data: Dataset, config: InpaintConfig, prompt: str) -> None:
    """Refuse a prompt with an unknown word or slot, that may be too long, or that a mask may contradict when laid."""
    grammar = grammar_of(foundation, Pairs(data.annotated, foundation.resolution), config.grammar)
    slots = slots_of(prompt)
    for slot, word in stated(grammar, fill_slots(prompt, dict.fromkeys(slots, ","))):
        fault = f"says {word!r}, but the {slot} is that of the mask, which is moved and may be made smaller"
        raise InputError(f"prompt {prompt!r}: {fault}; write {{{slot}}} there, or leave the word out")
    for record in data.annotated:
        mask = native_mask(record, data)
        if (mask > 0).any():
            foundation.check_lengths([prompt_for(grammar, prompt, mask, numpy_rng(config.seed, "words"))])
    words = {name: max(choices(grammar.slots[name]), key=lambda word: len(tokens(word)), default="") for name in slots}
    foundation.check_lengths([fill_slots(prompt, words)])  # another mask may have the longest words


def train(data: Dataset, config: InpaintConfig, out: Path) -> Path:
    """Train on the annotated records of `data`, then make the run's own normal images; called again, continue.

    Raises:
        InputError: As `check`, or `out` holds another run.
    """
    annotated = data.annotated
    settings = {"generator": config.method, "records": list(annotated.ids), **asdict(config)}
    claimed = {**settings, "training": identity(_loop(config))}
    if (out / "final").exists():
        claim(out, claimed)  # refuses another run's folder
    else:
        foundation = check(data, config)
        claim(out, claimed)
        fit(_task(foundation, data, config, out), _loop(config), out, settings, config.method)
        forget(out)
    if processes().is_main_process:
        make_normals(load(out, str(processes().device)), annotated, config.normals, out / NORMALS, config.seed)
    return out


def load(run: Path, device: str = "cpu") -> InpaintSampler:
    """The sampler of a finished run folder."""
    return InpaintSampler(artefact.load(run / "final", device), run / NORMALS)


def grammar_of(foundation: Foundation, pairs: Pairs, name: str) -> Grammar:
    """The grammar of this name or file; of ``auto``, the one whose kind of images the foundation takes these for."""
    return pick_grammar(foundation, pairs) if name == "auto" else Grammar.load(name)


def _task(foundation: Foundation, data: Dataset, config: InpaintConfig, out: Path) -> InpaintTask:
    resolution = foundation.side(config.resolution)
    grammar = grammar_of(foundation, Pairs(data.annotated, foundation.resolution), config.grammar)
    if config.grammar == "auto":
        say(f"{out}: lesions are put into words of the grammar {grammar.name}; grammar=NAME takes another")
    adaptation = AdaptConfig(
        foundation=config.foundation, symmetries=config.symmetries, seed=config.seed,
        mixed_precision=config.mixed_precision,
    )  # fmt: skip
    fitted = adapted(foundation, data, adaptation, config.adapt_steps, out / "adapted")
    wide = widen(fitted)
    torch.manual_seed(seed_of(config.seed, config.method))
    training = training_set(wide, Pairs(data.annotated, resolution), config, grammar, cache_of(out))
    whole = wide is not foundation  # adapted, widened or both: these weights are nowhere else
    return InpaintTask(wide, training, config, whole, wide is not fitted, cache_of(out))


def training_set(
    foundation: Foundation, pairs: Pairs, config: InpaintConfig, grammar: Grammar, cache: Path | None = None
) -> TrainingSet:
    """Images, holes and words, turned and mirrored where asked; holes are made at the images' own size, as in sampling.

    Args:
        foundation: Encodes the images.
        pairs: The annotated images at the resolution of training.
        config: Symmetries and feather.
        grammar: Says what is in them, where no caption does.
        cache: Where latents are kept.
    """
    size, data = (pairs.resolution, pairs.resolution), pairs.dataset
    masks = (native_mask(record, data) for record in data)
    holes = [resize_labels(grown(mask, feather_of(mask, config.feather)), size) > 0 for mask in masks]
    items: list[Item] = []
    moved = []
    for turn in range(8) if config.symmetries else (0,):
        for i, record in enumerate(data):
            item = Item(pairs.image(i), pairs.mask(i), grammar, record.label, record.caption)
            items += symmetries(item, (turn,))
            moved.append(turned(holes[i].view(np.uint8), 0 if names_place(record.caption) else turn) > 0)
    images = np.stack([item.image for item in items])
    bank = build_bank(foundation, items, cache)
    return TrainingSet(images, np.stack(moved), bank, data.classes, grammar, count_words(grammar, pairs))


def _loop(config: InpaintConfig) -> LoopConfig:
    return LoopConfig(
        max_train_steps=config.max_train_steps, train_batch_size=config.train_batch_size,
        gradient_accumulation_steps=config.gradient_accumulation_steps, mixed_precision=config.mixed_precision,
        ema_decay=config.ema_decay, seed=config.seed, checkpointing_steps=config.checkpointing_steps,
        validation_steps=config.validation_steps, max_grad_norm=config.max_grad_norm, optimizer=config.optimizer,
    )  # fmt: skip
