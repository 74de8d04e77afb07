"""The audits that a study always makes: what is compared, and that planted leaks of a study are found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from morphogen.audit.nearest import ImageSet
from morphogen.data.phantoms import phantom_dataset
from morphogen.study.audits import audits, leaks
from morphogen.study.bench import Bench
from morphogen.study.quality import image_sets
from morphogen.study.recipe import StudyConfig
from morphogen.study.run import freeze, prepare
from morphogen.study.synthesis import Pairs, generator_run, synthetic_folder, synthetic_pairs

Make = Callable[..., StudyConfig]
pytestmark = pytest.mark.usefixtures("without_inception")
NOBODY = ImageSet([], np.zeros((0, 32, 32), np.float32))


def bench_of(config: StudyConfig) -> Bench:
    bench = prepare(config)
    freeze(bench)
    synthetic_pairs(bench, bench.splits.repetitions[0])
    return bench


def test_held_out_images_are_of_subjects_that_the_generator_never_saw(make_config: Make, tmp_path: Path) -> None:
    bench = bench_of(make_config(annotated=6))
    r, of = bench.splits.repetitions[0], bench.splits.subjects
    sets = image_sets(bench, r, Pairs(synthetic_pairs(bench, r), 16))
    held_out, seen = sets["held_out"].ids, {of[i] for i in r.train}
    outside = (*r.validation, *r.extra, *r.pool)
    assert set(held_out) == {i for i in outside if of[i] not in seen}
    assert len(held_out) == len(set(held_out)) > 0
    assert set(held_out).isdisjoint(r.test)
    expected = Pairs(bench.dataset.select(held_out), 16).images()
    assert np.array_equal(sets["held_out"].images, expected)
    found = audits(bench, r, sets, tmp_path / "closest.png")
    assert set(found) == {"memorisation", "leakage", "duplicates"}
    assert found["memorisation"]["control"]["n"] == len(held_out)
    assert found["leakage"]["verdict"] == "none"
    assert found["leakage"]["foundation"]["note"] == "there is no foundation"
    assert (tmp_path / "closest.png").exists()


def test_a_source_mask_of_the_test_part_is_found(make_config: Make) -> None:
    bench = bench_of(make_config())
    r = bench.splits.repetitions[0]
    path = synthetic_folder(bench, r) / "manifest.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[1]["source_mask"] = r.test[0]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = leaks(bench, r, NOBODY)
    assert (found["verdict"], found["provenance"]["n_found"]) == ("found", 1)


def test_a_generator_that_records_a_test_image_is_found(make_config: Make) -> None:
    bench = bench_of(make_config())
    r = bench.splits.repetitions[0]
    (generator_run(bench, r) / "config.yaml").write_text(f"records: [{r.test[3]}]\n")
    assert leaks(bench, r, NOBODY)["provenance"]["found"] == [{"generator_id": r.test[3]}]


def test_subjects_that_a_stated_split_parts_are_found(make_config: Make, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    dataset = phantom_dataset(folder, "mucosa", 30, 24, seed=0, subjects=10)
    rows = [f"{r.id},{r.subject},{'train' if k < 21 else 'test'}" for k, r in enumerate(dataset)]
    (folder / "records.csv").write_text("\n".join(["id,subject,split", *rows]) + "\n")
    bench = bench_of(make_config(data=folder, seeds=1))
    r, of = bench.splits.repetitions[0], bench.splits.subjects
    shared = {of[i] for i in (*r.train, *r.validation, *r.extra, *r.pool)} & {of[i] for i in r.test}
    found = leaks(bench, r, NOBODY)["subjects"]
    assert {row["subject"] for row in found["found"]} == shared
    assert found["verdict"] == ("found" if shared else "none")


def test_a_copy_of_a_test_image_under_another_subject_is_found(
    make_config: Make, phantom_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(phantom_folder, tmp_path / "data")
    bench = bench_of(make_config(data=tmp_path / "data"))
    r = bench.splits.repetitions[0]
    theirs, ours = (bench.dataset.select([part[0]])[0] for part in (r.test, r.pool))
    Image.open(theirs.image).save(ours.image)
    found = leaks(bench, r, NOBODY)["near_duplicates"]["found"]
    assert found == [{"test": r.test[0], "pool": r.pool[0]}]


def test_a_foundation_that_knows_a_test_image_is_found(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from morphogen.study import audits as module

    bench = bench_of(make_config())
    r = bench.splits.repetitions[0]
    card: dict[str, Any] = {"sets": {bench.dataset.name: {"training_ids": [r.test[2]]}}}
    monkeypatch.setattr(module, "uses_foundation", lambda config: True)
    monkeypatch.setattr(module, "foundation_card", lambda config: card)
    found = leaks(bench, r, NOBODY)["foundation"]["found"]
    assert [row["id"] for row in found] == [r.test[2]]
    monkeypatch.setattr(module, "foundation_card", lambda config: {})
    assert leaks(replace(bench), r, NOBODY)["unknown"] == ["foundation"]
