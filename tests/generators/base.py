"""What every generator must do, whatever its method; a generator's own test class inherits this."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from morphogen.data.phantoms import phantom_dataset
from morphogen.data.records import Dataset, Record
from morphogen.generators import GENERATORS, load_sampler
from morphogen.sampling.budgets import plan_captions
from morphogen.sampling.into import plan_into
from morphogen.sampling.jobs import Job, Sampler
from morphogen.sampling.plan import Plan, plan_jobs
from morphogen.sampling.runner import run_jobs


class GeneratorTester:
    """Inherit, and state `name` and a `config` that trains in seconds at 32 px."""

    name: str
    config: Any
    grey_levels: int = 1
    """How far two batch sizes may differ."""
    transform: str = "random"
    """How masks are varied."""

    @pytest.fixture(scope="class")
    @classmethod
    def data(cls, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
        return phantom_dataset(tmp_path_factory.mktemp("data"), "mucosa", 6, 32, seed=1)

    @pytest.fixture(scope="class")
    @classmethod
    def run(cls, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return GENERATORS[cls.name].train(data, cls.config, tmp_path_factory.mktemp("run") / "run")

    @pytest.fixture(scope="class")
    @classmethod
    def sampler(cls, run: Path) -> Sampler:
        return GENERATORS[cls.name].load(run)

    @pytest.fixture(scope="class")
    @classmethod
    def jobs(cls, data: Dataset, sampler: Sampler) -> list[Job]:
        return list(plan(sampler, data, 1, cls.transform))

    def test_entry_and_sampler_agree(self, sampler: Sampler) -> None:
        assert sampler.needs == GENERATORS[self.name].needs
        assert sampler.resolution == 32
        assert isinstance(self.config, GENERATORS[self.name].config())

    def test_run_folder_is_recognised(self, run: Path, sampler: Sampler) -> None:
        assert json.loads((run / "final" / "generator.json").read_text())["generator"] == self.name
        assert (run / "config.yaml").is_file()
        assert load_sampler(run).hash == sampler.hash

    def test_run_folder_names_no_path(self, run: Path, data: Dataset) -> None:
        for file in (path for path in run.rglob("*") if path.is_file()):
            assert str(data.root).encode() not in file.read_bytes(), file

    def test_pairs_have_the_shape_and_mask_asked_for(self, sampler: Sampler, jobs: list[Job]) -> None:
        pairs = sampler.sample(jobs)
        assert len(pairs) == len(jobs)
        for job, pair in zip(jobs, pairs, strict=True):
            assert (pair.image.shape, pair.image.dtype) == ((32, 32, 3), np.uint8)
            if job.mask is not None:
                assert np.array_equal(pair.mask, job.mask)
            json.dumps(pair.origin)

    def test_same_jobs_give_the_same_bits_after_loading_again(
        self, run: Path, sampler: Sampler, jobs: list[Job]
    ) -> None:
        for one, two in zip(sampler.sample(jobs), GENERATORS[self.name].load(run).sample(jobs), strict=True):
            assert np.array_equal(one.image, two.image)

    def test_a_pair_depends_on_its_own_job_alone(self, sampler: Sampler, jobs: list[Job]) -> None:
        together = sampler.sample(jobs)
        backwards = [sampler.sample([job])[0] for job in reversed(jobs)][::-1]
        for one, two in zip(together, backwards, strict=True):
            assert np.abs(one.image.astype(int) - two.image).max() <= self.grey_levels

    def test_the_seed_matters(self, sampler: Sampler, jobs: list[Job]) -> None:
        others = sampler.sample([replace(job, seed=job.seed + 1) for job in jobs])
        assert any(not np.array_equal(a.image, b.image) for a, b in zip(sampler.sample(jobs), others, strict=True))

    def test_workers_and_restarts_write_the_same_files(self, sampler: Sampler, data: Dataset, tmp_path: Path) -> None:
        planned = plan(sampler, data, 2, self.transform)
        for size, ours in ((1, "ones"), (4, "fours")):
            run_jobs(sampler, planned, tmp_path / ours, size)
        for worker in range(2):
            run_jobs(sampler, planned, tmp_path / "two", 1, (worker, 2))
        assert _pictures(tmp_path / "two") == _pictures(tmp_path / "ones")
        for file in sorted((tmp_path / "ones" / "images").iterdir()):
            one, two = (np.array(Image.open(tmp_path / run / "images" / file.name)) for run in ("ones", "fours"))
            assert np.abs(one.astype(int) - two).max() <= self.grey_levels

        whole = _pictures(tmp_path / "fours")
        for name in sorted(whole)[1::3]:
            (tmp_path / "fours" / name).unlink()
        run_jobs(sampler, planned, tmp_path / "fours", 4)
        assert _pictures(tmp_path / "fours") == whole

    def test_sampling_reads_no_real_image(self, sampler: Sampler, jobs: list[Job]) -> None:
        gone = [replace(job, source=_unreadable(job.source)) for job in jobs]
        for one, two in zip(sampler.sample(jobs), sampler.sample(gone), strict=True):
            assert np.array_equal(one.image, two.image)


def plan(sampler: Any, data: Dataset, copies: int, transform: str) -> Plan:
    """Some jobs: for the masks of `data`, into the run's own normal images where the generator needs images, or for its
    own captions where it makes the masks.
    """
    if "images" in sampler.needs:
        return plan_into(data, sampler.normals, copies * len(data), transform, seed=3)
    if "masks" not in sampler.needs:
        wanted = Counter(caption.label for caption in sampler.captions * copies)
        return plan_captions(sampler.captions, wanted, seed=3)
    return plan_jobs(data, copies, transform, seed=3, size=sampler.resolution)


def _pictures(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*.png")}


def _unreadable(source: Record | None) -> Record | None:
    return source and replace(source, image=Path("/nonexistent/image.png"), mask=Path("/nonexistent/mask.png"))
