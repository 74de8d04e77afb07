"""A comparison's cells as Ray tasks; results.json is the same as after `compare`, but for times."""

from __future__ import annotations

from typing import Any

from morphogen.cluster import crew
from morphogen.progress import say
from morphogen.study.few.cells import Desk, make_cell
from morphogen.study.few.folds import FewFold
from morphogen.study.few.recipe import CompareConfig
from morphogen.study.few.report import build
from morphogen.study.few.rows import row_of
from morphogen.study.few.run import begin, load_run, plan_comparison
from morphogen.study.on_ray import do_all


def compare_on_ray(recipe: CompareConfig, address: str, workers: int | None = None) -> dict[str, Any]:
    """Run or continue a comparison by the workers of a Ray cluster, in the folders that all machines share.

    Args:
        recipe: What to do.
        address: See `morphogen.cluster.crew`.
        workers: The same.

    Returns:
        The content of results.json, or of the plan with ``dry_run``.

    Raises:
        InputError: As of `compare` and `crew`.
        WorkError: A training failed; the cells that could be made were.
    """
    plan = plan_comparison(recipe)
    if recipe.dry_run:
        return plan.summary
    with crew(address, workers) as hands:
        begin(plan)
        calls = {name: (plan.desk, row, fold) for name, (row, fold) in plan.todo.items()}
        for name in do_all(hands, do_cell, calls, "cells"):
            if name:
                say(f"{name}: another process is at work on it")
        return build(recipe.out)


def do_cell(desk: Desk, row: str, fold: FewFold) -> str:
    """What a task does; returns the name of the cell where another process is at work on it."""
    made = make_cell(desk, row_of(desk.recipe, row), fold, load_run)
    return "" if made else f"fold{fold.fold}-{row}"
