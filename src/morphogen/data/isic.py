"""The layouts of two dermoscopy archives, as they are downloaded: HAM10000 and the ISIC 2018 challenge.

`ham10000`: HAM10000_metadata.csv (or .tab, or without a suffix), images in HAM10000_images_part_1/ and _part_2/ (or in
images/, or beside the table), masks ID_segmentation.png in any folder (or ID.png in masks/). Class: the diagnosis in
the words of the grammar `skin`. Subject: the lesion, which may have several images. Facts: localization, age, sex.
Folders of ISIC 2018 beside the table are not read.

`isic2018`: any of ISIC2018_Task1-2_PART_Input, ISIC2018_Task1_PART_GroundTruth (masks), ISIC2018_Task3_PART_Input,
ISIC2018_Task3_PART_GroundTruth (a table of diagnoses, in a folder or alone), PART one of Training, Validation and Test,
and ISIC2018_Task3_Training_LesionGroupings.csv (subjects). The parts are the split, where the test part has masks or
diagnoses; else the split is left open, so that one can be drawn.

An image without a mask, or without a row in the table, is a record without mask, or without class and subject.
"""

from __future__ import annotations

import csv
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from morphogen.data.facts import facts_of
from morphogen.data.faults import Fault, FaultError, Sink
from morphogen.data.folders import caption_beside
from morphogen.data.images import is_image, stem
from morphogen.data.records import Record

DIAGNOSES: Mapping[str, str] = {
    "akiec": "actinic keratosis",
    "bcc": "basal cell carcinoma",
    "bkl": "benign keratosis",
    "df": "dermatofibroma",
    "mel": "melanoma",
    "nv": "melanocytic nevus",
    "vasc": "vascular lesion",
}
_TABLES = ("HAM10000_metadata.csv", "HAM10000_metadata", "HAM10000_metadata.tab")
_PARTS: Mapping[str, str] = {"Training": "train", "Validation": "val", "Test": "test"}
_GROUPINGS = "ISIC2018_Task3_Training_LesionGroupings.csv"
_MASK = "_segmentation"
_ONE, _ZERO = ("1", "1.0"), ("0", "0.0")

_Rows = dict[str, tuple[int, dict[str, str]]]
"""Of a table, by image id: the line number and the cells by column name."""


def recognise_ham10000(root: Path) -> bool:
    """Whether HAM10000_metadata is there, with or without a suffix."""
    return any((root / name).is_file() for name in _TABLES)


def recognise_isic2018(root: Path) -> bool:
    """Whether a folder ISIC2018_..._Input is there."""
    return any((root / _input(task, part)).is_dir() for task in ("1-2", "3") for part in _PARTS)


def scan_ham10000(root: Path, sink: Sink) -> list[Record]:
    """One record an image: its lesion is the subject, its diagnosis the class.

    Raises:
        InputError: The table lacks a column.
    """
    table = next(root / name for name in _TABLES if (root / name).is_file())
    images = _by_id(_files(_ham_images(root), masks=False), sink)
    masks = _by_id(_files([root, *_folders(root)], masks=True), sink)
    rows = _read(table, "image_id", ("lesion_id", "dx"), sink)
    _report_absent(table, rows, images, sink)
    labels = {name: _named(table, line, row["dx"], sink) for name, (line, row) in rows.items()}
    subjects = {name: row["lesion_id"] for name, (_, row) in rows.items()}
    facts = {name: facts_of(row) for name, (_, row) in rows.items()}
    records = _records(images, masks, labels, subjects, sink)
    return [replace(record, facts=facts.get(record.id, {})) for record in records]


def scan_isic2018(root: Path, sink: Sink) -> list[Record]:
    """One record an image of whichever tasks and parts are there; an image of both tasks is one record.

    Raises:
        InputError: A table lacks a column, or has one for an unknown diagnosis.
    """
    records: dict[str, Record] = {}
    for part, split in _PARTS.items():
        for record in (*_task_1(root, part, sink), *_task_3(root, part, sink)):
            other = records.get(record.id)
            if other is not None and other.split != split:
                fault = f"is in the {other.split} part too ({other.image.parent.name})"
                sink(Fault(record.image, fault, "remove it from one of the two"))
            elif other is not None:
                records[record.id] = replace(other, label=record.label, subject=record.subject)
            else:
                records[record.id] = replace(record, split=split)
    if any(r.split == "test" and (r.mask or r.label) for r in records.values()):
        return list(records.values())
    return [replace(record, split="test" if record.split == "test" else None) for record in records.values()]


def _task_1(root: Path, part: str, sink: Sink) -> list[Record]:
    images = _by_id(_files([root / _input("1-2", part)], masks=False), sink)
    masks = _by_id(_files([root / f"ISIC2018_Task1_{part}_GroundTruth"], masks=True), sink)
    return _records(images, masks, {}, {}, sink)


