"""Presets of a generator as words: names, a foundation's folder, hub id or short name, and ``option=value``, joined by
``+``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from morphogen.errors import InputError
from morphogen.words import read_value


def preset_values(words: str, presets: Mapping[str, Mapping[str, Any]], kinds: Mapping[str, type]) -> dict[str, Any]:
    """What the words of ``--preset`` set, the later ones over the earlier ones.

    Args:
        words: Joined by ``+``; or a folder alone, whose name may hold one.
        presets: Name -> what it changes.
        kinds: Options that words can set (`morphogen.words.kinds_of`).

    Raises:
        InputError: No such preset, or a value that its option cannot take.
    """
    from morphogen.foundation.model import HUB, UNPINNED

    if words not in presets and Path(words).is_dir():  # a folder that happens to have a preset's name takes a ./
        return {"foundation": words}
    values: dict[str, Any] = {}
    for name in words.split("+"):
        option, sign, word = name.partition("=")
        if sign and option.replace("-", "_") in kinds:
            values[option.replace("-", "_")] = read_value(kinds, option, word, "--preset")
            continue
        if name not in presets and ("/" in name or name in {*HUB, *UNPINNED} or Path(name).is_dir()):
            values["foundation"] = name
            continue
        if name not in presets and sign:
            read_value(kinds, option, word, "--preset")  # names the nearest option
        if name not in presets:
            known = ", ".join(presets)
            raise InputError(
                f"--preset {name}: no such preset; choose from {known}, or give a foundation's folder or hub id, "
                "or option=value"
            )
        values |= presets[name]
    return values


def named_first(words: str, presets: Mapping[str, Mapping[str, Any]]) -> str:
    """The words of ``--preset`` in another order: named ones as their table has them, then the others as they stand."""
    if Path(words).is_dir():  # whose name may hold a +
        return words
    order = [*presets]
    return "+".join(sorted(words.split("+"), key=lambda word: (*order, word).index(word)))
