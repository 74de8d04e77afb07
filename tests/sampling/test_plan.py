"""The plan: jobs are functions of their ids, made on demand."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from morphogen.data.mask_transforms import transform_mask
from morphogen.data.masks import load_mask
from morphogen.data.phantoms import phantom_dataset
from morphogen.data.readers import read_dataset
from morphogen.data.records import Dataset
from morphogen.errors import InputError
from morphogen.sampling import plan as plan_module
from morphogen.sampling.jobs import Job
from morphogen.sampling.plan import Plan, plan_jobs, plan_prompts
from morphogen.training.rng import seed_of


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return phantom_dataset(tmp_path_factory.mktemp("plan") / "data", "mucosa", 3, 40)


def test_ids_seeds_and_masks_follow_from_the_record_and_the_copy(data: Dataset) -> None:
    plan = plan_jobs(data, 2, "random", seed=5, prompt=["one", "two", "three"])
    assert plan.ids == tuple(f"{id_}_{copy:02d}" for id_ in data.ids for copy in (0, 1))
    assert [job.prompt for job in plan] == ["one", "two", "three"] * 2
    job = plan[3]
    mask, params = transform_mask(load_mask(data[1], data.mask_values), "random", seed_of(5, plan.ids[3]))
    assert (job.id, job.seed, job.source) == (plan.ids[3], seed_of(5, plan.ids[3]), data[1])
    assert np.array_equal(job.mask, mask)
    assert job.params == params
    assert [job.id for job in plan[1::2]] == list(plan.ids[1::2])


def test_masks_are_resized_by_nearest_neighbour(data: Dataset) -> None:
    full, half = (plan_jobs(data, 1, "identity", 0, size=size)[0].mask for size in (40, 20))
    assert full is not None
    assert half is not None
    assert half.shape == (20, 20)
    assert half.dtype == np.int64
    assert np.array_equal(half, full[1::2, 1::2])


def test_masks_are_not_read_before_they_are_wanted(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    monkeypatch.setattr(
        plan_module, "load_mask", lambda record, _: read.append(record.id) or np.zeros((8, 8), np.int64)
    )
    plan = plan_jobs(data, 1000, "identity", 0)
    assert (len(plan), read) == (3000, [])
    plan[2999]
    assert read == [data.ids[2]]


def test_digest_knows_content_and_not_place(data: Dataset, tmp_path: Path) -> None:
    moved = read_dataset(shutil.copytree(data.root, tmp_path / "moved"))
    plan = plan_jobs(data, 1, "identity", 0)
    assert plan_jobs(moved, 1, "identity", 0).digest == plan.digest
    others = [
        plan_jobs(data, 2, "identity", 0),
        plan_jobs(data, 1, "flip", 0),
        plan_jobs(data, 1, "identity", 1),
        plan_jobs(data, 1, "identity", 0, prompt="polyp"),
        plan_jobs(data, 1, "identity", 0, size=16),
    ]
    shutil.copyfile(moved[0].mask, moved[1].mask)
    others.append(plan_jobs(moved, 1, "identity", 0))
    assert len({plan.digest, *(other.digest for other in others)}) == 7


def test_prompts_alone() -> None:
    plan = plan_prompts(["a polyp", "two polyps"], 2, seed=1)
    assert plan.ids == ("text0001_00", "text0001_01", "text0002_00", "text0002_01")
    assert [job.prompt for job in plan] == ["a polyp", "a polyp", "two polyps", "two polyps"]
    assert len({job.seed for job in plan}) == 4


@pytest.mark.parametrize("bad", ["", "../up", "a/b", ".hidden", "a\\b"])
def test_ids_that_are_no_file_names_are_refused(bad: str) -> None:
    with pytest.raises(InputError, match="is no name for a file"):
        Plan.of([Job(bad, 0)])


def test_bad_input_is_one_line(data: Dataset) -> None:
    unannotated = replace(data, records=tuple(replace(record, mask=None) for record in data))
    cases = [
        (lambda: plan_jobs(unannotated, 1, "identity", 0), "holds no masks"),
        (lambda: plan_jobs(data, 0, "identity", 0), "--per-mask"),
        (lambda: plan_jobs(data, 1, "explode", 0), "'explode' is none of identity"),
        (lambda: plan_prompts([], 1, 0), "holds no text"),
        (lambda: Plan.of([Job("a", 0), Job("b", 0), Job("a", 1)]), "a: two pairs have this id"),
    ]
    for call, words in cases:
        with pytest.raises(InputError, match=words) as error:
            call()
        assert "\n" not in str(error.value)