def _task_3(root: Path, part: str, sink: Sink) -> list[Record]:
    images = _by_id(_files([root / _input("3", part)], masks=False), sink)
    named = f"ISIC2018_Task3_{part}_GroundTruth"
    labels, subjects = dict[str, str | None](), dict[str, str]()
    for table in (root / named / f"{named}.csv", root / f"{named}.csv"):
        if table.is_file():
            labels |= _one_hot(table, images, sink)
    groupings = [path for path in (root / _GROUPINGS, root / named / _GROUPINGS) if path.is_file()]
    if part == "Training" and groupings:
        rows = _read(groupings[0], "image", ("lesion_id",), sink)
        _report_absent(groupings[0], rows, images, sink)
        subjects = {name: row["lesion_id"] for name, (_, row) in rows.items()}
    elif part == "Training" and images:
        fault = "is not there, so that images of one lesion cannot be kept on one side of a split"
        sink(Fault(root / _GROUPINGS, fault, "download it from the ISIC 2018 challenge, Task 3", fatal=False))
    return _records(images, {}, labels, subjects, sink)


def _one_hot(table: Path, images: Container[str], sink: Sink) -> dict[str, str | None]:
    """Diagnosis by image id, from a table with one column of zeros and ones for each."""
    codes = [code.upper() for code in DIAGNOSES]
    rows = _read(table, "image", codes, sink)
    _report_absent(table, rows, images, sink)
    labels: dict[str, str | None] = {}
    for name, (line, row) in rows.items():
        for unknown in (column for column in row if column not in ("image", *codes)):
            fault = f"has the column {unknown!r}, which is none of the diagnoses {', '.join(codes)}"
            raise FaultError(table, fault, "remove that column and the images that it marks")
        marked = [code for code in codes if row[code] in _ONE]
        if len(marked) != 1 or any(row[code] not in (*_ONE, *_ZERO) for code in codes):
            sink(Fault(table, f"line {line} ({name}) does not mark one diagnosis", "write one 1 and else 0 into it"))
            continue
        labels[name] = DIAGNOSES[marked[0].lower()]
    return labels


def _input(task: str, part: str) -> str:
    return f"ISIC2018_Task{task}_{part}_Input"


def _folders(root: Path) -> list[Path]:
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    return [path for path in folders if not path.name.startswith((".", "ISIC2018_"))]


def _ham_images(root: Path) -> list[Path]:
    """Folders with the images; a much used mirror has each of them a second time, under a name in lower case."""
    parts = {f.name.lower(): f for f in reversed(_folders(root)) if f.name.lower().startswith("ham10000_images")}
    return [parts[name] for name in sorted(parts)] or [root / "images" if (root / "images").is_dir() else root]


def _files(folders: Iterable[Path], masks: bool) -> Iterator[Path]:
    """Either the masks or the images of those folders that are there."""
    for folder in (folder for folder in folders if folder.is_dir()):
        all_masks = folder.name == "masks" or folder.name.endswith("_GroundTruth")
        for path in sorted(folder.iterdir()):
            if is_image(path) and (all_masks or stem(path).endswith(_MASK)) == masks:
                yield path


def _by_id(paths: Iterable[Path], sink: Sink) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in paths:
        name = stem(path).removesuffix(_MASK)
        if name in files:
            sink(Fault(path, f"has the id of {files[name].parent.name}/{files[name].name}", "remove one of the two"))
            continue
        files[name] = path
    return files


def _read(table: Path, key: str, columns: Sequence[str], sink: Sink) -> _Rows:
    """Rows of a table with commas or tabs.

    Raises:
        InputError: A column is missing.
    """
    rows: _Rows = {}
    with table.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        delimiter = "\t" if "\t" in file.readline() else ","
        file.seek(0)
        reader = csv.DictReader(file, delimiter=delimiter)
        for missing in (column for column in (key, *columns) if column not in (reader.fieldnames or ())):
            raise FaultError(table, f"has no column named {missing}", "take the table as it was published")
        for row in reader:
            cells = {column: (cell or "").strip() for column, cell in row.items() if column is not None}
            name = cells[key]
            if name in rows:
                fault = f"line {reader.line_num} names {name!r} again (line {rows[name][0]})"
                sink(Fault(table, fault, "keep one of the two lines"))
                continue
            rows[name] = reader.line_num, cells
    return rows


def _report_absent(table: Path, rows: _Rows, images: Container[str], sink: Sink) -> None:
    absent = [(line, name) for name, (line, _) in rows.items() if name not in images]
    if absent:
        line, name = absent[0]
        fault = f"line {line} names {name!r}, whose image is not there ({len(absent)} of {len(rows)} lines)"
        sink(Fault(table, fault, "unpack all parts of the images here, or remove those lines"))


def _named(table: Path, line: int, code: str, sink: Sink) -> str | None:
    """The diagnosis in words; an empty cell is none."""
    if code and code.lower() not in DIAGNOSES:
        remedy = f"write one of {', '.join(DIAGNOSES)}, or leave the cell empty"
        sink(Fault(table, f"line {line} has the unknown diagnosis {code!r}", remedy))
    return DIAGNOSES.get(code.lower())


def _records(
    images: Mapping[str, Path],
    masks: Mapping[str, Path],
    labels: Mapping[str, str | None],
    subjects: Mapping[str, str],
    sink: Sink,
) -> list[Record]:
    alone = [path for name, path in masks.items() if name not in images]
    if alone:
        fault = f"is a mask whose image is not there ({len(alone)} of {len(masks)} masks)"
        sink(Fault(alone[0], fault, "unpack all parts of the images, or remove those masks"))
    return [
        Record(name, path, masks.get(name), caption_beside(path), labels.get(name), subjects.get(name) or None)
        for name, path in images.items()
    ]
