"""Which volume is tested, validated, labelled and unlabelled in which fold; frozen before anything trains."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from morphogen.data.records import Dataset
from morphogen.data.split import grouped_folds
from morphogen.errors import InputError
from morphogen.files import write_json
from morphogen.study.few.recipe import CompareConfig
from morphogen.training.rng import numpy_rng

FILE = "splits.json"


@dataclass(frozen=True)
class FewFold:
    """The parts of one fold, ids in the order of the data; no subject is in two of them."""

    fold: int
    test: tuple[str, ...]
    validation: tuple[str, ...]
    labelled: tuple[str, ...]
    unlabelled: tuple[str, ...]


def frozen_folds(recipe: CompareConfig, dataset: Dataset) -> tuple[FewFold, ...]:
    """The folds of the folder, or new ones where it has none (`freeze` writes them).

    Raises:
        InputError: Too few subjects, or the folder's folds are of other data.
    """
    path = recipe.out / FILE
    made = make_folds(recipe, dataset)
    if not path.exists():
        return made
    kept = read_folds(path)
    if kept != made:
        raise InputError(f"{path}: the folds there are of other data or numbers; restore them or name another --out")
    return kept


def make_folds(recipe: CompareConfig, dataset: Dataset) -> tuple[FewFold, ...]:
    """Grouped folds; of what a fold does not test, subjects are drawn for validation, then for the labels.

    Args:
        recipe: Numbers and seed.
        dataset: Labelled volumes.

    Raises:
        InputError: Too few subjects.
    """
    subject_of = {record.id: record.subject or record.id for record in dataset}
    folds = []
    for number, fold in enumerate(grouped_folds(dataset, recipe.folds, recipe.seed)):
        subjects = list(dict.fromkeys(subject_of[i] for i in fold.train_ids))
        needed = recipe.validation + recipe.labelled
        if len(subjects) <= needed:
            fault = f"fold {number} has {len(subjects)} subjects to train on, and {needed} leave none unlabelled"
            raise InputError(f"{dataset.root}: {fault}; lower --labelled, --validation or --folds")
        order = numpy_rng(recipe.seed, "few", number).permutation(len(subjects))
        drawn = [subjects[i] for i in order]
        part = dict.fromkeys(drawn[: recipe.validation], "validation")
        part |= dict.fromkeys(drawn[recipe.validation : needed], "labelled")
        parts: dict[str, list[str]] = {"validation": [], "labelled": [], "unlabelled": []}
        for i in fold.train_ids:
            parts[part.get(subject_of[i], "unlabelled")].append(i)
        folds.append(FewFold(number, fold.test_ids, *(tuple(ids) for ids in parts.values())))
    return tuple(folds)


def freeze(recipe: CompareConfig, folds: tuple[FewFold, ...]) -> None:
    """Write them, where they are not there yet."""
    if not (recipe.out / FILE).exists():
        write_json(recipe.out / FILE, {"folds": [asdict(fold) for fold in folds]})


def read_folds(path: Path) -> tuple[FewFold, ...]:
    """The folds of a file.

    Raises:
        InputError: It holds none.
    """
    try:
        return tuple(_fold(values) for values in json.loads(path.read_text(encoding="utf-8"))["folds"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: cannot be read as folds; restore it or name another --out") from error


def hash_of(folds: tuple[FewFold, ...]) -> str:
    """Of all ids in their parts."""
    return hashlib.sha256(json.dumps([asdict(fold) for fold in folds]).encode()).hexdigest()


def _fold(values: Mapping[str, Any]) -> FewFold:
    parts = {name: tuple(values[name]) for name in ("test", "validation", "labelled", "unlabelled")}
    return FewFold(int(values["fold"]), **parts)
