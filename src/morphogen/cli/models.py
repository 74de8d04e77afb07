"""``morphogen models``: what can be trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from morphogen.cli.verb import Verb


@dataclass(frozen=True, kw_only=True)
class Models(Verb):
    """List every method with one line, its kind and its source."""

    def run(self) -> dict[str, Any]:
        """Print the tables of generators, segmenters and classifiers.

        Returns:
            ``{"generators": [{"name", "summary", "source", "needs"}], "segmenters": [{"name", "summary", "source"}],
            "classifiers": [...]}``
        """
        from morphogen.classifiers import CLASSIFIERS
        from morphogen.generators import GENERATORS
        from morphogen.segmenters import SEGMENTERS

        families: dict[str, Mapping[str, Any]]
        families = {"generators": GENERATORS, "segmenters": SEGMENTERS, "classifiers": CLASSIFIERS}
        for family, entries in families.items():
            print(f"{family}:")
            for entry in entries.values():
                print(f"  {entry.name:<14}{entry.summary}  ({entry.source})")
        return {family: [_row(entry) for entry in entries.values()] for family, entries in families.items()}


def _row(entry: Any) -> dict[str, Any]:
    row = {"name": entry.name, "summary": entry.summary, "source": entry.source}
    return row | ({"needs": sorted(entry.needs)} if hasattr(entry, "needs") else {})
