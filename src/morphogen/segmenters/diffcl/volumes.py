"""Training a segmenter of volumes; a run's ``final`` holds config.json and model.safetensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from morphogen.data.records import Dataset
from morphogen.data.volumes.preparation import Preparation
from morphogen.data.volumes.presets import VolumePreset
from morphogen.data.volumes.sources import VolumeSource
from morphogen.errors import InputError
from morphogen.segmenters.diffcl.config import NO_HFM, SemiConfig, refuse_patch
from morphogen.segmenters.diffcl.methods.base import Parts
from morphogen.segmenters.diffcl.nets import TwoNets
from morphogen.segmenters.diffcl.streams import VolumePatches
from morphogen.segmenters.diffcl.task import SemiTask
from morphogen.segmenters.diffcl.validation import Validation
from morphogen.segmenters.diffcl.vnet import VNet
from morphogen.training.loop import fit
from morphogen.training.net_files import save_net
from morphogen.training.supervised import hash_of

KIND = "volume_segmenter"
"""Key of its name in config.json."""


@dataclass(frozen=True, kw_only=True)
class PatchConfig:
    """How volumes are seen in training.

    Attributes:
        patch: Sides of a patch, in prepared voxels.
        augmentation: ``none``, ``turns`` or ``strong`` (`morphogen.data.volumes.patches.augment`).
        foreground: Part of the labelled patches that are centred on foreground.

    Raises:
        InputError: A value is out of range.
    """

    patch: tuple[int, int, int] = (64, 64, 32)
    augmentation: str = "turns"
    foreground: float = 0.0

    def __post_init__(self) -> None:
        refuse_patch(self.patch)
        if self.augmentation not in ("none", "turns", "strong"):
            raise InputError(f"augmentation {self.augmentation}: choose none, turns or strong")
        if not 0 <= self.foreground <= 1:
            raise InputError(f"foreground {self.foreground}: must lie in 0 to 1")


@dataclass(frozen=True)
class Few:
    """What is learned from: labelled volumes, unlabelled ones, and those that choose the weights."""

    labelled: VolumeSource
    unlabelled: VolumeSource
    validation: VolumeSource

    @staticmethod
    def of(train: Dataset, validation: Dataset, preparation: Preparation) -> Few:
        """Parts of a training part whose labels some records lack.

        Raises:
            InputError: None has a label.
        """
        labelled = train.where(lambda record: record.mask is not None)
        if not len(labelled):
            raise InputError(f"{train.root}: holds no volume with a label to train on; label some, or state labelled=")
        unlabelled = train.where(lambda record: record.mask is None)
        return Few(*(VolumeSource(part, preparation) for part in (labelled, unlabelled, validation.annotated)))


def train_volumes(few: Few, config: SemiConfig, patches: PatchConfig, out: Path) -> Path:
    """Train on volumes; called again, continue where it stopped.

    Args:
        few: The data.
        config: How to train.
        patches: How volumes are seen.
        out: Run folder.

    Returns:
        `out`, which `morphogen.segmenters.diffcl.volume_predictor` reads.

    Raises:
        InputError: The method needs unlabelled volumes and there are none, or `out` holds another run.
        WorkError: The loss is not finite, or the disk is full.
    """
    dataset = few.labelled.dataset
    config = replace(config, lr=1e-3 if config.lr is None else config.lr, ema_decay=config.ema_decay or 0.0)
    refuse_patch(patches.patch, config)
    if config.method != "supervised" and not len(few.unlabelled):
        raise InputError(
            f"{dataset.root}: holds no unlabelled volume for {config.method}; state labelled=, or method=supervised"
        )
    # the modules are Diff-CL's; baselines are plain networks
    net = config if config.method == "diff-cl" else replace(config, operator=NO_HFM)
    shape = net.shape(3, len(few.labelled[0].image), len(dataset.classes))
    denoiser = config.denoiser(3, shape.in_channels, shape.n_classes)
    parts = Parts(
        config,
        len(dataset.classes),
        lambda: VNet(shape),
        lambda: VNet(denoiser),
        torch.zeros(1, shape.in_channels, *patches.patch),
    )
    streams = [
        VolumePatches(source, patches.patch, patches.augmentation, patches.foreground)
        for source in (few.labelled, few.unlabelled)
    ]

    def save(folder: Path, nets: TwoNets) -> None:
        held = {"cs": asdict(shape), **({} if nets.ds is None else {"ds": asdict(denoiser)})}
        described = {
            KIND: "diffcl",
            "method": config.method,
            "networks": held,
            "classes": list(dataset.classes),
            "patch": list(patches.patch),
            "preparation": asdict(few.labelled.preparation),
            "signal_scale": config.signal_scale,
            "network": config.validate_by,
            "steps": config.test_steps,
        }
        save_net(folder, nets.state_dict(), described)

    task = SemiTask(parts, streams[0], streams[1], _validation(few.validation, patches.patch), save)
    described: dict[str, Any] = {
        "method": "diffcl",
        "kind": KIND,
        "segmenter": asdict(config),
        "patches": asdict(patches),
        "preparation": asdict(few.labelled.preparation),
        "classes": list(dataset.classes),
        "data": {
            name: {"n": len(source), "ids": hash_of(source.digest_rows)}
            for name, source in (
                ("labelled", few.labelled),
                ("unlabelled", few.unlabelled),
                ("validation", few.validation),
            )
        },
    }
    fit(task, config.loop(), out, described, label=f"training {config.method}")
    return out


def preparation_of(preset: VolumePreset | None, stated: Mapping[str, Any]) -> Preparation:
    """What is done to volumes: as the benchmark's files ask for, else z-score; and what is stated."""
    return replace(preset.preparation if preset else Preparation(), **stated)


def patches_of(preset: VolumePreset | None, stated: Mapping[str, Any]) -> PatchConfig:
    """How volumes are seen: as the benchmark is published, and what is stated."""
    published: dict[str, Any] = {}
    if preset is not None:
        published = {"patch": preset.patch, "augmentation": preset.augmentation}
    return PatchConfig(**{**published, **stated})


def _validation(source: VolumeSource, patch: Sequence[int]) -> Validation:
    volumes = [source[i] for i in range(len(source))]
    labels = [volume.label for volume in volumes if volume.label is not None]
    return Validation([torch.from_numpy(volume.image) for volume in volumes], labels, tuple(patch))
