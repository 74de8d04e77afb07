"""Labelled phantoms in memory, with the interface of `Pairs`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from morphogen.data.phantoms import phantom
from morphogen.data.records import Dataset, Record

KINDS = ("mucosa", "skin")


class LabelledPhantoms:
    """Phantoms of both kinds, whose kind is their class.

    `labels` names the kind of each; where it is a number, so many of both kinds in turn.
    """

    def __init__(self, labels: int | Sequence[str], resolution: int = 32, first_seed: int = 0) -> None:
        names = [KINDS[i % 2] for i in range(labels)] if isinstance(labels, int) else list(labels)
        self.resolution = resolution
        records = [Record(f"{first_seed + i:05d}", Path("none.png"), label=name) for i, name in enumerate(names)]
        self.dataset = Dataset(f"phantoms{first_seed}", Path(f"phantoms{first_seed}"), tuple(records))
        made = [phantom(name, first_seed + i, resolution)[0] for i, name in enumerate(names)]
        self.images = [np.ascontiguousarray(image.transpose(2, 0, 1)) for image in made]

    def __len__(self) -> int:
        return len(self.images)

    def image(self, index: int) -> np.ndarray:
        return self.images[index]

    def relabelled(self, label: str | None, *indices: int) -> LabelledPhantoms:
        """Itself, with another label on some records."""
        records = [replace(r, label=label) if i in indices else r for i, r in enumerate(self.dataset)]
        self.dataset = replace(self.dataset, records=tuple(records))
        return self
