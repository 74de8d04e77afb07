"""Records and datasets: the one shape in which every layout reaches the rest of the package."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from morphogen.errors import InputError


@dataclass(frozen=True)
class Record:
    """One image with what is known about it.

    Attributes:
        id: Unique within its dataset; also the stem of every file written for it.
        image: Image file (PNG, JPEG, TIFF, BMP or NIfTI; of whole volumes also HDF5).
        mask: Label map of the same height and width, or None for an unannotated image.
        caption: Free text, or None.
        label: Class of the whole image (a diagnosis), or None.
        subject: Patient, video sequence or volume; records of one subject never part in a split.
        split: ``train``, ``val``, ``test``, or None where the layout fixes none.
        plane: ``(axis, index)`` of a slice where `image` is a volume, else None.
        origin: Provenance of a synthetic pair (seed, source mask id, generator hash, ...), None for a real one.
        facts: What else is known, in words: any of ``site``, ``age`` (a band), ``sex``, ``texture`` (`data.facts`).
        channels: Files of the further channels of a whole volume, in order; their grid is that of `image`.
        axes: Of a whole volume: which axis of the file becomes X, Y and Z, or None where they come in this order.
    """

    id: str
    image: Path
    mask: Path | None = None
    caption: str | None = None
    label: str | None = None
    subject: str | None = None
    split: str | None = None
    plane: tuple[int, int] | None = None
    origin: Mapping[str, Any] | None = None
    facts: Mapping[str, str] = field(default_factory=dict, hash=False)
    channels: tuple[Path, ...] = ()
    axes: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Dataset:
    """An ordered manifest of records.

    Attributes:
        name: Short name, used in reports.
        root: Folder that it was read from.
        records: The records, ordered by id (whole volumes that lists name: in the order of the lists).
        classes: Class names by label id; index 0 is the background.
        mask_values: Raw mask value -> label id, as decided once for the whole dataset.
    """

    name: str
    root: Path
    records: tuple[Record, ...]
    classes: tuple[str, ...] = ("background", "lesion")
    mask_values: Mapping[int, int] = field(default_factory=lambda: {0: 0, 255: 1})

    def __post_init__(self) -> None:
        if len({record.id for record in self.records}) != len(self.records):
            seen: set[str] = set()
            twice = next(r.id for r in self.records if r.id in seen or seen.add(r.id))  # type: ignore[func-returns-value]
            raise InputError(f"{self.root}: the id {twice!r} occurs twice; rename one of the two files")

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def __getitem__(self, index: int) -> Record:
        return self.records[index]

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(record.id for record in self.records)

    @property
    def annotated(self) -> Dataset:
        """The records that have a mask."""
        return self.where(lambda record: record.mask is not None)

    def where(self, keep: Callable[[Record], bool]) -> Dataset:
        """The records for which `keep` is true, in the same order."""
        return replace(self, records=tuple(record for record in self.records if keep(record)))

    def select(self, ids: Iterable[str]) -> Dataset:
        """The records with these ids, in the order of `ids`.

        Raises:
            InputError: An id is not in this dataset.
        """
        by_id = {record.id: record for record in self.records}
        wanted = list(ids)
        for unknown in (i for i in wanted if i not in by_id):
            raise InputError(f"{self.root}: holds no record {unknown!r}; the split was made from other data")
        return replace(self, records=tuple(by_id[i] for i in wanted))
