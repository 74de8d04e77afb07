"""Options of a dataclass as words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import pytest

from morphogen.errors import InputError
from morphogen.words import kinds_of, read_value


@dataclass(frozen=True)
class Config:
    kind: ClassVar[str] = "x"
    size: Literal["b0", "b1"] = "b0"
    steps: int = 3
    rate: float | None = None
    fast: bool = False
    scales: tuple[float, ...] = ()


KINDS = kinds_of(Config)


def test_fields_by_their_types() -> None:
    assert {"size": str, "steps": int, "rate": float, "fast": bool} == KINDS


@pytest.mark.parametrize(
    ("option", "word", "value"),
    [
        ("size", "b1", "b1"),
        ("steps", "12", 12),
        ("rate", "1e-3", 1e-3),
        ("fast", "true", True),
        ("fast", "False", False),
    ],
)
def test_values(option: str, word: str, value: object) -> None:
    found = read_value(KINDS, option, word, "net")
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("option", "word", "said"),
    [
        ("steps", "1.5", "net steps=1.5: steps takes a whole number"),
        ("rate", "fast", "net rate=fast: rate takes a number"),
        ("fast", "1", "net fast=1: fast takes true or false"),
        ("step", "1", "net step=1: there is no option 'step'; did you mean 'steps'"),
    ],
)
def test_what_is_no_value(option: str, word: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_value(KINDS, option, word, "net")
