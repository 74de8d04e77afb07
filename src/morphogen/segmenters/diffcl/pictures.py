"""The same methods on pictures: any segmenter learns from few annotated and many other images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from morphogen.data.pairs import Pairs
from morphogen.errors import InputError
from morphogen.segmenters import build, entry, resolve
from morphogen.segmenters.any_size import AnySize
from morphogen.segmenters.diffcl.config import NetConfig, SemiConfig, refuse_patch
from morphogen.segmenters.diffcl.methods.base import Parts
from morphogen.segmenters.diffcl.nets import TwoNets
from morphogen.segmenters.diffcl.streams import Pictures
from morphogen.segmenters.diffcl.task import SemiTask
from morphogen.segmenters.diffcl.validation import Validation
from morphogen.segmenters.diffcl.vnet import MULTIPLE, VNet
from morphogen.segmenters.predictor import save_segmenter
from morphogen.segmenters.task import PairSource, classes_of
from morphogen.training.loop import fit
from morphogen.training.net_files import to_input
from morphogen.training.supervised import digest, one_resolution

_CHANNELS = 3


def build_picture_net(n_classes: int, config: NetConfig, pretrained: bool = True) -> nn.Module:
    """The V-Net with high-frequency modules for pictures: (B, 3, H, W) in [-1, 1] -> (B, n_classes, H, W) logits."""
    multiple = MULTIPLE * (2 if config.norm == "instance" else 1)  # an instance needs more than one pixel
    return AnySize(VNet(config.shape(2, _CHANNELS, n_classes)), multiple)


def refuse_resolution(resolution: int, config: SemiConfig) -> None:
    """Refuse to train at a side that the diffusion network cannot take, see `refuse_patch`.

    Raises:
        InputError: It is no multiple of 16, or too small for the batch.
    """
    try:
        refuse_patch((resolution, resolution), config)
    except InputError as error:
        raise InputError(f"--resolution {resolution}: {str(error).partition(': ')[2]}") from None


def refuse_student(name: str, architecture: Mapping[str, Any], n_classes: int, said: str | None = None) -> None:
    """Refuse a segmenter that these methods would not teach as it is taught elsewhere; loads no weights.

    All of them teach by cross-entropy and Dice, so that a comparison with a network that was published with losses of
    its own would mix the loss with the data.

    Args:
        name: Segmenter.
        architecture: Its options.
        n_classes: K, background included.
        said: How it was named, for the error; `name` by default.

    Raises:
        InputError: It has losses of its own, or stands on frozen features.
    """
    if name == "features":
        fault = "stands on frozen features, and cps would draw its own anew"
    else:
        with torch.device("meta"):
            net = build(name, n_classes, architecture, pretrained=False)
        if not (isinstance(net, AnySize) and net.has_losses):
            return
        fault = "learns by losses of its own, and semi-supervision teaches by cross-entropy and Dice"
    raise InputError(f"{said or name}: {fault}; take a segmenter without, as unet")


def train_pictures(
    name: str,
    labelled: Sequence[PairSource],
    unlabelled: Pairs,
    validation: PairSource,
    config: SemiConfig,
    out: Path,
) -> Path:
    """Train a segmenter on pictures; called again, continue where it stopped.

    Args:
        name: Segmenter that learns (a key of `SEGMENTERS`), its options in ``config.architecture``.
        labelled: Annotated pairs, joined end to end (real, synthetic, ...).
        unlabelled: Further images; no mask of theirs is read.
        validation: Pairs that choose the weights.
        config: How to train.
        out: Run folder.

    Returns:
        `out`, which `load_segmenter` reads: a segmenter like any other of its name.

    Raises:
        InputError: The sources disagree, there is nothing to learn from, the segmenter cannot be taught so, or `out`
            holds another run.
        WorkError: The loss is not finite, or the disk is full.
    """
    line = entry(name)
    config = replace(
        config,
        lr=line.lr if config.lr is None else config.lr,
        ema_decay=line.ema_decay if config.ema_decay is None else config.ema_decay,
        architecture=resolve(name, config.architecture),
    )
    sources = [*labelled, validation]
    classes, resolution = classes_of(sources), one_resolution([*sources, unlabelled])
    refuse_resolution(resolution, config)
    if config.validate_by != "cs":
        raise InputError(f"validate-by {config.validate_by}: of pictures the segmenter alone is kept; leave it out")
    refuse_student(name, config.architecture, len(classes))
    if config.method != "supervised" and not len(unlabelled):
        raise InputError(f"{unlabelled.dataset.root}: holds no image without a mask for {config.method}; add some")
    denoiser = config.denoiser(2, _CHANNELS, len(classes))
    parts = Parts(
        config,
        len(classes),
        lambda: build(name, len(classes), config.architecture),
        lambda: VNet(denoiser),
        torch.zeros(1, _CHANNELS, resolution, resolution),
    )
    geometric = config.augmentation == "geometric"
    pairs = [validation[i] for i in range(len(validation))]
    looks = Validation(
        [to_input(image[None])[0] for image, _ in pairs],
        [np.asarray(mask) for _, mask in pairs],
        (resolution, resolution),
    )

    def save(folder: Path, nets: TwoNets) -> None:
        notes = {**getattr(nets.cs, "notes", {}), "method": config.method}
        save_segmenter(folder, nets.cs, name, config.architecture, classes, resolution, notes)

    task = SemiTask(
        parts,
        Pictures(labelled, geometric, labelled=True),
        Pictures([unlabelled], geometric, labelled=False),
        looks,
        save,
    )
    parts_of_data: dict[str, list[Any]] = {"train": list(labelled), "unlabelled": [unlabelled], "val": [validation]}
    described: dict[str, Any] = {
        "method": name,
        "kind": "segmenter",
        "segmenter": asdict(config),
        "classes": list(classes),
        "resolution": resolution,
        "data": {part: digest(some, [one.dataset.ids for one in some]) for part, some in parts_of_data.items()},
    }
    fit(task, config.loop(), out, described, label=f"training {name} by {config.method}")
    return out
