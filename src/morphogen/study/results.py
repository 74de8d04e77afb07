"""Join the finished cells of a study into what results.json says. Only the cells are needed; the rest is optional."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from morphogen.errors import InputError
from morphogen.study.arms import MAIN, find, place
from morphogen.study.bench import AUDIT
from morphogen.study.compare import Cell, Group, group_cells
from morphogen.study.diagnoses import by_class, confusions
from morphogen.study.identity import load_study
from morphogen.study.kinds import CLASSIFICATION, kind_of
from morphogen.study.measured import adherence_of, judges_of_adherence, of_arm, side_by_side
from morphogen.study.recipe import OWN_TEST
from morphogen.study.verdict import judge_study

FIELDS = ("arm", "judge", "fold", "seed", "n_annotated", "n_synthetic", "test_set", "config_hash", "wall_s", "scores")
PACKAGES = (
    *("morphogen", "torch", "numpy", "scipy", "scikit-image", "pillow"),
    *("diffusers", "transformers", "accelerate", "monai"),
)


@dataclass(frozen=True)
class Joined:
    """A study as far as it has come.

    Attributes:
        results: Content of results.json.
        groups: The comparable cells, analysed.
        primary: The group that the verdict speaks of, or None.
        config: Content of study.yaml, or empty.
    """

    results: dict[str, Any]
    groups: tuple[Group, ...]
    primary: Group | None
    config: Mapping[str, Any]


def join(out: Path) -> Joined:
    """Read the folder of a study and analyse it; writes nothing.

    Raises:
        InputError: The folder does not exist or has no finished cell; a cell cannot be read, or two do not belong
            together.
    """
    cells = read_cells(out)
    config = load_study(out / "study.yaml") if (out / "study.yaml").exists() else {}
    splits = _optional_json(out / "splits.json")
    groups = group_cells(cells, len(splits.get("repetitions", ())), config.get("arms", ()))
    primary = _primary(groups, config)
    missing = missing_cells(config, splits, cells)
    images = {path.stem: _optional_json(path) for path in sorted((out / "images").glob("*.json"))}
    audit = {label: audit_sections(values["audit"]) for label, values in images.items() if values.get("audit")}
    own = config.get("generator", "the study's own")
    ours = of_arm(images, primary.lead if primary else MAIN)
    results = {
        "verdict": judge_study(primary, missing, adherence_of(images, ours)),
        "cells": [{"name": cell.path.stem, **cell.values} for cell in cells],
        "comparisons": [c.row(group) for group in groups for rows in group.comparisons.values() for c in rows],
        "arms": _arms(groups, primary),
        **confusions(groups),
        **by_class(groups),
        "empty": _empty(cells),
        **side_by_side(images, audit, own),
        "images": {label: {k: v for k, v in values.items() if k != "audit"} for label, values in images.items()},
        "audit": audit,
        "protocol": protocol(config, splits, cells)
        | {"judges": _judges(out, config.get("judges") or sorted({group.judge for group in groups}))}
        | {"adherence": judges_of_adherence(images, own)}
        | _test_reads(out),
        "versions": versions(),
        "missing": missing,
    }
    return Joined(results, tuple(groups), primary, config)


def audit_sections(audit: Mapping[str, Any]) -> dict[str, Any]:
    """``memorisation``, ``leakage``, ``duplicates`` and ``gates``, each where the study made it.

    Studies that are older than the sections looked for copies alone; theirs is the section of that name.
    """
    from morphogen.audit.rates import wilson

    if {"memorisation", "leakage", "duplicates", "gates"} & {*audit}:
        return dict(audit)
    return {"memorisation": {"ci95": list(wilson(audit["flagged"], audit["n"])), **audit}}


def read_cells(out: Path) -> list[Cell]:
    """The finished cells, ordered by file name.

    Raises:
        InputError: No folder, no cells, or a cell that is not one.
    """
    if not out.is_dir():
        raise InputError(f"{out}: no such folder; name the --out folder of a study")
    paths = sorted(path for path in (out / "cells").glob("*.json") if not path.name.startswith("."))
    if not paths:
        raise InputError(f"{out}: holds no finished cell (cells/*.json); run morphogen study with --out {out} first")
    return [_read_cell(path) for path in paths]


def _read_cell(path: Path) -> Cell:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        absent = [field for field in FIELDS if field not in values]
        rows = values["scores"] if not absent else {}
        faulty = [i for i, row in rows.items() if not kind_of(values["judge"]).is_row(row)]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise InputError(f"{path}: is not a finished cell; remove it and run the study again") from None
    if absent or not rows:
        raise InputError(f"{path}: has no {', '.join(absent) or 'scores'}; remove it and run the study again")
    if faulty:
        raise InputError(f"{path}: the score of {faulty[0]!r} is no finite number; remove it and run the study again")
    return Cell(path, values)


def missing_cells(config: Mapping[str, Any], splits: Mapping[str, Any], cells: Sequence[Cell]) -> list[str]:
    """Names of the cells that the study's plan has and the folder has not.

    Without study.yaml and splits.json the plan is taken to be that every arm has what some arm has.
    """
    if config.get("arms") and splits:
        present = {cell.path.stem for cell in cells}
        return [name for name in _planned(config, splits) if name not in present]
    arms = {cell.arm: {_slot(c) for c in cells if c.arm == cell.arm} for cell in cells}
    slots = sorted(set().union(*arms.values()))
    return [f"{arm}.{slot}" for arm, found in arms.items() for slot in slots if slot not in found]


def _planned(config: Mapping[str, Any], splits: Mapping[str, Any]) -> list[str]:
    from morphogen.study.plan import trainings
    from morphogen.study.splits import Splits

    tests = (OWN_TEST, *(word.partition("=")[0] for word in config.get("test", ())))
    try:
        plan = trainings(Splits.of(splits), tuple(config["arms"]), tuple(config["judges"]), tests)
    except (KeyError, TypeError, ValueError):
        raise InputError("splits.json: does not fit its study.yaml; remove both, or start the study anew") from None
    return [name for training in plan for name in training.cells.values()]


def _slot(cell: Cell) -> str:
    fold, seed = cell.repetition
    size = "all" if cell.n_annotated is None else cell.n_annotated
    return f"{cell.values['judge']}.fold{fold}-seed{seed}.n{size}.{cell.values['test_set']}"


def _primary(groups: Sequence[Group], config: Mapping[str, Any]) -> Group | None:
    """The first judge on the study's own test part; with several sizes, the study's own, else the largest."""
    judge = (config.get("judges") or [groups[0].judge])[0]
    own = [group for group in groups if group.judge == judge and group.test_set == OWN_TEST]
    stated = [group for group in own if group.n_annotated == config.get("annotated")] if config else []
    return next(reversed(stated or own), None)


def _arms(groups: Sequence[Group], primary: Group | None) -> dict[str, Any]:
    """Arm -> judge -> metric -> mean and interval, on the test part and at the size that the verdict speaks of."""
    table: dict[str, Any] = {}
    for group in groups:
        if primary is None or (group.test_set, group.n_annotated) != (primary.test_set, primary.n_annotated):
            continue
        for arm, found in group.means.items():
            row: dict[str, Any]
            row = {metric: {"mean": e.mean, "ci95": e.ci95, "n_images": e.n_images} for metric, e in found.items()}
            if (mark := group.exploratory(arm)) is not None:
                row["exploratory"] = mark
            table.setdefault(arm, {})[group.judge] = row
    return table


def _empty(cells: Sequence[Cell]) -> dict[str, dict[str, int]]:
    """Arm -> how often, over its cells, images and foreground classes, ``both`` masks or ``one`` were empty."""
    found: dict[str, dict[str, int]] = {}
    for cell in cells:
        total = found.setdefault(cell.arm, {"both": 0, "one": 0})
        for counts in cell.values.get("empty", {}).values():
            total["both"] += counts["both"]
            total["one"] += counts["one"]
    return found


def protocol(config: Mapping[str, Any], splits: Mapping[str, Any], cells: Sequence[Cell]) -> dict[str, Any]:
    """How the study was made, without the paths of this machine."""
    settings = {key: value for key, value in config.items() if key not in ("data", "test")}
    parts = ("train", "validation", "extra", "pool", "test")
    return {
        "data": Path(config["data"]).name if "data" in config else None,
        "further_test_sets": [word.partition("=")[0] for word in config.get("test", ())],
        "settings": settings,
        "splits": {
            **{key: splits.get(key) for key in ("kind", "grouped_by", "n_annotated", "notes")},
            "repetitions": [
                {"fold": r["fold"], "seed": r["seed"], **{part: len(r.get(part, ())) for part in parts}}
                for r in splits.get("repetitions", ())
            ],
        },
        "arms": {arm: _summary(arm) for arm in sorted({c.arm for c in cells})},
        "fewer_pairs": fewer_pairs(cells),
        "hours": sum(_seconds(cells).values()) / 3600,
        "intervals": "hierarchical bootstrap over subjects, then images, and seeds where they are crossed; 95 %",
        "tests": _tests(cells),
    }


def _tests(cells: Sequence[Cell]) -> str:
    classified = any(kind_of(cell.values["judge"]) is CLASSIFICATION for cell in cells)
    exchange = " (of scores of whole sets: exchanges of both arms, subject by subject)" if classified else ""
    flips = f"sign flips of subject means{exchange}, two-sided"
    return f"{flips}; Holm's correction over the comparisons of one metric"


def _summary(name: str) -> str:
    arm = find(name)
    return arm.summary if arm else ""


def fewer_pairs(cells: Sequence[Cell]) -> list[str]:
    """Arms that ask for more synthetic pairs than passed the gates, or were made: one sentence each."""
    found: dict[str, set[int]] = {}
    for cell in cells:
        arm, taken = find(cell.arm), int(cell.values["n_synthetic"] or 0)
        if arm is not None and arm.n is not None and taken < arm.n:
            found.setdefault(cell.arm, set()).add(taken)
    return [
        f"{name}: fewer pairs passed the gates or were made than it asks for; it trained on {_range(found[name])}"
        for name in sorted(found, key=place)
    ]


def _range(numbers: set[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low}" if low == high else f"{low} to {high}"


def _seconds(cells: Sequence[Cell]) -> dict[tuple[Any, ...], float]:
    """Time of every training: the cells of its test sets all hold it, so that the longest of them counts."""
    found: dict[tuple[Any, ...], float] = {}
    for cell in cells:
        training = (cell.arm, cell.values["judge"], cell.repetition, cell.n_annotated)
        found[training] = max(found.get(training, 0.0), float(cell.values["wall_s"] or 0))
    return found


def _judges(out: Path, judges: Sequence[str]) -> dict[str, Any]:
    """Judge -> its resolved architecture (which encoder it had), from the runs of arms that are here.

    The segmenter of an arm that has its own stands under that segmenter's name.
    """
    from morphogen.study.plan import file_name

    found: dict[str, Any] = {}
    for path in sorted((out / "runs").glob("*/final/config.json")):
        values = _optional_json(path)
        for judge in judges:
            name, sign, _ = path.parents[1].name.partition(f".{file_name(judge)}.fold")
            arm = find(name)
            if sign and arm and {"segmenter", "classifier"} & {*values}:  # no run of a gate or of adherence
                found.setdefault(values["segmenter"] if arm.network else judge, values.get("architecture"))
    return found


def _test_reads(out: Path) -> dict[str, int | None]:
    """How often a test part was opened, for scoring and by audits, or None where nobody counted."""
    path = out / "test_reads.jsonl"
    if not path.exists():
        return {"test_reads": None, "test_reads_of_audits": None}
    readers = [str(json.loads(line).get("reader")) for line in path.read_text(encoding="utf-8").splitlines()]
    audits = sum(reader.startswith(f"{AUDIT}.") for reader in readers)
    return {"test_reads": len(readers) - audits, "test_reads_of_audits": audits}


def versions() -> dict[str, str]:
    """Python and the packages that the figures depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _optional_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        raise InputError(f"{path}: cannot be read as JSON; remove it and run the study again") from None
