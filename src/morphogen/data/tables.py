"""The small files beside any layout: records.csv, classes.txt, manifest.jsonl; and JSON-lines and path helpers."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from morphogen.data.facts import COLUMNS, facts_of
from morphogen.data.faults import Fault, FaultError, Sink
from morphogen.data.records import Record
from morphogen.errors import InputError
from morphogen.progress import say

_SPLITS = {"train": "train", "training": "train", "val": "val", "validation": "val", "test": "test", "": None}


def inside(root: Path, name: object, manifest: Path) -> Path:
    """`root / name`, for a name that came from a file.

    Raises:
        InputError: Not text, absolute, or leading out of `root`.
    """
    if not isinstance(name, str) or not name:
        raise FaultError(manifest, f"gives {name!r} as a file name", "write a path relative to its folder")
    path = Path(os.path.normpath(root / name.replace("\\", "/")))
    if not path.is_relative_to(os.path.normpath(root)) or Path(name).is_absolute():
        raise FaultError(manifest, f"names {name!r}, which lies outside its folder", "use paths inside the folder")
    return path


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file.

    Raises:
        InputError: Names the line that is no JSON object.
    """
    with path.open(encoding="utf-8-sig", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                row = None
            if not isinstance(row, dict):
                raise FaultError(path, f"line {number} is not a JSON object", "write one object per line")
            yield row


def read_classes(root: Path) -> tuple[str, ...] | None:
    """Class names of classes.txt, background first, or None without such a file.

    Raises:
        InputError: Not in UTF-8, or fewer than two names.
    """
    path = root / "classes.txt"
    if not path.is_file():
        return None
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not text in UTF-8; save it again in that encoding") from error
    names = tuple(line.strip() for line in lines if line.strip())
    if len(names) < 2:
        raise InputError(f"{path}: holds fewer than two names; write one per line, the background first")
    return names


def apply_records_csv(root: Path, records: Sequence[Record], sink: Sink) -> list[Record]:
    """Add subject, class, caption, split and facts from records.csv, where there is one; it need not name all.

    Raises:
        InputError: No id column.
    """
    path = root / "records.csv"
    if not path.is_file():
        return list(records)
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.DictReader(file)
        if "id" not in (reader.fieldnames or ()):
            raise InputError(f"{path}: has no column named id; name the stems of images/ in it")
        rows = [{key: (value or "").strip() for key, value in row.items() if key in _COLUMNS} for row in reader]
    by_id = {record.id: record for record in records}
    seen: set[str] = set()
    for row in rows:
        fault = _fault_in(row, path, by_id, seen)
        if fault is not None:
            sink(fault)
            continue
        seen.add(row["id"])
        by_id[row["id"]] = _with_row(by_id[row["id"]], row)
    return list(by_id.values())


_COLUMNS = ("id", "subject", "class", "caption", "split", *COLUMNS)


def _fault_in(row: dict[str, str], path: Path, by_id: dict[str, Record], seen: set[str]) -> Fault | None:
    name = row["id"]
    if name not in by_id:
        return Fault(path, f"names the unknown id {name!r}", "correct the id or remove its line")
    if name in seen:
        return Fault(path, f"names the id {name!r} twice", "keep one of its lines")
    if row.get("split", "").lower() not in _SPLITS:
        return Fault(path, f"puts {name!r} into the split {row['split']!r}", "write train, val, test or nothing")
    return None


def _with_row(record: Record, row: dict[str, str]) -> Record:
    split = _SPLITS[row["split"].lower()] if "split" in row else None
    return replace(
        record,
        subject=row.get("subject") or record.subject,
        label=row.get("class") or record.label,
        caption=row.get("caption") or record.caption,
        split=split or record.split,
        facts={**record.facts, **facts_of(row)},
    )


def add_origins(root: Path, records: Sequence[Record], sink: Sink) -> list[Record]:
    """Add the rows of manifest.jsonl, the provenance of synthetic pairs, where there is one."""
    path = root / "manifest.jsonl"
    if not path.is_file():
        return list(records)
    by_id = {record.id: record for record in records}
    for row in json_lines(path):
        name = row.get("id")
        if name not in by_id:
            fault = f"names the unknown id {name!r}"
            sink(Fault(path, fault, "restore the pair, or sample again into the same folder", fatal=False))
            continue
        record = by_id[name]
        label, caption = record.label or row.get("label"), record.caption or _text_of(row)
        by_id[name] = replace(record, origin=row, label=label, caption=caption)
    return list(by_id.values())


def _text_of(row: dict[str, Any]) -> str | None:
    """What a synthetic image was painted with; rows of older folders have composed words in `origin` alone."""
    origin = row.get("origin")
    text = row.get("prompt") or (origin.get("prompt") if isinstance(origin, dict) else None)
    return str(text) if text else None


def without_dropped(root: Path, records: Sequence[Record]) -> list[Record]:
    """The records without those that a quality gate dropped (`dropped` in manifest.jsonl); says how many that is.

    Raises:
        InputError: All are dropped.
    """
    kept = [record for record in records if not (record.origin or {}).get("dropped")]
    if len(kept) < len(records):
        if not kept:
            raise InputError(f"{root}: quality gates dropped all {len(records)} pairs; judge them again by other gates")
        say(f"{root}: {len(records) - len(kept)} of {len(records)} pairs are left out (dropped in manifest.jsonl)")
    return kept
