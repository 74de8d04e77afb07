"""Samplers that the workers of a cluster can load by name: quick, and some of them with a fault."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from morphogen.errors import WorkError
from morphogen.sampling.jobs import Job, Pair
from morphogen.sampling.plan import Plan
from morphogen.training.rng import numpy_rng

PAIRS, SIDE = 24, 8


class Painter:
    """Noise from a job's seed on its mask, and a grey level more where a batch is odd; notes who painted what.

    Args:
        notes: Folder for a file a batch, ``FIRST-ID.PROCESS``; also where faults are called for.
    """

    needs = frozenset({"masks"})
    resolution = SIDE

    def __init__(self, notes: Path, hash_: str) -> None:
        self.notes, self.hash = notes, hash_

    def sample(self, jobs: Sequence[Job]) -> list[Pair]:
        (self.notes / f"{jobs[0].id}.{os.getpid()}").touch()
        if (self.notes / f"fault.{jobs[0].id}").exists():
            raise WorkError(f"{jobs[0].id}: cannot be painted; choose other colours")
        if (self.notes / f"die.{jobs[0].id}").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        while (self.notes / f"wait.{jobs[0].id}").exists():  # until somebody lets it go on, or ends it
            time.sleep(0.02)
        pairs = []
        for job in jobs:
            image = numpy_rng(job.seed).integers(0, 250, (SIDE, SIDE, 3), dtype=np.uint8)
            assert job.mask is not None
            pairs.append(Pair(image + np.uint8(len(jobs) % 2), job.mask))
        return pairs


def load(notes: Path, hash_: str = "painter") -> tuple[Painter, Plan]:
    """The sampler and its plan."""
    masks = [numpy_rng("mask", i).integers(0, 2, (SIDE, SIDE)) for i in range(PAIRS)]
    return Painter(notes, hash_), Plan.of([Job(f"j{i:02d}", i, mask) for i, mask in enumerate(masks)])
