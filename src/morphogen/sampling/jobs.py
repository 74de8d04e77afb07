"""What is asked of a generator: one job per synthetic pair, each a pure function of its id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from morphogen.data.records import Record


@dataclass(frozen=True)
class Job:
    """One synthetic pair to make.

    Attributes:
        id: File stem of the pair; ``{source mask id}_{copy:02d}`` by convention.
        seed: Seed of everything random about it (`seed_of(run seed, id)`).
        mask: (H, W) int64 label map to paint, or None where the generator makes its own mask.
        source: Record that the mask came from, or None.
        image: (H, W, 3) uint8 image to paint into, of the mask's size, or None where the generator needs none.
        prompt: Text, or None.
        params: Further provenance (the mask transform's name, version and parameters).
        label: Class of the pair (a diagnosis), where it is asked for, or None.
    """

    id: str
    seed: int
    mask: np.ndarray | None = None
    source: Record | None = None
    prompt: str | None = None
    image: np.ndarray | None = None
    params: dict[str, Any] = field(default_factory=dict)
    label: str | None = None


@dataclass(frozen=True)
class Pair:
    """One synthetic pair: `image` (H, W, 3) uint8, `mask` (H, W) int64 label map, `origin` extra provenance.

    `mask` is None where the plan has no classes: images alone.
    """

    image: np.ndarray
    mask: np.ndarray | None
    origin: dict[str, Any] = field(default_factory=dict)


class Sampler(Protocol):
    """A trained generator, ready to sample."""

    needs: frozenset[str]
    """Which of ``masks``, ``images``, ``prompts`` a job must bring."""
    hash: str
    """Content hash of the weights and config; goes into the provenance of every pair."""
    resolution: int

    def sample(self, jobs: Sequence[Job]) -> list[Pair]:
        """One pair per job, in order. Row i depends on jobs[i] alone, except for float rounding between batch sizes."""
        ...
