"""Measures of synthetic images: what is compared with what, on which images, and what is never read."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from morphogen.study import quality
from morphogen.study.audits import copies
from morphogen.study.bench import Bench
from morphogen.study.quality import ImageSet, distances, image_sets, measure_images
from morphogen.study.recipe import StudyConfig
from morphogen.study.run import freeze, prepare
from morphogen.study.synthesis import Pairs, synthetic_pairs

Make = Callable[..., StudyConfig]


SHARED = " (partly of the same subjects, so that the floor is lower than between subjects)"


def bench_of(config: StudyConfig) -> Bench:
    bench = prepare(config)
    freeze(bench)
    return bench


def fake_features(images: np.ndarray) -> np.ndarray:
    """(N, 3, R, R) -> (N, 6): cheap, and unlike for unlike images."""
    flat = images.reshape(len(images), 3, -1).astype(np.float64)
    return np.concatenate([flat.mean(axis=2), flat.std(axis=2)], axis=1) / 255


@pytest.fixture
def sets_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[Bench], dict[str, ImageSet]]:
    monkeypatch.setattr(quality, "_features", fake_features)

    def of(bench: Bench) -> dict[str, ImageSet]:
        repetition = bench.splits.repetitions[0]
        return image_sets(bench, repetition, Pairs(synthetic_pairs(bench, repetition), bench.config.resolution))

    return of


def test_rows_are_equally_many_images_against_others_of_the_training_part(
    make_config: Make, sets_of: Callable[[Bench], dict[str, ImageSet]]
) -> None:
    from morphogen.metrics.fid import fid
    from morphogen.metrics.kid import kid

    bench = bench_of(make_config(annotated=6))
    r, sets = bench.splits.repetitions[0], sets_of(bench)
    found = distances(bench, r, sets)
    others = Pairs(bench.dataset.select(sorted([*r.extra, *r.pool])), 16).images()
    train = Pairs(bench.dataset.select(r.train), 16).images()
    assert (found["n"], found["n_reference"]) == (len(r.train), len(r.extra) + len(r.pool))
    subject = bench.splits.subjects
    assert {subject[i] for i in r.train} & {subject[i] for i in (*r.extra, *r.pool)}
    assert found["reference"] == "training images outside the annotated ones" + SHARED
    assert found["rows"].keys() == {"synthetic", "real"}
    real = found["rows"]["real"]
    assert real["fid"] == pytest.approx(fid(fake_features(train), fake_features(others)))
    assert real["kid"]["full"] == pytest.approx(kid(fake_features(train), fake_features(others)).full)


def test_without_other_images_the_reference_is_the_validation_part_which_the_generator_never_saw(
    make_config: Make, sets_of: Callable[[Bench], dict[str, ImageSet]]
) -> None:
    bench = bench_of(make_config(annotated=None))
    r = bench.splits.repetitions[0]
    found = distances(bench, r, sets_of(bench))
    shared = {bench.splits.subjects[i] for i in r.train} & {bench.splits.subjects[i] for i in r.validation}
    assert found["reference"] == "annotated images of the validation part" + (SHARED if shared else "")
    assert (found["n"], found["n_reference"]) == (len(r.train), len(r.validation))
    assert found["rows"].keys() == {"synthetic", "real"}


@pytest.mark.parametrize("annotated", [6, None])
def test_a_floor_between_subjects_is_not_said_to_be_lower(
    annotated: int | None, make_config: Make, sets_of: Callable[[Bench], dict[str, ImageSet]]
) -> None:
    bench = bench_of(make_config(annotated=annotated))
    each = replace(bench, splits=replace(bench.splits, subjects={i: i for i in bench.dataset.ids}))
    assert "subjects" not in distances(each, bench.splits.repetitions[0], sets_of(bench))["reference"]


def test_the_judge_of_adherence_is_no_judge_of_an_arm(make_config: Make, quick: Any, without_inception: None) -> None:
    bench = bench_of(make_config(annotated=6))
    for repetition in bench.splits.repetitions:
        measure_images(bench, repetition, quick.tools)
        measure_images(bench, repetition, quick.tools)
    assert [job.seed for job in quick.jobs] == [1000, 1001]
    for job, r in zip(quick.jobs, bench.splits.repetitions, strict=True):
        assert [tuple(source.dataset.ids) for source in job.train] == [r.train]
        assert len(job.validation) == 0
    written = json.loads((bench.out / "images" / "fold1.json").read_text())
    r = bench.splits.repetitions[1]
    assert written["adherence"]["n"] == written["n_synthetic"] == len(r.train)
    assert written["adherence"]["n_real"] == len(r.validation)
    assert written["distances"]["features"] is None
    audit = written["audit"]
    assert audit["memorisation"]["n_real"] == len(r.train)
    assert audit["duplicates"]["n"] == len(r.train)
    assert audit["leakage"]["n_test"] == len(r.test)
    assert "gates" not in audit
    assert (bench.out / "images" / "fold1-closest.png").exists()
    lines = [json.loads(line) for line in (bench.out / "test_reads.jsonl").read_text().splitlines()]
    assert [(line["reader"], line["n_images"]) for line in lines] == [
        (f"audit.{r.label}", len(r.test)) for r in bench.splits.repetitions
    ]


def test_adherence_is_the_mean_dice_at_working_resolution(make_config: Make, without_inception: None) -> None:
    from morphogen.study.cells import JudgeRun, Tools

    bench = bench_of(make_config(annotated=6))
    r = bench.splits.repetitions[0]

    def load(run: Path, device: str) -> Callable[[Sequence[np.ndarray]], list[np.ndarray]]:
        return lambda images: [np.pad(np.ones((8, 16), dtype=np.int64), ((0, 8), (0, 0))) for _ in images]

    def train(job: JudgeRun) -> Path:
        return job.out

    synthetic = Pairs(synthetic_pairs(bench, r), 16)
    found = quality.adherence(bench, r, synthetic, Tools(train, load))
    masks = synthetic.masks() > 0
    expected = [2 * mask[:8].sum() / (mask.sum() + 128) for mask in masks]
    assert found["dice"] == pytest.approx(np.mean(expected))


def test_a_single_training_image_has_no_audit_and_stops_nothing(
    make_config: Make, sets_of: Callable[[Bench], dict[str, ImageSet]], tmp_path: Path
) -> None:
    bench = bench_of(make_config(annotated=2))
    r, sets = bench.splits.repetitions[0], sets_of(bench)
    assert len(r.train) == 1
    assert copies(bench, r, sets, tmp_path / "closest.png") == {}
    assert not (tmp_path / "closest.png").exists()
