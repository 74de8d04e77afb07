"""What the cells of a comparison say: means of rows, differences volume by volume, folds won."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from morphogen.errors import InputError
from morphogen.study.few.recipe import RECIPE, read_recipe
from morphogen.study.results import versions
from morphogen.study.stats import Repetition, difference, estimate, holm, sign_flip, subject_means

LEAD, BASELINE = "diff-cl", "supervised"
SHARE_OF_FOLDS = 0.8
"""A row beats another where its mean is higher in this part of the folds at least: four of five."""
DISTANCES = ("hd95", "asd", "hd95_mm", "asd_mm")


@dataclass(frozen=True)
class Cell:
    """One finished training: its row, its fold, and volume -> scores."""

    row: str
    fold: int
    scores: Mapping[str, Mapping[str, Any]]
    facts: Mapping[str, Any]

    def values(self, metric: str) -> Repetition:
        """Volume -> (subject, value)."""
        return {i: (str(row["subject"]), float(row[metric])) for i, row in self.scores.items()}


def read_cells(out: Path) -> list[Cell]:
    """All finished cells of a folder, in the order of rows and folds.

    Raises:
        InputError: There is none, one cannot be read, or they are of several recipes.
    """
    cells = []
    for path in sorted((out / "cells").glob("*.json")):
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            cells.append(Cell(values["arm"], int(values["fold"]), values["scores"], values))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: is not a cell of a comparison; remove it and make it again") from error
    if not cells:
        raise InputError(f"{out}: holds no finished cell; run the comparison first")
    if len({cell.facts["config_hash"] for cell in cells}) > 1:
        raise InputError(f"{out / 'cells'}: holds cells of several recipes; keep those of one")
    return cells


def join(out: Path) -> dict[str, Any]:
    """The content of results.json.

    Raises:
        InputError: As `read_cells`.
    """
    cells = read_cells(out)
    recipe = read_recipe(out / RECIPE) if (out / RECIPE).exists() else {}
    rows = list(dict.fromkeys([*recipe.get("rows", ()), *(cell.row for cell in cells)]))
    by_row = {row: sorted((c for c in cells if c.row == row), key=lambda c: c.fold) for row in rows}
    n_folds = int(recipe.get("folds", 1 + max(cell.fold for cell in cells)))
    metrics = [m for m in next(iter(cells[0].scores.values())) if m != "subject"]
    results: dict[str, Any] = {
        "kind": "comparison",
        "rows": {row: _row(made, metrics, n_folds) for row, made in by_row.items() if made},
        "comparisons": _comparisons({row: made for row, made in by_row.items() if made}, metrics),
        "cells": [{k: v for k, v in cell.facts.items() if k != "scores"} for cell in cells],
        "missing": [f"fold{f}-{row}" for row in rows for f in range(n_folds) if f not in {c.fold for c in by_row[row]}],
        "protocol": {**recipe, "test_reads": _reads(out), "folds": n_folds},
        "versions": versions(),
    }
    results["verdict"] = {"text": verdict(results)}
    return results


def _row(cells: Sequence[Cell], metrics: Sequence[str], n_folds: int) -> dict[str, Any]:
    """Means over folds; ``train_s`` is the median of trainings that one call did whole, None where there is none."""
    facts = cells[0].facts
    timed = [cell.facts["train_s"] for cell in cells if not cell.facts.get("resumed")]  # older cells do not say
    found: dict[str, Any] = {
        "folds": [cell.fold for cell in cells],
        "exploratory": len(cells) < n_folds,
        "n_annotated": facts["n_annotated"],
        "n_unlabelled": facts["n_unlabelled"],
        "train_s": float(np.median(timed)) if timed else None,
    }
    for metric in metrics:
        made = estimate([cell.values(metric) for cell in cells], within=(0, np.inf if metric in DISTANCES else 1))
        found[metric] = {"mean": made.mean, "ci95": made.ci95, "per_fold": [_mean(c, metric) for c in cells]}
    return found


def _comparisons(by_row: Mapping[str, Sequence[Cell]], metrics: Sequence[str]) -> list[dict[str, Any]]:
    """The lead against every other row, and every row against the baseline, on the folds that both have."""
    lead = lead_of(by_row)
    pairs = [(lead, row) for row in by_row if lead is not None and row != lead]
    pairs += [(row, BASELINE) for row in by_row if row not in (BASELINE, lead) and BASELINE in by_row]
    found = [_comparison(by_row, str(a), str(b), metric) for metric in metrics for a, b in pairs]
    kept = [one for one in found if one is not None]
    for metric in metrics:
        some = [one for one in kept if one["metric"] == metric and one["p"] is not None]
        for one, p in zip(some, holm([one["p"] for one in some]), strict=True):
            one["p_holm"] = p
    return kept


def _comparison(by_row: Mapping[str, Sequence[Cell]], row: str, control: str, metric: str) -> dict[str, Any] | None:
    ours, theirs = ({cell.fold: cell for cell in by_row[name]} for name in (row, control))
    folds = sorted(ours.keys() & theirs.keys())
    if not folds:
        return None
    pairs = [(ours[f].values(metric), theirs[f].values(metric)) for f in folds]
    apart = difference([a for a, _ in pairs], [b for _, b in pairs])
    found = estimate(apart)
    sign = -1 if metric in DISTANCES else 1
    per_fold = [float(np.mean([value for _, value in one.values()])) for one in apart]
    won = sum(sign * value > 0 for value in per_fold)
    return {
        "row": row,
        "control": control,
        "metric": metric,
        "diff": found.mean,
        "ci95": found.ci95,
        "p": sign_flip(subject_means(apart)) if found.n_subjects > 1 else None,
        "p_holm": None,
        "folds": folds,
        "per_fold": per_fold,
        "folds_won": won,
        "beats": won >= math.ceil(SHARE_OF_FOLDS * len(folds) - 1e-9),
        "per_volume": {i: value for one in apart for i, (_, value) in one.items()},
    }


def lead_of(rows: Iterable[str]) -> str | None:
    """The row that the verdict speaks of: Diff-CL as it is, else its first variant."""
    ours = [row for row in rows if row.partition("+")[0] == LEAD]
    return LEAD if LEAD in ours else next(iter(ours), None)


def verdict(results: Mapping[str, Any]) -> str:
    """One sentence a comparison of the lead's Dice; of exploratory rows only where there are no others."""
    said, rows = [], results["rows"]
    lead = lead_of(rows)
    ours = [one for one in results["comparisons"] if one["metric"] == "dice" and one["row"] == lead]
    whole = [one for one in ours if not rows[one["control"]]["exploratory"]]
    for one in whole or ours:
        word = "beats" if one["beats"] else "does not beat"
        ends = "" if one["ci95"] is None else f", 95 % interval {one['ci95'][0]:+.3f} to {one['ci95'][1]:+.3f}"
        few = rows[one["control"]]["exploratory"] or rows[one["row"]]["exploratory"]
        said.append(
            f"{one['row']} {word} {one['control']}: Dice {one['diff']:+.3f}{ends}, higher in {one['folds_won']} of "
            f"{len(one['folds'])} folds{' (exploratory)' if few else ''}."
        )
    return " ".join(said) or "No row of Diff-CL to compare yet."


def _mean(cell: Cell, metric: str) -> float:
    return float(np.mean([value for _, value in cell.values(metric).values()]))


def _reads(out: Path) -> int | None:
    path = out / "test_reads.jsonl"
    return len(path.read_text(encoding="utf-8").splitlines()) if path.exists() else None
