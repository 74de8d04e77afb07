"""Training a segmenter: pairs in, a folder with config.json and model.safetensors out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from morphogen.data.augment import affine_maps, warp_pairs
from morphogen.data.records import Dataset
from morphogen.errors import InputError
from morphogen.metrics.overlap import class_counts, dice_from_counts
from morphogen.segmenters import build, resolve
from morphogen.segmenters.losses import cross_entropy, soft_dice_loss
from morphogen.segmenters.predictor import save_segmenter, to_input
from morphogen.segmenters.preview import write_preview
from morphogen.training.loop import fit
from morphogen.training.rng import seed_of
from morphogen.training.task import Batch, Draw, LoopConfig, Phase, Progress


@dataclass(frozen=True)
class SegmenterConfig:
    """How to train a segmenter; the words are those of the training loop.

    Attributes:
        architecture: Options of the segmenter (for ``unet``: ``{"encoder": "lite0"}``).
        augmentation: ``geometric`` (see `morphogen.data.augment`) or ``none``.
        max_train_steps: Optimiser steps.
        train_batch_size: Rows per optimiser step.
        gradient_accumulation_steps: Parts that a batch is worked off in.
        mixed_precision: ``no``, ``bf16`` or ``fp16``.
        lr: Peak learning rate of AdamW; it falls to zero along a cosine after a short warm-up.
        weight_decay: AdamW's decoupled weight decay.
        seed: Seed of initialisation, order and augmentation.
        checkpointing_steps: Steps between checkpoints.
        validation_steps: Steps between looks at the validation part; the best look is what is kept.

    Raises:
        InputError: A value is out of range.
    """

    architecture: Mapping[str, Any] = field(default_factory=dict)
    augmentation: Literal["none", "geometric"] = "geometric"
    max_train_steps: int = 400
    train_batch_size: int = 16
    gradient_accumulation_steps: int = 1
    mixed_precision: str = "no"
    lr: float = 1e-3
    weight_decay: float = 1e-2
    seed: int = 0
    checkpointing_steps: int = 200
    validation_steps: int = 50

    def __post_init__(self) -> None:
        for option in (
            "max_train_steps",
            "train_batch_size",
            "gradient_accumulation_steps",
            "checkpointing_steps",
            "lr",
        ):
            if getattr(self, option) <= 0:
                raise InputError(f"--{option.replace('_', '-')} {getattr(self, option)}: must be positive")
        for option, choices in (("augmentation", ("none", "geometric")), ("mixed_precision", ("no", "bf16", "fp16"))):
            if getattr(self, option) not in choices:
                raise InputError(f"--{option.replace('_', '-')} {getattr(self, option)}: choose {' or '.join(choices)}")

    def loop(self) -> LoopConfig:
        """The training loop's part of it."""
        return LoopConfig(
            max_train_steps=self.max_train_steps,
            train_batch_size=self.train_batch_size,
            gradient_accumulation_steps=self.gradient_accumulation_steps,
            mixed_precision=self.mixed_precision,
            seed=self.seed,
            checkpointing_steps=self.checkpointing_steps,
            validation_steps=self.validation_steps,
            keep_best=True,
        )


class PairSource(Protocol):
    """What `morphogen.data.pairs.Pairs` offers: ``source[i] -> (image (3, R, R) uint8, mask (R, R) uint8)``."""

    dataset: Dataset
    resolution: int

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]: ...


