"""Classifiers: ``forward((B, 3, R, R) in [-1, 1]) -> (B, K) logits``.

`CLASSIFIERS` is the table of them. It holds import paths, so that listing the classifiers imports nothing heavy.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from morphogen.errors import InputError
from morphogen.words import kinds_of, read_value

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ClassifierEntry:
    """One line of the table.

    Attributes:
        name: What the user writes.
        summary: One line for ``morphogen models``.
        source: Where the architecture was published.
        config: Import path ``module:Class`` of its frozen config.
        build: Import path ``module:function`` of ``(n_classes, config, pretrained) -> nn.Module``.
        multiple: The side of its images must be a multiple of this, in px.
        lr: Peak learning rate of AdamW in short trainings, where none is stated.
    """

    name: str
    summary: str
    source: str
    config: str
    build: str
    multiple: int
    lr: float


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


def entry(name: str) -> ClassifierEntry:
    """The table's line for `name`.

    Raises:
        InputError: There is no such classifier.
    """
    if name not in CLASSIFIERS:
        raise InputError(f"{name}: no such classifier; known are {', '.join(CLASSIFIERS)}")
    return CLASSIFIERS[name]


def named(words: str) -> tuple[str, dict[str, Any]]:
    """A classifier and its options, as ``classifier+option=value+...`` names them.

    Raises:
        InputError: Unknown classifier or option, or a value that its option cannot take.
    """
    name, *options = words.split("+")
    return name, read_options(name, options)


def read_options(name: str, words: Sequence[str]) -> dict[str, Any]:
    """Options of a classifier's architecture from words ``option=value``.

    Raises:
        InputError: Unknown classifier or option, or a value that its option cannot take.
    """
    kinds = kinds_of(_load(entry(name).config))
    values: dict[str, Any] = {}
    for word in words:
        option, sign, value = word.partition("=")
        if not sign:
            raise InputError(f"{name}+{word}: is not option=value; {name} has {', '.join(kinds)}")
        values[option.replace("-", "_")] = read_value(kinds, option, value, name)
    return values


def resolve(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The complete architecture options of a classifier.

    Args:
        name: Classifier.
        options: Some or all fields of its config.

    Raises:
        InputError: Unknown classifier, field or value.
    """
    return dataclasses.asdict(_config(name, options))


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
    return _load(entry(name).build)(n_classes, _config(name, options or {}), pretrained)


def option_names(name: str) -> list[str]:
    """The fields of a classifier's config.

    Raises:
        InputError: There is no such classifier.
    """
    return [field.name for field in dataclasses.fields(_load(entry(name).config))]


def refuse_size(name: str, resolution: int) -> None:
    """Refuse a resolution that the network's strides do not divide.

    Raises:
        InputError: `resolution` is no multiple of what the classifier needs.
    """
    multiple = entry(name).multiple
    if resolution % multiple:
        near = max(1, round(resolution / multiple)) * multiple
        raise InputError(f"--resolution {resolution}: {name} takes multiples of {multiple} px; take {near}")


def _config(name: str, options: Mapping[str, Any]) -> Any:
    cls, known = _load(entry(name).config), option_names(name)
    for option in options:
        if option not in known:
            near = difflib.get_close_matches(option, known, n=1, cutoff=0.0)[0]
            raise InputError(f"{name}: has no option {option!r}; did you mean {near!r}?")
    return cls(**options)


def _load(path: str) -> Any:
    module, attribute = path.split(":")
    return getattr(import_module(module), attribute)
