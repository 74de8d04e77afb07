"""The two layouts with a list of their files: `imagefolder` (metadata.jsonl) and `prompt-json` (prompt.json)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from morphogen.data.faults import Fault, FaultError, Sink
from morphogen.data.images import stem
from morphogen.data.records import Record
from morphogen.data.tables import inside, json_lines

_SPLIT_FOLDERS = {"": None, "train": "train", "validation": "val", "val": "val", "test": "test"}


def recognise_imagefolder(root: Path) -> bool:
    """Whether metadata.jsonl lies in the folder, or in train/, validation/, val/ or test/ below it."""
    return any((root / name / "metadata.jsonl").is_file() for name in _SPLIT_FOLDERS)


def scan_imagefolder(root: Path, sink: Sink) -> list[Record]:
    """One record a line of metadata.jsonl; the folder train/, validation/ or test/ gives the split."""
    records = []
    for name, split in _SPLIT_FOLDERS.items():
        manifest = root / name / "metadata.jsonl"
        if manifest.is_file():

            def record(row: dict[str, Any], manifest: Path = manifest, split: str | None = split) -> Record:
                image = inside(manifest.parent, row.get("image_file_name", row.get("file_name")), manifest)
                return _record(image, row.get("mask_file_name"), row.get("text"), manifest, split)

            records += _rows(manifest, record, sink)
    return records


def recognise_prompt_json(root: Path) -> bool:
    """Whether prompt.json lies in the folder."""
    return (root / "prompt.json").is_file()


def scan_prompt_json(root: Path, sink: Sink) -> list[Record]:
    """One record a line of prompt.json: `source` is the mask, `target` the image."""
    manifest = root / "prompt.json"

    def record(row: dict[str, Any]) -> Record:
        return _record(inside(root, row.get("target"), manifest), row.get("source"), row.get("prompt"), manifest, None)

    return _rows(manifest, record, sink)


def _record(image: Path, mask: object, text: object, manifest: Path, split: str | None) -> Record:
    mask_path = None if mask is None else inside(manifest.parent, mask, manifest)
    for path in (image, mask_path):
        if path is not None and not path.is_file():
            raise FaultError(path, f"is named in {manifest.name} but does not exist", "restore it or remove its line")
    return Record(id=stem(image), image=image, mask=mask_path, caption=str(text) if text else None, split=split)


def _rows(manifest: Path, record: Callable[[dict[str, Any]], Record], sink: Sink) -> list[Record]:
    records: dict[str, Record] = {}
    for row in json_lines(manifest):
        try:
            made = record(row)
        except FaultError as error:
            sink(error.fault)
            continue
        if made.id in records:
            sink(Fault(manifest, f"names two images {made.id!r}", "give every image its own stem"))
            continue
        records[made.id] = made
    if any(made.mask is not None for made in records.values()):
        for made in (made for made in records.values() if made.mask is None and made.split != "test"):
            sink(Fault(made.image, f"has no mask in {manifest.name}", "name its mask or remove its line"))
    return list(records.values())