class SegmenterTask:
    """Cross-entropy and soft Dice on augmented pairs; the mean validation Dice selects the weights that are kept."""

    def __init__(self, name: str, train: Sequence[PairSource], val: PairSource, config: SegmenterConfig) -> None:
        """Builds the network, its random parts from the config's seed.

        Args:
            name: Segmenter.
            train: Sources of training pairs, joined end to end (real, synthetic, ...).
            val: Validation pairs; may be empty, then the last weights are kept.
            config: How to train.

        Raises:
            InputError: The sources differ in resolution or classes, or the segmenter cannot be built.
        """
        self.name, self.config, self.val = name, config, val
        self.architecture = resolve(name, config.architecture)
        self.classes, self.resolution = _agreed([*train, val])
        self.items = [(source, i) for source in train for i in range(len(source))]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(config.seed, "segmenter", name))
            self.net = build(name, len(self.classes), self.architecture)
        self.modules = nn.ModuleDict({"net": self.net})

    def __len__(self) -> int:
        return len(self.items)

    def phases(self) -> Sequence[Phase]:
        """One phase: AdamW with a cosine over all parameters."""
        return [
            Phase(
                "segmenter",
                list(self.net.parameters()),
                self.loss,
                lr=self.config.lr,
                weight_decay=self.config.weight_decay,
                schedule="cosine",
                warmup=min(50, self.config.max_train_steps // 10),
            )
        ]

    def batch(self, draws: Sequence[Draw]) -> Batch:
        """The pairs of `draws`: image (B, 3, R, R) in [-1, 1], mask (B, R, R) int64, seed (B,) int64."""
        pairs = [source[i] for source, i in (self.items[draw.index] for draw in draws)]
        images = to_input(np.stack([image for image, _ in pairs]))
        masks = torch.from_numpy(np.stack([mask for _, mask in pairs])).long()
        seeds = torch.tensor([draw.seed for draw in draws])
        if self.config.augmentation == "geometric":
            images, masks = warp_pairs(images, masks, affine_maps(seeds))
        return {"image": images, "mask": masks, "seed": seeds}

    def loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        """Cross-entropy and soft Dice of the batch."""
        logits = self.net(batch["image"])
        return {"cross_entropy": cross_entropy(logits, batch["mask"]), "dice": soft_dice_loss(logits, batch["mask"])}

    def to(self, device: Any) -> None:
        """Nothing lies outside `modules`."""

    @torch.no_grad()
    def _predict(self, indices: Sequence[int]) -> NDArray[np.int64]:
        """(N, R, R) label maps of validation images."""
        device = next(self.net.parameters()).device
        images = to_input(np.stack([self.val[i][0] for i in indices])).to(device)
        labels: NDArray[np.int64] = self.net(images).argmax(dim=1).cpu().numpy()
        return labels

    def validate(self, step: int) -> Mapping[str, float]:
        """Mean Dice over validation images and foreground classes, at the working resolution."""
        if not len(self.val):
            return {}
        scores = []
        for start in range(0, len(self.val), 32):
            indices = range(start, min(start + 32, len(self.val)))
            for i, labels in zip(indices, self._predict(indices), strict=True):
                counts = class_counts(labels, self.val[i][1], len(self.classes))
                scores.append(dice_from_counts(counts[1:]).mean())
        mean = float(np.mean(scores))
        return {"score": mean, "dice": mean}

    def preview(self, step: int, folder: Path) -> None:
        """Up to eight validation images with the outlines of reference and prediction."""
        indices = range(min(8, len(self.val)))
        if indices:
            images, masks = zip(*(self.val[i] for i in indices), strict=True)
            write_preview(folder / f"step-{step:06d}.png", np.stack(images), np.stack(masks), self._predict(indices))

    def save(self, folder: Path) -> None:
        """Write what `load_segmenter` reads."""
        save_segmenter(folder, self.net, self.name, self.architecture, self.classes, self.resolution)


def train_segmenter(
    name: str, train: PairSource | Sequence[PairSource], val: PairSource, config: SegmenterConfig, out: Path
) -> Path:
    """Train a segmenter; called again, continue where it stopped.

    Args:
        name: Segmenter (a key of `SEGMENTERS`).
        train: Training pairs, or several sources of them, joined end to end.
        val: Validation pairs, which select the weights that are kept.
        config: How to train.
        out: Run folder.

    Returns:
        `out`, which `load_segmenter` reads.

    Raises:
        InputError: The segmenter is unknown, the sources disagree, or `out` holds another run.
        WorkError: The loss is not finite, or the disk is full.
    """
    sources: list[Any] = list(train) if isinstance(train, (list, tuple)) else [train]
    task = SegmenterTask(name, sources, val, config)
    described = {
        "method": name,
        "kind": "segmenter",
        "segmenter": {**asdict(config), "architecture": task.architecture},
        "classes": list(task.classes),
        "resolution": task.resolution,
        "data": {"train": _digest(sources), "val": _digest([val])},
    }
    fit(task, config.loop(), out, described, label=f"training {name}")
    return out


def _agreed(sources: Sequence[PairSource]) -> tuple[tuple[str, ...], int]:
    """The classes of the source that has most of them, and the resolution that all share."""
    classes = max((source.dataset.classes for source in sources), key=len)
    first = sources[0]
    for source in sources:
        if source.dataset.classes != classes[: len(source.dataset.classes)]:
            raise InputError(
                f"{source.dataset.root}: its classes are {', '.join(source.dataset.classes)}, where other data has "
                f"{', '.join(classes)}; give all of them the same classes in the same order"
            )
        if source.resolution != first.resolution:
            raise InputError(
                f"{source.dataset.root}: is read at {source.resolution} px, {first.dataset.root} at "
                f"{first.resolution} px; train on one resolution"
            )
    return classes, first.resolution


def _digest(sources: Sequence[PairSource]) -> dict[str, Any]:
    """How many pairs, and a hash of their ids in order: a run is not continued on other data."""
    ids = json.dumps([source.dataset.ids for source in sources])
    return {"n": sum(map(len, sources)), "ids": hashlib.sha256(ids.encode()).hexdigest()[:16]}
