"""Bring a foundation closer to a study's own images before a generator trains on them; masks are not needed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from morphogen.data.pairs import Pairs
from morphogen.data.prompts import Grammar
from morphogen.data.records import Dataset
from morphogen.foundation.decoder_task import DecoderTask
from morphogen.foundation.denoiser_task import DenoiserTask
from morphogen.foundation.fit_prompt import is_far, prompts_for
from morphogen.foundation.images import ImagePool
from morphogen.foundation.latents import Item, build_bank, symmetries
from morphogen.foundation.model import Foundation
from morphogen.foundation.pretrain import phashes
from morphogen.locks import lock
from morphogen.metrics.weights import available
from morphogen.training.checkpoint import write_folder
from morphogen.training.loop import claim, fit
from morphogen.training.processes import processes
from morphogen.training.task import LoopConfig

_SHARED: ContextVar[Path | None] = ContextVar("_SHARED", default=None)


@contextmanager
def sharing(folder: Path) -> Iterator[None]:
    """Within it `adapted` keeps its work in `folder`, and runs that adapt a foundation alike do it once.

    For one set of images: an adaptation is known by their ids and its settings. Other processes wait for it.
    """
    token = _SHARED.set(folder)
    try:
        yield
    finally:
        _SHARED.reset(token)


@dataclass(frozen=True, kw_only=True)
class AdaptConfig:
    """How to adapt a foundation."""

    foundation: str = "tiny"
    """What to adapt."""
    prompt: str | None = None
    """One prompt for all images; without it each record's caption, else the one that the foundation fits best."""
    decoder_steps: int = 200
    """Optimiser steps of the autoencoder's decoder; 0 leaves it as it is."""
    decoder_lr: float = 5e-4
    """Its peak learning rate (cosine)."""
    max_train_steps: int = 300
    """Optimiser steps of the denoiser; 0 leaves it as it is."""
    train_batch_size: int = 16
    """Rows per step."""
    lr: float = 2e-4
    """Peak learning rate of the denoiser (cosine)."""
    symmetries: bool = True
    """Train the denoiser on the eight turned and mirrored versions of each image."""
    mixed_precision: str = "no"
    """no, bf16 or fp16."""
    seed: int = 0
    """Of everything random."""

    def loop(self, steps: int) -> LoopConfig:
        """The training loop of one of the two stages."""
        return LoopConfig(
            max_train_steps=steps, train_batch_size=self.train_batch_size, seed=self.seed, ema_decay=0.99,
            mixed_precision=self.mixed_precision, checkpointing_steps=100,
        )  # fmt: skip


def adapt(data: Dataset, config: AdaptConfig, out: Path) -> Path:
    """Fine-tune decoder and denoiser on the images of `data`; called again, continue.

    The autoencoder's encoder stays as it is, so latents remain comparable. The card gains the ids and hashes of `data`.

    Returns:
        The adapted foundation's folder, ``out/final``.
    """
    settings = _settings(data, config)
    if (out / "final").exists():
        claim(out, settings)  # refuses another run's folder
        return out / "final"
    foundation = Foundation.load(config.foundation, processes().device)
    claim(out, settings)
    note_training(foundation.card, data)
    pairs = Pairs(data, foundation.resolution)
    if config.decoder_steps:
        _adapt_decoder(foundation, pairs, config, out, settings)
    if config.max_train_steps:
        foundation = _adapt_denoiser(foundation, pairs, config, out, settings)

    def write(folder: Path) -> None:
        foundation.save(folder)
        foundation.copy_hint(folder)

    with processes().main_process_first():
        if not (out / "final").exists():
            write_folder(out / "final", write)
    return out / "final"


def adapted(foundation: Foundation, data: Dataset, config: AdaptConfig, steps: int | None, out: Path) -> Foundation:
    """The foundation, fine-tuned on the images of `data` where that is asked for or pays.

    Args:
        foundation: What `config` names, loaded.
        data: Training images.
        config: How; its steps are set here.
        steps: Of the decoder and of the denoiser; 0 for none. By default, where the card says how well the foundation
            knows its own images, the decoder always, and the denoiser where the images are far from those. The denoiser
            of one that inpaints is left as it is: it is trained by inpainting.
        out: Folder of the adaptation; not used where adaptations are shared (`sharing`), unless it has one already.
    """
    if steps is not None:
        decoder = denoiser = steps
    elif "noise_error" not in foundation.card:  # not one of ours: nothing says whether it pays
        decoder = denoiser = 0
    else:
        far = is_far(foundation, Pairs(data, foundation.resolution))
        decoder, denoiser = AdaptConfig.decoder_steps, AdaptConfig.max_train_steps if far else 0
    if not decoder:
        return foundation
    chosen = replace(config, decoder_steps=decoder, max_train_steps=0 if foundation.inpaints else denoiser)
    shared = _SHARED.get()
    if shared is None or out.exists():
        return Foundation.load(adapt(data, chosen, out), processes().device)
    place = shared / hashlib.sha256(json.dumps(_settings(data, chosen)).encode()).hexdigest()[:16]
    with lock(shared / ".locks" / f"{place.name}.lock", wait=True):
        return Foundation.load(adapt(data, chosen, place), processes().device)


def _settings(data: Dataset, config: AdaptConfig) -> dict[str, Any]:
    """What an adaptation is known by."""
    return {"records": list(data.ids), **asdict(config)}


def _adapt_decoder(
    foundation: Foundation, pairs: Pairs, config: AdaptConfig, out: Path, settings: Mapping[str, Any]
) -> None:
    images = ImagePool([pairs], 0, foundation.resolution)
    perceptual = available("vgg16") and foundation.resolution % 16 == 0
    shown = pairs.images(range(min(len(pairs), 8)))
    task = DecoderTask(foundation, images, shown, config.decoder_lr, recoloured=False, perceptual=perceptual)
    described = {**settings, "perceptual": perceptual}
    folder = fit(task, config.loop(config.decoder_steps), out / "decoder", described, "adapting the decoder")
    foundation.vae = type(foundation.vae).from_pretrained(folder, use_safetensors=True)
    foundation.vae.requires_grad_(False).eval().to(foundation.device)


def _adapt_denoiser(
    foundation: Foundation, pairs: Pairs, config: AdaptConfig, out: Path, settings: Mapping[str, Any]
) -> Foundation:
    known = prompts_for(foundation, pairs, config.prompt)
    grammar = Grammar.load("generic")
    turns = range(8) if config.symmetries else (0,)
    items = [
        turned
        for i, text in enumerate(known)
        for turned in symmetries(Item(pairs.image(i), None, grammar, caption=text), turns)
    ]
    task = DenoiserTask(foundation, build_bank(foundation, items), config.lr, preview_prompts=known[:1])
    folder = fit(task, config.loop(config.max_train_steps), out / "denoiser", settings, "adapting the denoiser")
    return Foundation.load(folder, foundation.device)


def note_training(card: dict[str, Any], data: Dataset) -> None:
    """Add the ids and hashes of `data` to a card, beside those that it lists of a set of that name already."""
    known = card.setdefault("sets", {}).setdefault(data.name, {})
    for key, values in (("training_ids", data.ids), ("phashes", phashes(data))):
        known[key] = list(dict.fromkeys([*known.get(key, ()), *values]))
