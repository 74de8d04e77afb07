"""A whole study: prepare, print the plan, make every cell that is missing, measure the images, write the report."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from morphogen.data.join import refuse_other_classes
from morphogen.data.mask_values import parse_mask_values
from morphogen.data.readers import read_dataset
from morphogen.data.records import Dataset
from morphogen.devices import usable_device
from morphogen.errors import InputError, WorkError
from morphogen.files import write_json
from morphogen.generators import GENERATORS
from morphogen.progress import clock, say
from morphogen.sampling.budgets import NONE
from morphogen.study.arms import DEFAULT_ARMS, arm
from morphogen.study.bench import Bench
from morphogen.study.cells import Tools, default_tools
from morphogen.study.estimate import Estimate, estimate
from morphogen.study.generators import (
    others,
    own_resolution,
    study_of,
    uses_foundation,
    variants_of,
)
from morphogen.study.identity import refuse_other_study, save_study, stated_presets
from morphogen.study.independence import judge_of_adherence, judges_that_resemble, segmenter_of_loss
from morphogen.study.plan import Training, test_sets, trainings
from morphogen.study.quality import variants
from morphogen.study.recipe import StudyConfig
from morphogen.study.refusals import refuse
from morphogen.study.splits import Splits, frozen_splits, has_extra
from morphogen.study.stages import perform
from morphogen.study.synthesis import (
    balance_of,
    candidates,
)


@dataclass(frozen=True)
class Plan:
    """What there is to do.

    Attributes:
        bench: The study.
        trainings: Those of its cells.
        summary: Arms, cells, those that are missing, and what they cost; what ``--dry-run`` gives.
    """

    bench: Bench
    trainings: list[Training]
    summary: dict[str, Any]


def run_study(config: StudyConfig, tools: Tools | None = None, only: str | None = None) -> dict[str, Any]:
    """Run a study, or continue it; finished cells are kept.

    Args:
        config: What to do; `StudyConfig(data=Path("data"), out=Path("study"))` is a whole study.
        tools: How judges are trained and loaded; those of the package by default.
        only: One of `morphogen.study.stages.STAGES`, to do this part alone; nothing is joined then.

    Returns:
        The content of results.json, or of the plan with ``dry_run`` or `only`.

    Raises:
        InputError: The recipe or the data is wrong; nothing was written.
        WorkError: The work failed on the way (a full disk, a diverged loss); the same command continues.
    """
    plan = plan_study(config)
    if config.dry_run:
        return plan.summary
    with disk_faults(config.out):
        freeze(plan.bench)
        tools = tools or default_tools()
        if only is None:
            return _whole(plan, tools)
        _tell_of(perform(plan.bench, only, plan.trainings, tools))
        return plan.summary


def plan_study(config: StudyConfig) -> Plan:
    """Prepare a study and print its plan; writes nothing.

    Raises:
        InputError: The recipe or the data is wrong.
    """
    bench = prepare(config)
    arms, judges, sets = bench.config.arms, bench.config.judges, test_sets(config)
    plan = trainings(bench.splits, arms, judges, sets, config.cells)
    todo = [t for t in plan if any(not bench.cell_path(name).exists() for name in t.cells.values())]
    cost = estimate(bench, todo)
    for line in plan_lines(bench, plan, todo, cost):
        say(line)
    return Plan(bench, plan, _plan_result(bench, plan, todo, cost))


@contextmanager
def disk_faults(out: Path) -> Iterator[None]:
    """Tell of a full disk in one line.

    Raises:
        WorkError: It is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise WorkError(f"{out}: the disk is full; free some space and run the same command again") from error


def prepare(config: StudyConfig) -> Bench:
    """Read the data, divide it, and refuse whatever is wrong; writes nothing.

    Raises:
        InputError: Something is.
    """
    config.check()
    usable_device(config.device)
    rule = None if config.mask_values is None else parse_mask_values(config.mask_values)
    dataset = read_dataset(config.data, mask_values=rule).annotated
    if not len(dataset):
        raise InputError(f"{config.data}: holds no masks; a study needs annotated images")
    tests = {name: _further(name, folder, dataset, rule) for name, folder in config.tests.items()}
    splits = frozen_splits(config, dataset)
    config = replace(
        config, arms=_resolved_arms(config, splits), resolution=config.resolution or own_resolution(config)
    )
    refuse_other_study(config)
    config = replace(config, presets=stated_presets(config))
    if config.preset != StudyConfig.preset and not (
        uses_foundation(config) or GENERATORS[config.generator].has_presets
    ):
        raise InputError(f"--preset {config.preset}: {config.generator} has no presets; leave it out")
    bench = Bench(config, dataset, splits, tests)
    refuse(bench)
    return bench


def _further(name: str, folder: Path, dataset: Dataset, rule: Mapping[int, int] | None) -> Dataset:
    further = read_dataset(folder, mask_values=rule).annotated
    if not len(further):
        raise InputError(f"{folder}: holds no masks; the test set {name!r} needs them")
    refuse_other_classes(dataset, further)
    return further


def _resolved_arms(config: StudyConfig, splits: Splits) -> tuple[str, ...]:
    extra = has_extra(splits, config.per_mask)
    if "more-real" in config.arms and not extra:
        raise InputError(
            f"{config.data}: too few annotated images for the arm more-real beside --annotated "
            f"{config.annotated or 'all'}; lower --annotated or leave the arm out"
        )
    return config.arms or (*DEFAULT_ARMS, *(["more-real"] if extra else []))


