"""A small phantom data set, a study on it, and a judge that needs no training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from morphogen.data.phantoms import phantom_dataset
from morphogen.study.cells import JudgeRun, Predict, Tools
from morphogen.study.recipe import StudyConfig


@dataclass
class QuickJudge:
    """Stands in for a segmenter: notes what it was trained on, and takes bright pixels for lesions."""

    jobs: list[JudgeRun] = field(default_factory=list)

    @property
    def tools(self) -> Tools:
        return Tools(self._train, self._load)

    def _train(self, job: JudgeRun) -> Path:
        self.jobs.append(job)
        job.out.mkdir(parents=True, exist_ok=True)
        return job.out

    def _load(self, run: Path, device: str) -> Predict:
        def predict(images: Sequence[np.ndarray]) -> list[np.ndarray]:
            return [(image[..., 0] > 128).astype(np.int64) for image in images]

        return predict

    def arm(self, name: str) -> list[JudgeRun]:
        """The jobs of one arm."""
        return [job for job in self.jobs if job.out.name.startswith(f"{name}.")]


@pytest.fixture
def quick() -> QuickJudge:
    return QuickJudge()


@pytest.fixture(scope="session")
def phantom_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 images of 10 subjects at 24 px."""
    folder = tmp_path_factory.mktemp("phantoms") / "data"
    phantom_dataset(folder, "mucosa", 40, 24, seed=0, subjects=10)
    return folder


@pytest.fixture
def make_config(phantom_folder: Path, tmp_path: Path) -> Callable[..., StudyConfig]:
    """A study on the phantoms that takes no time; options change it."""

    def make(**options: Any) -> StudyConfig:
        standard = {
            "generator": "copy-paste",
            "data": phantom_folder,
            "out": tmp_path / "study",
            "folds": 2,
            "annotated": 8,
            "resolution": 16,
            "steps": 2,
        }
        return StudyConfig(**{**standard, **options})

    return make


@pytest.fixture
def without_inception(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inception takes seconds to load; what needs it is tested on its own."""
    from morphogen.metrics import weights

    monkeypatch.setattr(weights, "available", lambda name: False)
