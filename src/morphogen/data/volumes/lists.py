"""The lists of a benchmark: text files that name one volume a line, in an order that matters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from morphogen.data.faults import FaultError
from morphogen.data.images import VOLUME_SUFFIXES
from morphogen.data.volumes.hdf5 import H5_SUFFIXES

NAMES: Mapping[str, tuple[str, ...]] = {
    "train": ("train.list", "train.txt"),
    "val": ("val.list", "val.txt"),
    "test": ("test.list", "test.txt"),
    "labelled": ("labelled.list", "labelled.txt", "labeled.list", "labeled.txt", "train_lab.list", "train_lab.txt"),
    "unlabelled": (
        *("unlabelled.list", "unlabelled.txt", "unlabeled.list", "unlabeled.txt"),
        *("train_unlab.list", "train_unlab.txt"),
    ),
}
"""File names by part; of each part the first that is there is read."""

_MAKES_A_TRAINING_PART = ("train", "labelled", "unlabelled")


@dataclass(frozen=True)
class Line:
    """One volume that a list names.

    Attributes:
        id: Its name, without the ending of a volume file.
        file: The list.
        number: The line, from 1.
    """

    id: str
    file: Path
    number: int

    @property
    def where(self) -> str:
        """The line in words, for what follows the list's name in an error."""
        return f"line {self.number} names {self.id!r}"


@dataclass(frozen=True)
class Parts:
    """What the lists of a folder say.

    Attributes:
        lines: Of train, val and test, as far as there are such lists.
        labelled: The lines of the list of the labelled by id; empty without one.
        unlabelled: Training ids whose labels are not to be used.
    """

    lines: Mapping[str, list[Line]]
    labelled: Mapping[str, Line]
    unlabelled: set[str]


def list_files(folder: Path) -> dict[str, Path]:
    """The lists in a folder by part; empty where none of them makes a training part."""
    found = {}
    for part, names in NAMES.items():
        there = [folder / name for name in names if (folder / name).is_file()]
        if there:
            found[part] = there[0]
    return found if any(part in found for part in _MAKES_A_TRAINING_PART) else {}


def read_list(path: Path) -> list[Line]:
    """The lines of a list. What follows a comma is left out, and so is the ending of a volume file.

    Raises:
        InputError: Not text, empty, or a name that occurs twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise FaultError(path, "is not text in UTF-8", "save it again, one name a line") from error
    lines: dict[str, Line] = {}
    for number, row in enumerate(text.splitlines(), start=1):
        name = _without_ending(row.split(",")[0].strip())
        if name in lines:
            raise FaultError(path, f"line {number} names {name!r} again", "keep one of the lines")
        if name:
            lines[name] = Line(name, path, number)
    if not lines:
        raise FaultError(path, "is empty", "name one volume a line, or remove the file")
    return list(lines.values())


def read_parts(files: Mapping[str, Path]) -> Parts:
    """The lines of train, val and test, and what lists say of labels.

    The training part is the list train in its order; without one, the labelled and then the unlabelled.

    Args:
        files: As of `list_files`.

    Raises:
        InputError: A list is empty; an id is in two lists; one of a labelled list is not in the training part.
    """
    read = {part: read_list(path) for part, path in files.items()}
    labelled, unlabelled = read.pop("labelled", []), read.pop("unlabelled", [])
    _refuse_overlap([labelled, unlabelled])
    training = {line.id for line in read.setdefault("train", [*labelled, *unlabelled])}
    for line in (*labelled, *unlabelled):
        if line.id not in training:
            raise FaultError(line.file, f"{line.where}, which is not in {files['train'].name}", "add it there")
    parts: dict[str, list[Line]] = dict(sorted(read.items(), key=_by_use))
    _refuse_overlap(list(parts.values()))
    wanted = {line.id: line for line in labelled}
    return Parts(parts, wanted, training - set(wanted) if wanted else {line.id for line in unlabelled})


def _by_use(part: tuple[str, list[Line]]) -> int:
    return ("train", "val", "test").index(part[0])


def _refuse_overlap(lists: list[list[Line]]) -> None:
    seen: dict[str, Line] = {}
    for line in (line for lines in lists for line in lines):
        if line.id in seen:
            other = seen[line.id]
            fault = f"{line.where}, which is in {other.file.name} too (line {other.number})"
            raise FaultError(line.file, fault, "leave it in one of them")
        seen[line.id] = line


def _without_ending(name: str) -> str:
    ending = next((e for e in (*VOLUME_SUFFIXES[::-1], *H5_SUFFIXES) if name.lower().endswith(e)), "")
    return name[: len(name) - len(ending)]