def _whole(plan: Plan, tools: Tools) -> dict[str, Any]:
    """Cells make the synthetic pairs that they want."""
    from morphogen.study.report import build

    busy = perform(plan.bench, "cells", plan.trainings, tools)
    perform(plan.bench, "images", plan.trainings, tools)
    _tell_of(busy)
    return build(plan.bench.out)


def _tell_of(busy: Sequence[str]) -> None:
    if busy:
        say(f"left to another process that is at work on them: {', '.join(busy)}")


def freeze(bench: Bench) -> None:
    """Write study.yaml and splits.json, before anything trains; what is there stays, and new arms join it.

    study.yaml comes first: a folder without it is somebody else's, and a full disk must not make it seem so.
    """
    bench.out.mkdir(parents=True, exist_ok=True)
    save_study(bench.config)
    if not (bench.out / "splits.json").exists():
        write_json(bench.out / "splits.json", asdict(bench.splits))
    (bench.out / "cells").mkdir(exist_ok=True)


def plan_lines(bench: Bench, plan: Sequence[Training], todo: Sequence[Training], cost: Estimate) -> list[str]:
    """The plan as a person reads it."""
    config, splits = bench.config, bench.splits
    first = splits.repetitions[0]
    cells, left = (sum(len(t.test_sets) for t in some) for some in (plan, todo))
    return [
        f"study of {bench.dataset.name}: {len(bench.dataset)} annotated images, "
        f"{len(set(splits.subjects.values()))} groups (by {splits.grouped_by})",
        f"  repetitions  {len(splits.repetitions)} ({splits.kind}); the first trains on {len(first.train)} pairs, "
        f"validates on {len(first.validation)}, tests on {len(first.test)} images",
        f"  arms         {', '.join(config.arms)}",
        *_unannotated(bench),
        f"  generator    {config.generator}, {_amount(config)}"
        + (f", gates: {', '.join(config.gates)}" if config.gates else ""),
        *(f"  beside it    {name}, {_preset(config, name)}" for name in others(config, config.arms)),
        f"  judges       {', '.join(config.judges)}: {_length(config)} at {config.resolution} px in every arm",
        f"  cells        {cells}, of which {left} are still to be made",
        f"  cost         about {clock(cost.seconds)} on 2 idle cores, {cost.disk_mb / 1000:.1f} GB of disk, "
        f"{cost.memory_mb / 1000:.1f} GB of memory",
        *(f"  note         {note}" for note in (*splits.notes, *_scarce(bench), *_resembling(bench))),
    ]


def _unannotated(bench: Bench) -> list[str]:
    """Of how many images without masks the arms learn that take some, by the methods that they name."""
    found = [one for one in map(arm, bench.config.arms) if one.semi]
    if not found:
        return []
    n, by = (
        len(bench.unannotated(bench.splits.repetitions[0])),
        ", ".join(dict.fromkeys(str(one.semi) for one in found)),
    )
    return [f"  unannotated  {n} training images in the first repetition, without masks, for semi-supervision ({by})"]


def _length(config: StudyConfig) -> str:
    return "as published," if config.recipe else f"{config.steps} steps of {config.train_batch_size}"


def _preset(config: StudyConfig, generator: str) -> str:
    theirs = study_of(config, generator)
    return f"preset {theirs.preset}" if GENERATORS[generator].has_presets else "without presets"


def _amount(config: StudyConfig) -> str:
    if config.balance != StudyConfig.balance:
        return f"synthetic pairs by --balance {config.balance}"
    if config.synthetic is None:
        return f"{config.per_mask} synthetic pair(s) per real one"
    return f"{config.synthetic} synthetic pairs a repetition"


def _scarce(bench: Bench) -> list[str]:
    """Arms that ask for more synthetic pairs than any repetition makes."""
    notes = []
    for one in (one for one in map(arm, bench.config.arms) if one.n):
        ways = variants_of(bench.config, one)
        most = max(
            sum(len(range(candidates(bench, repetition, way))[i :: len(ways)]) for i, way in enumerate(ways))
            for repetition in bench.splits.repetitions
        )
        if (one.n or 0) > most:
            free = balance_of(bench.of(ways[0]).config, ways[0]) == NONE
            remedy = "give --synthetic" if free else "balance up to more"
            notes.append(f"{one.name}: {most} pairs are made, of which it takes all; {remedy}")
    return notes


def _resembling(bench: Bench) -> list[str]:
    """Judges of arms that have the architecture of a segmenter that a generator learns with."""
    config, notes = bench.config, []
    for name in dict.fromkeys(variant.generator for variant in variants(config, config.arms)):
        for judge in judges_that_resemble(config, name):
            loss, other = segmenter_of_loss(config, name), judge_of_adherence(config, name)
            fault = f"the judge {judge} has the architecture of {loss}, with which {name or config.generator} learns"
            notes.append(f"{fault}; {other} judges the adherence of its images")
    return notes


def _plan_result(bench: Bench, plan: Sequence[Training], todo: Sequence[Training], cost: Estimate) -> dict[str, Any]:
    return {
        "arms": list(bench.config.arms),
        "repetitions": [repetition.label for repetition in bench.splits.repetitions],
        "cells": [name for training in plan for name in training.cells.values()],
        "missing": [n for t in todo for n in t.cells.values() if not bench.cell_path(n).exists()],
        "seconds": cost.seconds,
        "disk_mb": cost.disk_mb,
        "memory_mb": cost.memory_mb,
    }
