"""The raw layout of nnU-Net v2: dataset.json, imagesTr, labelsTr, imagesTs, and labelsTs where tests have labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from morphogen.data.faults import Fault, FaultError, Sink
from morphogen.data.images import is_image, stem
from morphogen.data.records import Record

_CHANNEL = 5  # the length of "_0000"


def recognise(root: Path) -> bool:
    """Whether dataset.json and imagesTr are there."""
    return (root / "dataset.json").is_file() and (root / "imagesTr").is_dir()


def read_description(root: Path) -> dict[str, Any]:
    """dataset.json.

    Raises:
        InputError: It is no JSON object.
    """
    path = root / "dataset.json"
    try:
        described = json.loads(path.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        described = None
    if not isinstance(described, dict):
        raise FaultError(path, "is not a JSON object", "write channel_names, labels, numTraining and file_ending")
    return described


def declared_classes(root: Path) -> tuple[str, ...] | None:
    """Class names by label id, or None where this is not that layout.

    Raises:
        InputError: The labels of dataset.json are not 0 to K-1.
    """
    if not recognise(root):
        return None
    labels = read_description(root).get("labels")
    named: dict[Any, str] = {}
    if isinstance(labels, dict):  # version 2 writes {name: id}, version 1 {id: name}
        first = all(str(key).isdigit() for key in labels)
        named = {int(key): str(value) for key, value in labels.items()} if first else {v: k for k, v in labels.items()}
    if len(named) < 2 or set(named) != set(range(len(named))):
        fault = "its labels are not consecutive numbers from 0"
        raise FaultError(root / "dataset.json", fault, 'write them as {"background": 0, "lesion": 1, ...}')
    return tuple(named[i] for i in range(len(named)))


def scan(root: Path, sink: Sink) -> list[Record]:
    """One record a case. imagesTs is the test part; training cases carry a split only where that part has labels."""
    ending = str(read_description(root).get("file_ending", ""))
    tested = (root / "labelsTs").is_dir() and any(is_image(path) for path in (root / "labelsTs").iterdir())
    records = _part(root, "Tr", ending, "train" if tested else None, sink)
    if (root / "imagesTs").is_dir():
        records += _part(root, "Ts", ending, "test", sink)
    return records


def _part(root: Path, part: str, ending: str, split: str | None, sink: Sink) -> list[Record]:
    labels = root / f"labels{part}"
    records = []
    for path in sorted((root / f"images{part}").iterdir()):
        if not is_image(path) or (ending and not path.name.endswith(ending)):
            continue
        case, channel = stem(path)[:-_CHANNEL], stem(path)[-_CHANNEL:]
        if not (channel.startswith("_") and channel[1:].isdigit()):
            sink(Fault(path, "does not end in a channel number", f"name it CASE_0000{ending}"))
            continue
        if channel != "_0000":
            sink(Fault(path, "is a further channel of its case", "merge the channels into one file per case"))
            continue
        mask = labels / f"{case}{path.name[len(stem(path)) :]}"
        if not mask.is_file():
            if part == "Tr":
                remedy = f"add {labels.name}/{mask.name} or remove the image"
                sink(Fault(path, f"has no mask in {labels.name}/", remedy))
            records.append(Record(id=case, image=path, split=split))
            continue
        records.append(Record(id=case, image=path, mask=mask, split=split))
    return records
