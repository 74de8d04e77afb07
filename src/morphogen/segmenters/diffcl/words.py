"""Options of semi-supervised training as words: ``la2018+method=cps+spacing=2.5+patch=64x48x32``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from morphogen.data.volumes.presets import PRESETS
from morphogen.errors import InputError
from morphogen.segmenters.diffcl.config import SemiConfig
from morphogen.segmenters.diffcl.volumes import PatchConfig
from morphogen.words import kinds_of, read_value

_TRIPLES = {"patch": int, "spacing": float}
_PAIRS = {"window": float, "percentiles": float}
_DATA = {"labelled": int, "normalise": str, "reorient": bool}
ALL = "all"
"""Value of ``labelled`` by which every label counts: the fully supervised upper bound, with ``method=supervised``."""


@dataclass(frozen=True)
class Words:
    """What was said.

    Attributes:
        layout: Name of a benchmark's layout (`morphogen.data.volumes.presets`), or None.
        network: Segmenter that learns, of pictures.
        semi: Fields of `SemiConfig`.
        patches: Fields of `PatchConfig`.
        preparation: Fields of `Preparation`.
        labelled: How many training records keep their label; None for all.
    """

    layout: str | None = None
    network: str | None = None
    semi: Mapping[str, Any] = field(default_factory=dict)
    patches: Mapping[str, Any] = field(default_factory=dict)
    preparation: Mapping[str, Any] = field(default_factory=dict)
    labelled: int | None = None


def read_words(text: str, said: str = "--preset") -> Words:
    """What ``a+option=value+...`` says; of a word that comes twice the last one counts.

    Args:
        text: The words.
        said: The option under which they stand, for errors.

    Raises:
        InputError: A word that is neither a layout nor an option, or a value that its option cannot take.
    """
    layout: str | None = None
    found: dict[str, Any] = {}
    scalars = {**kinds_of(SemiConfig), **kinds_of(PatchConfig), **_DATA, "network": str}
    del scalars["augmentation"]
    known = {**scalars, **dict.fromkeys((*_TRIPLES, *_PAIRS, "augmentation"), str)}
    for word in filter(None, text.split("+")):
        option, sign, value = word.partition("=")
        name = option.replace("-", "_")
        if not sign:
            if word not in PRESETS:
                raise InputError(f"{said} {word}: is neither option=value nor one of {', '.join(PRESETS)}")
            layout = word
        elif name in _TRIPLES:
            found[name] = _numbers(said, word, value, 3, _TRIPLES[name])
        elif name in _PAIRS:
            found[name] = _numbers(said, word, value, 2, _PAIRS[name])
        elif name == "labelled" and value == ALL:
            found[name] = None
        else:
            found[name] = read_value(known, option, value, said)
    groups: dict[str, dict[str, Any]] = {"semi": {}, "patches": {}, "preparation": {}}
    semi = {f.name for f in fields(SemiConfig)} - {"augmentation"}
    patches = {f.name for f in fields(PatchConfig)}
    for name, value in found.items():
        if name not in ("labelled", "network"):
            groups["semi" if name in semi else "patches" if name in patches else "preparation"][name] = value
    return Words(layout, found.get("network"), labelled=found.get("labelled"), **groups)


def _numbers(said: str, word: str, value: str, n: int, kind: type) -> tuple[Any, ...]:
    """``64x48x32`` or one number for all; two numbers are parted by a colon: ``-125:275``."""
    parts = value.split("x" if n == 3 else ":")
    try:
        numbers = tuple(kind(part) for part in parts)
    except ValueError:
        numbers = ()
    if n == 3 and len(numbers) == 1:
        numbers *= 3
    if len(numbers) != n:
        example = "64x64x32, or one number" if n == 3 else "-125:275"
        raise InputError(f"{said} {word}: write {n} numbers, as {example}")
    return numbers
