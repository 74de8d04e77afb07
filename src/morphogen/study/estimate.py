"""What a study will cost, before it starts: from constants measured on two CPU cores, and from the cells that exist."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from morphogen.study.arms import ARMS
from morphogen.study.bench import Bench
from morphogen.study.plan import Training
from morphogen.study.recipe import OWN_TEST
from morphogen.study.synthesis import generator_config

SECONDS_A_STEP = 0.12
"""One optimiser step of the default U-Net: 16 images of 64 px, two cores."""
SECONDS_A_SCORE = 0.03
"""Reading, predicting and scoring one test image of 384 x 288 px."""
SECONDS_A_PAIR = 0.2
"""Sampling one synthetic pair at 64 px."""
SECONDS_A_GENERATOR_STEP = 0.9
"""One optimiser step of a generator that has steps, 16 images of 64 px."""
SECONDS_OF_QUALITY = 60.0
"""Features of some 350 images for the distances of one repetition."""
MB_A_RUN = 25.0
"""Weights, log and previews of one trained segmenter."""
MB_OF_PROCESS = 1500.0
"""Peak memory of a process that trains at 64 px."""


@dataclass(frozen=True)
class Estimate:
    """Seconds on two idle CPU cores, disk and memory in MB, of what is still to be done."""

    seconds: float
    disk_mb: float
    memory_mb: float


def estimate(bench: Bench, todo: Sequence[Training]) -> Estimate:
    """The cost of these trainings, their generators and their image measures."""
    config = bench.config
    scale = config.resolution**2 * config.train_batch_size / (64**2 * 16)
    judge = _seconds_so_far(bench) or SECONDS_A_STEP * scale * config.steps
    tests = sum(len(bench.test_part(t, training.repetition)) for training in todo for t in training.test_sets)
    repetitions = {t.repetition.label: t.repetition for t in todo if "synthetic" in ARMS[t.arm].parts}
    pairs = sum(config.per_mask * len(r.train) for r in repetitions.values())
    seconds = len(todo) * judge + tests * SECONDS_A_SCORE + pairs * SECONDS_A_PAIR * scale
    generator = _generator_steps(bench) * SECONDS_A_GENERATOR_STEP * scale
    seconds += len(repetitions) * (generator + judge + SECONDS_OF_QUALITY)
    disk = (len(todo) + 2 * len(repetitions)) * MB_A_RUN + pairs * 4 * config.resolution**2 / 1e6
    return Estimate(seconds, disk, MB_OF_PROCESS * max(1.0, scale**0.5))


def _seconds_so_far(bench: Bench) -> float | None:
    """Mean time of the trainings that are done, or None before the first."""
    cells = [json.loads(p.read_text(encoding="utf-8")) for p in (bench.out / "cells").glob(f"*.{OWN_TEST}.json")]
    return sum(cell["wall_s"] for cell in cells) / len(cells) if cells else None


def _generator_steps(bench: Bench) -> int:
    return int(getattr(generator_config(bench.config, 0), "max_train_steps", 0))
