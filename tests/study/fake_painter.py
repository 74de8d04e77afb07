"""A generator that paints into images and takes no time: bright lesions by its words, and what it notes of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from morphogen.data.images import load_rgb
from morphogen.data.readers import read_dataset
from morphogen.data.records import Dataset
from morphogen.errors import InputError
from morphogen.sampling.jobs import Job, Pair

SAMPLING = ("text", "guidance")
WORDS = {"mask": 255, "none": 200, "wrong": 60}


@dataclass(frozen=True, kw_only=True)
class PainterConfig:
    resolution: int = 16
    text: str = "mask"
    guidance: float = 2.5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.text not in WORDS:
            raise InputError(f"--text {self.text}: choose mask or none or wrong")


CONFIG = PainterConfig


def check(data: Dataset, config: PainterConfig, prompt: str | None = None) -> None:
    """Takes any data."""


def train(data: Dataset, config: PainterConfig, out: Path) -> Path:
    """Note the settings, and darken the images for normal ones."""
    if not (out / "final" / "generator.json").exists():
        (out / "normals" / "images").mkdir(parents=True)
        (out / "final").mkdir()
        for record in data:
            Image.fromarray(load_rgb(record) // 2).save(out / "normals" / "images" / f"{record.id}.png")
        (out / "config.yaml").write_text(f"records: {list(data.ids)}\n")
        (out / "final" / "generator.json").write_text(json.dumps(asdict(config)))
    return out


def load(run: Path, device: str = "cpu") -> Painter:
    """The sampler of a run."""
    return Painter(run, PainterConfig(**json.loads((run / "final" / "generator.json").read_text())))


class Painter:
    """Every fifth pair has nothing drawn in it; the words decide how bright a lesion is."""

    needs = frozenset({"masks", "images"})

    def __init__(self, run: Path, config: PainterConfig) -> None:
        self.run, self.config, self.resolution = run, config, config.resolution
        self.hash = json.dumps(asdict(config))

    @property
    def normals(self) -> Dataset:
        return read_dataset(self.run / "normals")

    def with_sampling(self, **changes: Any) -> Painter:
        return Painter(self.run, replace(self.config, **changes))

    def sample(self, jobs: Sequence[Job]) -> list[Pair]:
        return [self._sample(job) for job in jobs]

    def _sample(self, job: Job) -> Pair:
        assert job.image is not None
        assert job.mask is not None
        image, drawn = job.image.copy(), 0.5 if job.seed % 5 == 0 else 4.0
        if drawn > 1:
            image[job.mask > 0] = WORDS[self.config.text]
        origin = {"text": self.config.text, "normal": job.params["normal"], "drawn": drawn, "outside": 0}
        return Pair(np.ascontiguousarray(image), job.mask, origin)
