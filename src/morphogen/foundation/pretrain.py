"""Make a foundation from images: first the autoencoder, then the text-conditional denoiser in its latents."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from morphogen.data.duplicates import signatures
from morphogen.data.pairs import Pairs, refuse_unreadable
from morphogen.data.prompts import Grammar, vocabulary
from morphogen.data.readers import read_dataset
from morphogen.data.records import Dataset
from morphogen.data.split import ids_hash
from morphogen.errors import InputError
from morphogen.foundation.cache import cache_of, forget
from morphogen.foundation.fit_prompt import LOOKED_AT, label_captions, noise_errors
from morphogen.foundation.images import to_signed
from morphogen.foundation.pretrain_config import PretrainConfig
from morphogen.metrics.weights import MEMBERS, available
from morphogen.progress import say
from morphogen.training.checkpoint import write_folder
from morphogen.training.rng import numpy_rng
from morphogen.training.task import LoopConfig

if TYPE_CHECKING:
    from morphogen.foundation.model import Foundation


@dataclass(frozen=True)
class Source:
    """One set of images with its training and held-out ids."""

    train: Dataset
    held_out: Dataset
    grammar: Grammar

    @property
    def ids_hash(self) -> str:
        """SHA-256 of what is trained on and of what is held out."""
        return ids_hash([ids_hash(self.train.ids), f"held out {ids_hash(self.held_out.ids)}"])


def pretrain(config: PretrainConfig) -> Path:
    """Train autoencoder and denoiser; called again, continue. Returns the foundation's folder.

    Raises:
        InputError: A folder, grammar or id list is wrong, weights are not installed, or `out` holds another run.
    """
    from morphogen.foundation.denoiser_task import DenoiserTask
    from morphogen.foundation.latents import build_bank
    from morphogen.foundation.model import Foundation
    from morphogen.foundation.tiny_model import TinyConfig, build_tiny
    from morphogen.training.loop import claim, fit
    from morphogen.training.processes import processes

    sources = read_sources(config)
    settings = {key: str(value) for key, value in asdict(config).items() if key not in ("out", "hint_steps")}
    settings |= {f"records of {source.train.name}": source.ids_hash for source in sources}
    final = config.out / "final"
    if final.exists():
        claim(config.out, settings)  # refuses another run's folder
        return final
    if config.perceptual_steps and not available("vgg16"):
        remedy = MEMBERS["vgg16"].remedy
        raise InputError(f"--perceptual-steps {config.perceptual_steps}: VGG16 is not installed; run {remedy}")
    for dataset in (part for source in sources for part in (source.train, source.held_out)):
        refuse_unreadable(dataset, foreground=False)
    claim(config.out, settings)
    foundation = build_tiny(TinyConfig(resolution=config.resolution), vocabulary(), config.seed).to(processes().device)
    train = [Pairs(source.train, config.resolution) for source in sources]
    train_autoencoder(config, foundation, sources, train, settings)

    foundation.card |= card(config, sources)
    items = bank_items(config, sources, train)
    bank = build_bank(foundation, items, cache_of(config.out))
    loop = LoopConfig(
        max_train_steps=config.denoiser_steps, train_batch_size=32, seed=config.seed, ema_decay=0.999,
        mixed_precision=config.mixed_precision, checkpointing_steps=500, validation_steps=1000,
    )  # fmt: skip
    denoiser = DenoiserTask(foundation, bank, config.denoiser_lr, preview_prompts=foundation.card["prompts"])
    trained = Foundation.load(fit(denoiser, loop, config.out / "denoiser", settings, "denoiser"), foundation.device)
    trained.card["noise_error"] = max(own_errors(trained, sources))
    with processes().main_process_first():
        if not final.exists():
            write_folder(final, trained.save)
    forget(config.out)
    return final


def train_autoencoder(
    config: PretrainConfig,
    foundation: Foundation,
    sources: Sequence[Source],
    train: Sequence[Pairs],
    settings: dict[str, str],
) -> None:
    """Train the autoencoder of `foundation`, then its decoder alone for texture, and leave it frozen."""
    from morphogen.foundation.autoencoder_task import AutoencoderTask, latent_scale, psnr
    from morphogen.foundation.decoder_task import DecoderTask
    from morphogen.foundation.images import ImagePool
    from morphogen.training.loop import fit

    held_out = np.concatenate([Pairs(source.held_out, config.resolution).images()[:100] for source in sources])
    pool = ImagePool(train, config.phantoms, config.resolution)
    stages: list[tuple[str, type[AutoencoderTask], int, float]] = [
        ("autoencoder", AutoencoderTask, config.autoencoder_steps, 0.999),
        ("decoder", DecoderTask, config.perceptual_steps, 0.99),
    ]
    for name, task, steps, ema_decay in (stage for stage in stages if stage[2]):
        loop = LoopConfig(
            max_train_steps=steps, train_batch_size=16, seed=config.seed, ema_decay=ema_decay,
            mixed_precision=config.mixed_precision, checkpointing_steps=250, validation_steps=500,
        )  # fmt: skip
        trained = task(foundation, pool, held_out, config.autoencoder_lr)
        folder = fit(trained, loop, config.out / name, settings, name)
        foundation.vae = type(foundation.vae).from_pretrained(folder, use_safetensors=True)
        foundation.vae.requires_grad_(False).eval().to(foundation.device)
    some = np.concatenate([pairs.images(range(min(len(pairs), 256))) for pairs in train])
    foundation.vae.register_to_config(scaling_factor=latent_scale(foundation, some))
    say(f"autoencoder: {psnr(foundation, held_out):.2f} dB on {len(held_out)} held-out images")


def own_errors(foundation: Foundation, sources: Sequence[Source]) -> list[float]:
    """Error of the predicted noise on held-out images of each set, which tells near images from far ones (`is_far`)."""
    errors = []
    for source in sources:
        pairs = Pairs(source.held_out, foundation.resolution)
        shown = to_signed(pairs.images(range(min(len(pairs), LOOKED_AT))))
        errors.append(min(noise_errors(foundation, shown).values()))
    return errors


def read_sources(config: PretrainConfig) -> list[Source]:
    """The images to train on and those held out, set by set."""
    names = config.grammars if len(config.grammars) > 1 else config.grammars * len(config.data)
    if len(names) != len(config.data):
        raise InputError(f"--grammars: {len(names)} names for {len(config.data)} folders; give one, or one for each")
    frozen: dict[str, Any] = {}
    if config.ids is not None:
        if not config.ids.is_file():
            raise InputError(f"{config.ids}: no such file; give the JSON of frozen ids or leave --ids out")
        try:
            sets = json.loads(config.ids.read_text())["sets"]
            frozen = {name: {part: sets[name][part] for part in ("train", "held_out")} for name in sets}
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{config.ids}: is no JSON of frozen ids; write it as the help of --ids says") from error
    sources: list[Source] = []
    for path, name in zip(config.data, names, strict=True):
        dataset = read_dataset(path)
        if dataset.name in {source.train.name for source in sources}:
            raise InputError(f"{path}: a second set called {dataset.name!r}; rename one folder")
        if frozen and dataset.name not in frozen:
            raise InputError(f"{config.ids}: names no set {dataset.name!r}; add it, or leave {path} out")
        parts = frozen.get(dataset.name) or _hold_out(dataset, config.seed)
        sources.append(Source(dataset.select(parts["train"]), dataset.select(parts["held_out"]), Grammar.load(name)))
    return sources


def _hold_out(dataset: Dataset, seed: int) -> dict[str, Sequence[str]]:
    order = numpy_rng(seed, "held-out", dataset.name).permutation(len(dataset))
    n = max(1, len(dataset) // 10)
    held = {dataset[int(i)].id for i in order[:n]}
    return {"train": [i for i in dataset.ids if i not in held], "held_out": [i for i in dataset.ids if i in held]}


def bank_items(config: PretrainConfig, sources: Sequence[Source], train: Sequence[Pairs]) -> list[Any]:
    """Every real image in four symmetries, and as many passes of phantoms."""
    from morphogen.foundation.latents import Item, phantom_item, symmetries

    items: list[Item] = []
    for source, pairs in zip(sources, train, strict=True):
        for index, record in enumerate(source.train):
            mask = pairs.mask(index) if record.mask is not None else None
            label = record.label.replace("_", " ") if record.label else None
            item = Item(pairs.image(index), mask, source.grammar, label, record.caption)
            items += symmetries(item, (0, 2, 4, 6))
    grammars = {name: Grammar.load(name) for name in ("polyp", "skin")}
    items += [phantom_item(seed, config.resolution, grammars) for seed in range(4 * config.phantoms)]
    return items


def card(config: PretrainConfig, sources: Sequence[Source]) -> dict[str, Any]:
    """What the model was trained on: ids, perceptual hashes, settings."""
    sets = {
        source.train.name: {"training_ids": list(source.train.ids), "phashes": phashes(source.train)}
        for source in sources
    }
    return {
        "sets": sets,
        "prompts": label_captions(source.grammar for source in sources),
        "phantoms": config.phantoms,
        "steps": {
            "autoencoder": config.autoencoder_steps,
            "decoder": config.perceptual_steps,
            "denoiser": config.denoiser_steps,
        },
        "seed": config.seed,
    }


def phashes(dataset: Dataset) -> list[str]:
    """64-bit perceptual hash of every image, as 16 hexadecimal digits."""
    bits = np.packbits(signatures(dataset).bits.astype(np.uint8), axis=1)
    return [row.tobytes().hex() for row in bits]
