"""Options of a frozen dataclass as words: ``option=value``, the value read by the field's type."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from morphogen.errors import InputError


def kinds_of(cls: type[Any]) -> dict[str, type]:
    """Field -> bool, int, float or str; of ``X | None`` it is X, of a choice between words str. Others are left out."""
    kinds: dict[str, type] = {}
    for name, hint in get_type_hints(cls).items():
        kind: Any = hint
        if get_origin(hint) in (Union, UnionType):
            kind = next(part for part in get_args(hint) if part is not type(None))
        elif get_origin(hint) is Literal:
            kind = str
        if kind in (bool, int, float, str):
            kinds[name] = kind
    return kinds


def read_value(kinds: Mapping[str, type], option: str, word: str, said: str) -> Any:
    """The value of ``option=word``.

    Args:
        kinds: As of `kinds_of`.
        option: One of them, with dashes or underscores.
        word: What the user wrote.
        said: The option of the verb under which it was written, for the error.

    Raises:
        InputError: There is no such option, or the word is no value of its type.
    """
    name = option.replace("-", "_")
    if name not in kinds:
        near = difflib.get_close_matches(name, kinds, n=1, cutoff=0.0)[0]
        raise InputError(f"{said} {option}={word}: there is no option {option!r}; did you mean {near!r}?")
    kind = kinds[name]
    try:
        return {"true": True, "false": False}[word.lower()] if kind is bool else kind(word)
    except (ValueError, KeyError):
        wanted = "true or false" if kind is bool else {int: "a whole number", float: "a number"}[kind]
        raise InputError(f"{said} {option}={word}: {option} takes {wanted}") from None
