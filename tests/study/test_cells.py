"""One training and its cells: what each arm trains on, how it is scored, and who may read what."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from morphogen.data.images import load_rgb
from morphogen.data.pairs import native_mask
from morphogen.locks import lock
from morphogen.study import cells
from morphogen.study.bench import Bench
from morphogen.study.cells import run_training
from morphogen.study.plan import Training, trainings
from morphogen.study.recipe import StudyConfig
from morphogen.study.run import freeze, prepare

Make = Callable[..., StudyConfig]
ALL = ("real", "real-geo", "syn", "syn-geo", "duplicated", "more-real", "synthetic-only")


def bench_of(config: StudyConfig) -> Bench:
    bench = prepare(config)
    freeze(bench)
    return bench


def plan_of(bench: Bench, *sets: str) -> dict[str, Training]:
    found = trainings(bench.splits, bench.config.arms, bench.config.judges, sets or ("test",))
    return {training.name: training for training in found}


def reads(bench: Bench) -> int:
    path = bench.out / "test_reads.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.fixture
def bench(make_config: Make) -> Bench:
    return bench_of(make_config(annotated=6, arms=ALL))


def ids_of(source: Any) -> tuple[str, ...]:
    return tuple(source.dataset.ids)


def test_every_arm_trains_on_its_parts_with_equal_steps(bench: Bench, quick: Any) -> None:
    plan = plan_of(bench)
    for arm in ALL:
        assert run_training(bench, plan[f"{arm}.unet.fold1.n6"], quick.tools)
    jobs = {arm: quick.arm(arm)[0] for arm in ALL}
    assert {(job.steps, job.batch, job.seed) for job in jobs.values()} == {(2, 16, 1)}
    assert {arm for arm, job in jobs.items() if job.augmentation == "none"} == {"real", "syn"}
    r = bench.splits.repetitions[1]
    made = tuple(sorted(f"{i}_00" for i in r.train))
    expected = {
        "real": [r.train], "real-geo": [r.train], "syn": [r.train, made], "syn-geo": [r.train, made],
        "duplicated": [r.train, r.train], "more-real": [r.train, r.extra], "synthetic-only": [made],
    }  # fmt: skip
    for arm, parts in expected.items():
        sources = [ids_of(source) for source in jobs[arm].train]
        assert [tuple(sorted(ids)) for ids in sources] == [tuple(sorted(ids)) for ids in parts]
        assert ids_of(jobs[arm].validation) == r.validation
        trained = {i.removesuffix("_00") for ids in sources for i in ids}
        assert trained.isdisjoint(r.test)
        assert trained.isdisjoint(r.validation)


def test_a_cell_has_the_shape_of_the_design_and_the_right_scores(bench: Bench, quick: Any) -> None:
    training = plan_of(bench)["syn-geo.unet.fold0.n6"]
    assert run_training(bench, training, quick.tools)
    cell = json.loads((bench.out / "cells" / "syn-geo.unet.fold0.n6.test.json").read_text())
    scores, empty = cell.pop("scores"), cell.pop("empty")
    assert empty == {"lesion": {"both": 0, "one": 0}}
    assert cell.pop("wall_s") >= 0
    assert cell == {
        "arm": "syn-geo", "judge": "unet", "fold": 0, "seed": 0, "n_annotated": 6, "test_set": "test",
        "n_synthetic": len(bench.splits.repetitions[0].train), "config_hash": bench.hash,
    }  # fmt: skip
    assert set(scores) == set(bench.splits.repetitions[0].test)
    for record in bench.dataset.select(scores):
        predicted = load_rgb(record)[..., 0] > 128
        reference = native_mask(record, bench.dataset) > 0
        dice = 2 * (predicted & reference).sum() / (predicted.sum() + reference.sum())
        row = scores[record.id]
        assert row["subject"] == record.subject
        assert row["dice"] == pytest.approx(dice)
        assert row["iou"] == pytest.approx(dice / (2 - dice))
        assert row["hd95"] >= 0


def test_scores_are_taken_at_native_size(make_config: Make, phantom_folder: Path) -> None:
    bench = bench_of(make_config(arms=("real",)))
    shapes: list[tuple[int, ...]] = []

    def predict(images: Any) -> list[np.ndarray]:
        shapes.extend(image.shape for image in images)
        return [np.zeros(image.shape[:2], dtype=np.int64) for image in images]

    scores, empty = cells.score(bench, plan_of(bench)["real.unet.fold0.n8"], "test", predict)
    assert set(shapes) == {(24, 24, 3)}
    assert {row["dice"] for row in scores.values()} == {0.0}
    assert {round(row["hd95"], 9) for row in scores.values()} == {round(24 * 2**0.5, 9)}
    assert empty == {"lesion": {"both": 0, "one": len(scores)}}


def test_empty_masks_are_counted_in_the_cell(make_config: Make, quick: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = bench_of(make_config(arms=("real",)))
    tested = bench.splits.repetitions[0].test
    read = cells.native_mask

    def masks(record: Any, dataset: Any) -> np.ndarray:
        return read(record, dataset) * (record.id not in tested[:3])

    monkeypatch.setattr(cells, "native_mask", masks)
    tools = replace(quick.tools, load=lambda run, device: lambda images: [np.zeros(i.shape[:2], int) for i in images])
    run_training(bench, plan_of(bench)["real.unet.fold0.n8"], tools)
    cell = json.loads((bench.out / "cells" / "real.unet.fold0.n8.test.json").read_text())
    assert cell["empty"] == {"lesion": {"both": 3, "one": len(tested) - 3}}
    assert [cell["scores"][i]["dice"] for i in tested] == [1.0] * 3 + [0.0] * (len(tested) - 3)


def test_every_read_of_a_test_part_is_counted(bench: Bench, quick: Any) -> None:
    assert reads(bench) == 0
    for name in ("real.unet.fold0.n6", "real.unet.fold1.n6"):
        run_training(bench, plan_of(bench)[name], quick.tools)
    lines = [json.loads(line) for line in (bench.out / "test_reads.jsonl").read_text().splitlines()]
    assert reads(bench) == 2
    assert [line["reader"] for line in lines] == ["real.unet.fold0.n6", "real.unet.fold1.n6"]
    assert sum(line["n_images"] for line in lines) == len(bench.dataset)


def test_test_images_are_opened_by_the_score_alone(bench: Bench, quick: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from morphogen.data import pairs

    opened: list[str] = []
    read = pairs.load_rgb
    monkeypatch.setattr(pairs, "load_rgb", lambda record: opened.append(record.id) or read(record))
    scored: list[str] = []
    monkeypatch.setattr(cells, "load_rgb", lambda record: scored.append(record.id) or read(record))
    run_training(bench, plan_of(bench)["syn-geo.unet.fold0.n6"], quick.tools)
    for source in [*quick.jobs[0].train, quick.jobs[0].validation]:
        for i in range(len(source)):
            _ = source[i]
    r = bench.splits.repetitions[0]
    assert set(opened).isdisjoint(r.test)
    assert set(opened) >= {*r.train, *r.validation}
    assert sorted(scored) == sorted(r.test)


def test_one_training_serves_all_test_sets(make_config: Make, tmp_path: Path, quick: Any) -> None:
    from morphogen.data.phantoms import phantom_dataset

    phantom_dataset(tmp_path / "skin", "skin", 3, 24, seed=9)
    bench = bench_of(make_config(arms=("real",), test=(f"far={tmp_path / 'skin'}",)))
    training = plan_of(bench, "test", "far")["real.unet.fold0.n8"]
    assert run_training(bench, training, quick.tools)
    assert len(quick.jobs) == 1
    far = json.loads((bench.out / "cells" / "real.unet.fold0.n8.far.json").read_text())
    assert far["test_set"] == "far"
    assert len(far["scores"]) == 3
    assert reads(bench) == 2


def test_finished_cells_are_kept_and_missing_ones_made(make_config: Make, tmp_path: Path, quick: Any) -> None:
    from morphogen.data.phantoms import phantom_dataset

    phantom_dataset(tmp_path / "skin", "skin", 3, 24, seed=9)
    bench = bench_of(make_config(arms=("real",), test=(f"far={tmp_path / 'skin'}",)))
    training = plan_of(bench, "test", "far")["real.unet.fold0.n8"]
    run_training(bench, replace(training, test_sets=("test",)), quick.tools)
    path = bench.out / "cells" / "real.unet.fold0.n8.test.json"
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    run_training(bench, training, quick.tools)
    run_training(bench, training, quick.tools)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert len(quick.jobs) == 2
    assert reads(bench) == 2


def test_a_training_at_which_another_process_works_is_left_to_it(bench: Bench, quick: Any) -> None:
    training = plan_of(bench)["real.unet.fold0.n6"]
    with lock(bench.out / ".locks" / f"{training.name}.lock", wait=False) as held:
        assert held
        assert not run_training(bench, training, quick.tools)
    assert not quick.jobs
    assert run_training(bench, training, quick.tools)
    assert len(quick.jobs) == 1


def test_the_features_arm_puts_its_own_network_in_the_place_of_the_judge(make_config: Make, quick: Any) -> None:
    bench = prepare(make_config(arms=("real-geo",)))
    freeze(bench)
    bench = replace(bench, config=replace(bench.config, arms=("features",), preset="/some/foundation"))
    assert run_training(bench, plan_of(bench)["features.unet.fold0.n8"], quick.tools)
    job = quick.jobs[0]
    assert (job.judge, dict(job.architecture), job.steps) == ("features", {"foundation": "/some/foundation"}, 2)
    assert ids_of(job.train[0]) == bench.splits.repetitions[0].train
    cell = json.loads((bench.out / "cells" / "features.unet.fold0.n8.test.json").read_text())
    assert (cell["arm"], cell["judge"]) == ("features", "unet")


def test_judges_take_their_published_recipe_in_all_but_what_the_study_decides(make_config: Make, quick: Any) -> None:
    from morphogen.segmenters import published

    bench = bench_of(make_config(arms=("real", "real-geo"), judges=("segformer+weights=none",), recipe="published"))
    for training in plan_of(bench).values():
        run_training(bench, training, quick.tools)
    known = published("segformer", 1)
    plain, geometric = quick.arm("real")[0], quick.arm("real-geo")[0]
    assert (plain.steps, plain.batch) == (known["max_train_steps"], known["train_batch_size"])
    assert (plain.augmentation, geometric.augmentation) == ("none", "geometric")
    assert plain.recipe == geometric.recipe
    assert plain.recipe["lr"] == known["lr"]
    assert not {"resolution", "augmentation", "max_train_steps", "train_batch_size"} & {*plain.recipe}
    assert {source.resolution for source in plain.train} == {16}


def test_the_recipe_reaches_the_training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from morphogen.segmenters import task

    seen: list[Any] = []
    monkeypatch.setattr(task, "train_segmenter", lambda name, train, val, config, out: seen.append(config) or out)
    job = cells.JudgeRun(
        judge="unet", architecture={}, train=[], validation=None, augmentation="none", steps=7, batch=3, seed=1,
        out=tmp_path, recipe={"lr": 0.5, "lr_scheduler": "constant"},
    )  # fmt: skip
    cells.default_tools().train(job)
    (config,) = seen
    assert (config.lr, config.lr_scheduler, config.max_train_steps, config.augmentation) == (0.5, "constant", 7, "none")
