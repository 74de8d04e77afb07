"""A whole comparison: prepare, print the plan, make every cell that is missing, write the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from morphogen.data.mask_values import parse_mask_values
from morphogen.data.volumes.check import refuse_unreadable_volumes
from morphogen.data.volumes.files import read_volume
from morphogen.data.volumes.readers import read_volumes
from morphogen.devices import usable_device
from morphogen.errors import InputError
from morphogen.progress import say, track
from morphogen.segmenters.diffcl.volume_predictor import VolumePredictor
from morphogen.study.few.cells import Desk, Segment, make_cell, name_of
from morphogen.study.few.folds import FewFold, freeze, frozen_folds
from morphogen.study.few.recipe import CompareConfig, claim, save
from morphogen.study.few.report import build
from morphogen.study.few.rows import layout_of, row_of


@dataclass(frozen=True)
class Plan:
    """What there is to do.

    Attributes:
        desk: The comparison, its recipe with the rows of earlier calls.
        todo: Name of every missing cell -> its row and fold.
        summary: Cells, those that are missing, and the number of folds; what ``--dry-run`` gives.
    """

    desk: Desk
    todo: dict[str, tuple[str, FewFold]]
    summary: dict[str, Any]


def compare(recipe: CompareConfig, load: Callable[[Path, str], Segment] | None = None) -> dict[str, Any]:
    """Run a comparison, or continue it; finished cells are kept.

    Args:
        recipe: What to do.
        load: How a trained run is loaded; tests put another in its place.

    Returns:
        The content of results.json, or of the plan with ``dry_run``.

    Raises:
        InputError: The recipe or the data is wrong; nothing was written.
        WorkError: A training failed; the same command continues.
    """
    plan = plan_comparison(recipe)
    if recipe.dry_run:
        return plan.summary
    begin(plan)
    for name in track(plan.todo, "cells"):
        row, fold = plan.todo[name]
        if not make_cell(plan.desk, row_of(plan.desk.recipe, row), fold, load or load_run):
            say(f"{name}: another process is at work on it")
    return build(recipe.out)


def plan_comparison(recipe: CompareConfig) -> Plan:
    """Read the data, divide it, and print the plan; writes nothing.

    Raises:
        InputError: The recipe or the data is wrong.
    """
    recipe.check()
    usable_device(recipe.device)
    rule = None if recipe.mask_values is None else parse_mask_values(recipe.mask_values)
    layout = layout_of(recipe)
    dataset = read_volumes(recipe.data, layout.name if layout else None, mask_values=rule).annotated
    if not len(dataset):
        raise InputError(f"{recipe.data}: holds no labelled volume; a comparison hides labels itself")
    dataset = replace(dataset, records=tuple(sorted(dataset.records, key=lambda record: record.id)))
    whole = claim(recipe)
    folds = frozen_folds(recipe, dataset)
    names = {name_of(row, fold.fold): (row, fold) for row in whole.rows for fold in folds}
    chosen = {name: what for name, what in names.items() if fnmatchcase(name, recipe.cells)}
    if not chosen:
        raise InputError(f"--cells {recipe.cells}: matches none of {', '.join(list(names)[:3])}, ...")
    desk = Desk(whole, dataset, folds)
    todo = [name for name in chosen if not desk.path(name).exists()]
    say(f"{len(dataset)} volumes, {len(folds)} folds of {_sizes(desk)}; rows: {', '.join(whole.rows)}")
    say(f"{len(chosen)} of {len(names)} cells, {len(todo)} to make, {recipe.max_train_steps} steps each")
    summary = {"cells": list(chosen), "todo": todo, "folds": len(folds)}
    return Plan(desk, {name: chosen[name] for name in todo}, summary)


def begin(plan: Plan) -> None:
    """Open every volume once, then write recipe and folds, before anything trains.

    Raises:
        InputError: A volume cannot be read; nothing was written.
    """
    recipe = plan.desk.recipe
    refuse_unreadable_volumes(plan.desk.dataset)
    (recipe.out / "cells").mkdir(parents=True, exist_ok=True)
    save(recipe)
    freeze(recipe, plan.desk.folds)


def _sizes(desk: Desk) -> str:
    fold = desk.folds[0]
    parts = ("test", "validation", "labelled", "unlabelled")
    return ", ".join(f"{len(getattr(fold, part))} {part}" for part in parts)


def load_run(run: Path, device: str) -> Segment:
    """The segmenter that a training has left."""
    predictor = VolumePredictor.load(run, device)
    return lambda record: predictor(read_volume(record))  # axes as labels are read, whatever the file's
