"""What a table says of an image and its patient, in the words that grammars have: site, age, sex and texture."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping

COLUMNS = ("site", "localization", "age", "sex", "texture")
"""Columns of a table that facts are read from; HAM10000 calls the site ``localization``."""
FACTS = ("site", "age", "sex", "texture")
"""What may be known, in the order in which it is written."""
BANDS = ("child", "young", "middle-aged", "elderly")
_LIMITS = (18.0, 40.0, 65.0)
"""Years at which the second, third and fourth band begin."""
_NOTHING = ("", "unknown", "nan", "none", "na", "n/a")


def facts_of(row: Mapping[str, str]) -> dict[str, str]:
    """The facts in a table's row, in lower case; an age in years becomes its band.

    Words are taken as they stand: which of them a sentence has a place for is the grammar's to say (`Grammar.known`).

    Args:
        row: Cells by column; those of `COLUMNS` are read. Empty cells, and those that say "unknown", say nothing.
    """
    plain = {name: " ".join((row.get(name) or "").replace("_", " ").lower().split()) for name in COLUMNS}
    site = plain["site"] if plain["site"] not in _NOTHING else plain["localization"]
    found = {"site": site, "age": _band(plain["age"]), "sex": plain["sex"], "texture": plain["texture"]}
    return {name: word for name, word in found.items() if word not in _NOTHING}


def _band(age: str) -> str:
    """The band of an age in years; what is no number stays, for it may be a band already."""
    try:
        years = float(age)
    except ValueError:
        return age
    return BANDS[bisect_right(_LIMITS, years)] if years >= 0 else ""  # not a number is below nothing
