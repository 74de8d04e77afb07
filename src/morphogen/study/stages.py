"""What a study does, in stages that can run apart: synthetic pairs, then cells and measures of images, then the report.

One process does without the first stage, since the first cell that wants synthetic pairs makes them. Of many processes
those that want the same pairs would wait for the one that makes them, so that they are made beforehand. A piece is what
one process does of a stage; pieces of a stage share nothing but the folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from glob import escape

from morphogen.progress import track
from morphogen.study.arms import Variant
from morphogen.study.bench import Bench
from morphogen.study.cells import Tools, run_training
from morphogen.study.gating import gate_summary
from morphogen.study.plan import Training
from morphogen.study.quality import measure_images, variants
from morphogen.study.splits import Repetition
from morphogen.study.synthesis import synthetic_pairs

STAGES = ("synthetic", "cells", "images")


@dataclass(frozen=True)
class Piece:
    """One part of a stage: what a process does of it.

    Attributes:
        stage: One of `STAGES`.
        trainings: Of a cell's stage the one to run; of the others all those of one repetition, whose pairs these are.
        pattern: Which cells these are, for ``--cells``.
    """

    stage: str
    trainings: tuple[Training, ...]
    pattern: str


def pieces(bench: Bench, plan: Sequence[Training]) -> dict[str, list[Piece]]:
    """Stage -> its pieces in which something is missing."""
    found: dict[str, list[Piece]] = {stage: [] for stage in STAGES}
    of: dict[str, list[Training]] = {}
    for training in plan:
        of.setdefault(training.repetition.label, []).append(training)
        if any(not bench.cell_path(name).exists() for name in training.cells.values()):
            found["cells"].append(Piece("cells", (training,), f"{escape(training.name)}.*"))
    wanting = {piece.trainings[0].repetition.label for piece in found["cells"]}
    for label, trainings in of.items():
        ways, pattern = sampled(bench, trainings), f"*.{escape(label)}.n{trainings[0].size}.*"
        if unmeasured := [way for way in ways if not _measures(bench, *way)]:
            found["images"].append(Piece("images", tuple(trainings), pattern))
        if ways and (unmeasured or label in wanting):
            found["synthetic"].append(Piece("synthetic", tuple(trainings), pattern))
    return found


def perform(bench: Bench, stage: str, plan: Sequence[Training], tools: Tools) -> list[str]:
    """Do one stage for some trainings; what is finished stays.

    Args:
        bench: The study, whose folder is frozen.
        stage: One of `STAGES`.
        plan: Which trainings, and the repetitions of which.
        tools: How judges are trained and loaded.

    Returns:
        Names of trainings that another process is at work on.

    Raises:
        MorphogenError: The work failed.
    """
    if stage == "cells":
        todo = [t for t in plan if any(not bench.cell_path(name).exists() for name in t.cells.values())]
        return [t.name for t in track(todo, "study") if not run_training(bench, t, tools)]
    for repetition, variant in track(sampled(bench, plan), "measuring images" if stage == "images" else "synthetic"):
        if stage == "images":
            measure_images(bench, repetition, tools, variant)
        else:
            synthetic_pairs(bench, repetition, variant)
            gate_summary(bench, repetition, tools, variant)
    return []


def sampled(bench: Bench, plan: Sequence[Training]) -> list[tuple[Repetition, Variant]]:
    """Every repetition of the plan with each way in which its synthetic pairs are sampled."""
    repetitions = {t.repetition.label: t.repetition for t in plan}
    return [
        (repetition, variant)
        for label, repetition in repetitions.items()
        for variant in variants(bench.config, (t.arm for t in plan if t.repetition.label == label))
    ]


def _measures(bench: Bench, repetition: Repetition, variant: Variant) -> bool:
    return (bench.out / "images" / f"{variant.of(repetition.label)}.json").exists()
