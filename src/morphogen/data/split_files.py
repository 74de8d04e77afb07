"""Frozen divisions: a JSON file that knows which records it was made of, and nnU-Net's splits_final.json."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from morphogen.data.records import Dataset
from morphogen.data.split import Division, Fold, ids_hash
from morphogen.errors import InputError
from morphogen.files import write_text


def write_splits(division: Division, path: Path, dataset: Dataset) -> Path:
    """Freeze a division as JSON, and beside it as nnU-Net's splits_final.json (its ``val`` is the test part of a fold).

    Returns:
        The path of splits_final.json.

    Raises:
        InputError: One of the files exists with another content.
    """
    final = path.with_name("splits_final.json")
    if path == final:
        raise InputError(f"{path}: is nnU-Net's own file, which is written beside --out; name --out otherwise")
    contents = {
        path: json.dumps(asdict(division), indent=1),
        final: json.dumps(nnunet_splits(division, dataset), indent=1),
    }
    for file, text in contents.items():
        if file.exists() and file.read_text(encoding="utf-8") != text:
            raise InputError(f"{file}: holds another split, which results may rest on; write to another folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    for file, text in contents.items():
        write_text(file, text)
    return final


def read_splits(path: Path, dataset: Dataset) -> Division:
    """A frozen division, for the very records that they were made of.

    Raises:
        InputError: Not such a file, or made from other records.
    """
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        folds = tuple(Fold(**{part: tuple(ids) for part, ids in fold.items()}) for fold in held.pop("folds"))
        division = Division(**{**held, "notes": tuple(held["notes"])}, folds=folds)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise InputError(f"{path}: is not a file of splits; write one with `morphogen data split`") from None
    if division.fingerprint != ids_hash(dataset.ids):
        raise InputError(f"{path}: was made from other records than those of {dataset.root}; split the data again")
    return division


def nnunet_splits(division: Division, dataset: Dataset) -> list[dict[str, list[str]]]:
    """``[{"train": cases, "val": cases}]`` a fold; a case is a record, or the volume that its slices come from."""
    case = {record.id: (record.subject or record.id) if record.plane else record.id for record in dataset}

    def cases(ids: Iterable[str]) -> list[str]:
        return sorted({case[i] for i in ids})

    return [
        {"train": cases(fold.train_ids), "val": cases(fold.val_ids if division.kind != "kfold" else fold.test_ids)}
        for fold in division.folds
    ]
