"""Classifiers: ``forward((B, 3, R, R) in [-1, 1]) -> (B, K) logits``.

`CLASSIFIERS` is the table of them. It holds import paths, so that listing the classifiers imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from morphogen.errors import InputError
from morphogen.registry import Entry, Registry, load

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class ClassifierEntry(Entry):
    """One line of the table.

    Attributes:
        multiple: The side of its images must be a multiple of this, in px.
    """

    multiple: int


CLASSIFIERS: dict[str, ClassifierEntry] = {
    "small": ClassifierEntry(
        name="small",
        summary="small convolutional network from scratch, for the CPU",
        source="plain strided convolutions with batch normalisation (Ioffe and Szegedy, ICML 2015)",
        config="morphogen.classifiers.small:SmallConfig",
        build="morphogen.classifiers.small:build",
        multiple=1,
        lr=2e-3,
    ),
    "lite0": ClassifierEntry(
        name="lite0",
        summary="EfficientNet-Lite0 on ImageNet weights (weights.txt), all of it trained on",
        source="Tan and Le, ICML 2019, arXiv:1905.11946 (Lite variant: TensorFlow TPU models, 2020)",
        config="morphogen.classifiers.lite0:Lite0Config",
        build="morphogen.classifiers.lite0:build",
        multiple=32,
        lr=1e-3,
    ),
    "resnet50": ClassifierEntry(
        name="resnet50",
        summary="ResNet-50",
        source="He et al., CVPR 2016, arXiv:1512.03385",
        config="morphogen.classifiers.vision:VisionConfig",
        build="morphogen.classifiers.vision:build_resnet50",
        multiple=32,
        lr=1e-4,
    ),
    "vit-b16": ClassifierEntry(
        name="vit-b16",
        summary="vision transformer ViT-B/16, positions interpolated to the resolution",
        source="Dosovitskiy et al., ICLR 2021, arXiv:2010.11929",
        config="morphogen.classifiers.vision:VisionConfig",
        build="morphogen.classifiers.vision:build_vit_b16",
        multiple=16,
        lr=1e-4,
    ),
    "convnext": ClassifierEntry(
        name="convnext",
        summary="ConvNeXt-T",
        source="Liu et al., CVPR 2022, arXiv:2201.03545",
        config="morphogen.classifiers.vision:VisionConfig",
        build="morphogen.classifiers.vision:build_convnext",
        multiple=32,
        lr=1e-4,
    ),
}


_TABLE = Registry("classifier", CLASSIFIERS)
entry, named, read_options, option_names = _TABLE.entry, _TABLE.named, _TABLE.read_options, _TABLE.option_names


def resolve(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The complete architecture options of a classifier.

    Args:
        name: Classifier.
        options: Some or all fields of its config.

    Raises:
        InputError: Unknown classifier, field or value.
    """
    return asdict(_TABLE.configure(name, options))


def build(name: str, n_classes: int, options: Mapping[str, Any] | None = None, pretrained: bool = True) -> nn.Module:
    """A network ``(B, 3, R, R) in [-1, 1] -> (B, n_classes) logits``, R a multiple of the entry's ``multiple``.

    Args:
        name: Classifier.
        n_classes: K.
        options: Fields of its config.
        pretrained: Load the weights that the options name; False where trained weights follow.

    Raises:
        InputError: Unknown classifier, field or value, or the weights cannot be had.
    """
    return load(entry(name).build)(n_classes, _TABLE.configure(name, options or {}), pretrained)


def refuse_size(name: str, resolution: int) -> None:
    """Refuse a resolution that the network's strides do not divide.

    Raises:
        InputError: `resolution` is no multiple of what the classifier needs.
    """
    multiple = entry(name).multiple
    if resolution % multiple:
        near = max(1, round(resolution / multiple)) * multiple
        raise InputError(f"--resolution {resolution}: {name} takes multiples of {multiple} px; take {near}")
