"""A generator that makes images and masks for the captions of its training images, and takes no time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from morphogen.data.records import Dataset
from morphogen.errors import InputError
from morphogen.sampling.budgets import Caption
from morphogen.sampling.jobs import Job, Pair
from morphogen.training.rng import numpy_rng

SAMPLING = ("guidance",)


@dataclass(frozen=True, kw_only=True)
class DualConfig:
    method: str = "dual-fake"
    resolution: int = 16
    guidance: float = 5.0
    seed: int = 0


CONFIG = DualConfig


def check(data: Dataset, config: DualConfig) -> None:
    """Takes any data."""


def train(data: Dataset, config: DualConfig, out: Path) -> Path:
    """Note the settings and the captions."""
    (out / "final").mkdir(parents=True, exist_ok=True)
    captions = [{"label": record.label, "text": f"{record.label} {record.id}"} for record in data]
    (out / "final" / "captions.json").write_text(json.dumps(captions))
    (out / "config.yaml").write_text(f"records: {list(data.ids)}\n")
    (out / "final" / "generator.json").write_text(json.dumps({"generator": config.method, **asdict(config)}))
    return out


def load(run: Path, device: str = "cpu") -> Dual:
    """The sampler of a run."""
    settings = json.loads((run / "final" / "generator.json").read_text())
    del settings["generator"]
    rows = json.loads((run / "final" / "captions.json").read_text())
    return Dual(DualConfig(**settings), [Caption(**row) for row in rows])


class Dual:
    """A bright square on noise; every fourth mask is unclear."""

    needs: frozenset[str] = frozenset()
    classes = ("background", "lesion")

    def __init__(self, config: DualConfig, captions: list[Caption]) -> None:
        self.config, self.captions, self.resolution = config, captions, config.resolution
        self.hash = json.dumps(asdict(config))

    def with_sampling(self, **changes: Any) -> Dual:
        return Dual(replace(self.config, **changes), self.captions)

    def check(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            if "unicorn" in (job.prompt or ""):
                raise InputError(f"prompt {job.prompt!r}: the model does not know 'unicorn'")

    def sample(self, jobs: Sequence[Job]) -> list[Pair]:
        return [self._sample(job) for job in jobs]

    def _sample(self, job: Job) -> Pair:
        side, rng = self.resolution, numpy_rng(job.seed)
        mask = np.zeros((side, side), np.int64)
        mask[3:9, 4:11] = 1
        image = rng.integers(0, 100, (side, side, 3), dtype=np.uint8)
        image[mask > 0] += 120
        origin = {"area": float(mask.mean()), "ambiguous": 0.9 if job.seed % 4 == 0 else 0.05}
        return Pair(image, mask, origin)
