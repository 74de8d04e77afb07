"""One cell of a comparison: train a row on a fold, score it on the fold's test volumes, write one JSON file."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from morphogen.data.records import Dataset, Record
from morphogen.data.volumes.files import read_label, read_volume
from morphogen.files import write_json
from morphogen.locks import lock
from morphogen.metrics.volumes import score_volume
from morphogen.segmenters.diffcl.volumes import Few, patches_of, preparation_of, train_volumes
from morphogen.study.bench import note_read
from morphogen.study.few.folds import FewFold, hash_of
from morphogen.study.few.recipe import CompareConfig, hash_of_cells
from morphogen.study.few.rows import Row, layout_of

METRICS = ("dice", "iou", "hd95", "asd")
MM = ("hd95_mm", "asd_mm")
JUDGE = "diffcl"

Segment = Callable[[Record], NDArray[np.int64]]
"""A volume -> its label map, on the grid and with the axes of `read_label`."""


@dataclass(frozen=True)
class Desk:
    """A comparison in work: its recipe, its labelled volumes, and which is used for what."""

    recipe: CompareConfig
    dataset: Dataset
    folds: tuple[FewFold, ...]

    def path(self, name: str) -> Path:
        return self.recipe.out / "cells" / f"{name}.json"


def name_of(row: str, fold: int) -> str:
    """Of a cell's file and run folder."""
    return f"fold{fold}-{row}"


def make_cell(desk: Desk, row: Row, fold: FewFold, load: Callable[[Path, str], Segment]) -> bool:
    """Make a cell that does not exist yet.

    Its ``train_s`` and ``wall_s`` are seconds of this call. No record is kept of what an earlier one spent before it
    was stopped: where there was one, ``resumed`` says that they are not all.

    Args:
        desk: The comparison.
        row: What trains.
        fold: On what.
        load: Makes a segmenter of a run folder, on a device.

    Returns:
        False where another process is at work on it.

    Raises:
        MorphogenError: The training failed; nothing half-done is left in ``cells/``.
    """
    recipe, name = desk.recipe, name_of(row.name, fold.fold)
    with lock(recipe.out / ".locks" / f"{name}.lock", wait=False) as held:
        if not held or desk.path(name).exists():
            return held
        run, began = recipe.out / "runs" / name, time.monotonic()
        resumed = (run / "config.yaml").exists()  # which the first call begins with
        segment = load(_train(desk, row, fold, run), recipe.device)
        trained = time.monotonic() - began
        scores = _score(desk, fold, name, segment)
        everything = len(fold.labelled) + len(fold.unlabelled)
        cell = {
            "arm": row.name,
            "judge": JUDGE,
            "fold": fold.fold,
            "seed": recipe.seed + fold.fold,
            "n_annotated": (everything if row.everything else len(fold.labelled)) + len(fold.validation),
            "n_unlabelled": 0 if row.everything or row.config.method == "supervised" else len(fold.unlabelled),
            "n_synthetic": 0,
            "test_set": "own",
            "config_hash": hash_of_cells(recipe, hash_of(desk.folds)),
            "scores": scores,
            "train_s": round(trained, 1),
            "wall_s": round(time.monotonic() - began, 1),
            "resumed": resumed,
        }
        write_json(desk.path(name), cell)
        return True


def few_of(desk: Desk, row: Row, fold: FewFold) -> Few:
    """What a row learns from: labels of unlabelled volumes are hidden before any is opened."""
    train = desk.dataset.select([*fold.labelled, *fold.unlabelled])
    if not row.everything:
        hidden = set(fold.unlabelled)
        shown = tuple(replace(r, mask=None) if r.id in hidden else r for r in train)
        train = replace(train, records=shown)
    preparation = preparation_of(layout_of(desk.recipe), row.words.preparation)
    return Few.of(train, desk.dataset.select(fold.validation), preparation)


def _train(desk: Desk, row: Row, fold: FewFold, out: Path) -> Path:
    config = replace(row.config, seed=desk.recipe.seed + fold.fold)
    return train_volumes(few_of(desk, row, fold), config, patches_of(layout_of(desk.recipe), row.words.patches), out)


def _score(desk: Desk, fold: FewFold, name: str, segment: Segment) -> dict[str, dict[str, Any]]:
    """Test volume -> subject, and scores on the grid of its file; nothing else reads test labels, and calls are
    counted."""
    dataset = desk.dataset.select(fold.test)
    note_read(desk.recipe.out, {"reader": name, "test_set": "own", "n_images": len(dataset)})
    layout = layout_of(desk.recipe)
    scores = {}
    for record in dataset:
        made, label = segment(record), read_label(record, dataset.mask_values)
        spacing = read_volume(record).spacing or (layout.spacing if layout else None)
        found = score_volume(made, label, len(dataset.classes), spacing)
        names = (*METRICS, *(MM if spacing else ()))
        values = {metric: round(float(found.image[metric]), 6) for metric in names}
        scores[record.id] = {"subject": record.subject or record.id, **values}
    return scores
