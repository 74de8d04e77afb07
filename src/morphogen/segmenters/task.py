"""Training a segmenter: pairs in, a folder with config.json and model.safetensors out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from morphogen.data.augment import affine_maps, warp_pairs
from morphogen.data.colour_exchange import exchange_colour
from morphogen.errors import InputError
from morphogen.metrics.overlap import class_counts, dice_from_counts
from morphogen.segmenters import build, entry, prepare, resolve
from morphogen.segmenters.any_size import refuse_size
from morphogen.segmenters.losses import losses_of
from morphogen.segmenters.predictor import save_segmenter
from morphogen.segmenters.preview import write_preview
from morphogen.training.loop import claim, fit, identity, refuse
from morphogen.training.net_files import to_input
from morphogen.training.rng import numpy_rng, seed_of
from morphogen.training.supervised import Source, SupervisedConfig, digest, one_resolution, parameter_groups
from morphogen.training.task import Batch, Draw, Phase, Progress


@dataclass(frozen=True, kw_only=True)
class SegmenterConfig(SupervisedConfig):
    """How to train a segmenter.

    Attributes:
        colour_exchange: Every image takes the colours of another one (see `morphogen.data.colour_exchange`).
        scales: Step s trains at ``scales[s % len(scales)]`` times the resolution, rounded to multiples of 32 px.
        momentum: Of SGD.
        norm_decay: Whether normalisation layers and biases decay too.
        max_grad_value: Every element of the gradient is cut to this size; 0 for never.

    Raises:
        InputError: A value is out of range.
    """

    colour_exchange: bool = False
    scales: tuple[float, ...] = (1.0,)
    momentum: float = 0.9
    norm_decay: bool = True
    max_grad_value: float = 0.0

    def __post_init__(self) -> None:
        self._one_of("mixed_precision", ("no", "bf16", "fp16"))  # said as of the other choices
        super().__post_init__()
        self._not_negative("momentum", "max_grad_value")
        if not self.scales or not all(0 < scale < math.inf for scale in self.scales):
            raise InputError(f"--scales {' '.join(map(str, self.scales))}: must be positive numbers, at least one")


class PairSource(Source, Protocol):
    """What `morphogen.data.pairs.Pairs` offers: ``source[i] -> (image (3, R, R) uint8, mask (R, R) uint8)``."""

    def __getitem__(self, index: int, /) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]: ...


class SegmenterTask:
    """The segmenter's losses on augmented pairs; the mean validation Dice selects the weights that are kept."""

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
        self.name, self.val = name, val
        self.lr = entry(name).lr if config.lr is None else config.lr
        averaged = entry(name).ema_decay if config.ema_decay is None else config.ema_decay
        self.config = replace(config, lr=self.lr, ema_decay=averaged)
        self.architecture = resolve(name, config.architecture)
        self.classes, self.resolution = classes_of([*train, val]), one_resolution([*train, val])
        self.items = [(source, i) for source in train for i in range(len(source))]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(config.seed, "segmenter", name))
            self.net = build(name, len(self.classes), self.architecture)
        refuse_size(self.net, self.resolution)
        self.modules = nn.ModuleDict({"net": self.net})

    def __len__(self) -> int:
        return len(self.items)

    def phases(self) -> Sequence[Phase]:
        """One phase over all parameters, those of the encoder at a learning rate of their own."""
        config = self.config
        return [
            Phase(
                "segmenter",
                [p for p in self.net.parameters() if p.requires_grad],
                self.loss,
                lr=self.lr,
                betas=(config.momentum, 0.999),
                schedule=config.lr_scheduler,
                warmup=config.warmup,
                groups=parameter_groups(self.net, config, config.norm_decay),
                max_grad_value=config.max_grad_value,
            )
        ]

    def batch(self, draws: Sequence[Draw]) -> Batch:
        """The pairs of `draws`: image (B, 3, R, R) in [-1, 1], mask (B, R, R) int64, seed (B,) int64."""
        pairs = [self._pair(draw) for draw in draws]
        images = to_input(np.stack([image for image, _ in pairs]))
        masks = torch.from_numpy(np.stack([mask for _, mask in pairs])).long()
        seeds = torch.tensor([draw.seed for draw in draws])
        if self.config.augmentation == "geometric":
            images, masks = warp_pairs(images, masks, affine_maps(seeds))
        return {"image": images, "mask": masks, "seed": seeds}

    def _pair(self, draw: Draw) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """One pair; with colour exchange, in the colours of another one, drawn by its seed."""
        source, i = self.items[draw.index]
        image, mask = source[i]
        if self.config.colour_exchange:
            other, j = self.items[int(numpy_rng(draw.seed, "colour exchange").integers(len(self.items)))]
            image = exchange_colour(image, other[j][0])
        return image, mask

    def loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        """The segmenter's losses of the batch, at the step's scale."""
        scales = self.config.scales
        image, mask = _rescaled(batch["image"], batch["mask"], scales[progress.step % len(scales)])
        return losses_of(self.net, image, mask, batch["seed"])

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
        notes = getattr(self.net, "notes", {})
        save_segmenter(folder, self.net, self.name, self.architecture, self.classes, self.resolution, notes)


def _rescaled(image: Tensor, mask: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Both at `scale` times their size, to multiples of 32 px: bilinear the image, by nearest pixel the mask."""
    if scale == 1:
        return image, mask
    size = [max(1, round(side * scale / 32)) * 32 for side in image.shape[-2:]]
    image = F.interpolate(image, size, mode="bilinear", align_corners=False)
    return image, F.interpolate(mask[:, None].double(), size, mode="nearest-exact")[:, 0].long()


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
        "segmenter": {**asdict(task.config), "architecture": task.architecture},
        "classes": list(task.classes),
        "resolution": task.resolution,
        "data": {"train": _digest(sources), "val": _digest([val])},
    }
    loop = task.config.loop()
    if entry(name).prepare and not (out / "final").exists():
        refuse(task, loop, out)
        claim(out, {**described, "training": identity(loop)})
        prepare(name, task.net, sources, task.config, out)
    fit(task, loop, out, described, label=f"training {name}")
    return out


def classes_of(sources: Sequence[PairSource]) -> tuple[str, ...]:
    """The classes of the source that has most of them; all others have the first of these."""
    classes = max((source.dataset.classes for source in sources), key=len)
    for source in sources:
        if source.dataset.classes != classes[: len(source.dataset.classes)]:
            raise InputError(
                f"{source.dataset.root}: its classes are {', '.join(source.dataset.classes)}, where other data has "
                f"{', '.join(classes)}; give all of them the same classes in the same order"
            )
    return classes


def _digest(sources: Sequence[PairSource]) -> dict[str, Any]:
    return digest(sources, [source.dataset.ids for source in sources])
