"""The arms `semi` and `semi-syn`: what they learn from, how they are compared, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from morphogen.data.pairs import Pairs
from morphogen.data.readers import read_dataset
from morphogen.data.records import Dataset
from morphogen.errors import InputError
from morphogen.segmenters.diffcl.config import SemiConfig
from morphogen.segmenters.diffcl.pictures import train_pictures
from morphogen.study import cells, estimate, report, results
from morphogen.study.bench import Bench
from morphogen.study.cells import JudgeRun, run_training
from morphogen.study.plan import Training, fits, trainings
from morphogen.study.recipe import StudyConfig
from morphogen.study.run import freeze, prepare, run_study

Make = Callable[..., StudyConfig]
ARMS = ("real-geo", "semi", "semi+method=cps", "semi-syn")
JUDGE = "unet+encoder=scratch"
SIDE = 32


def begun(config: StudyConfig) -> tuple[Bench, list[Training]]:
    bench = prepare(config)
    freeze(bench)
    return bench, trainings(bench.splits, bench.config.arms, bench.config.judges, ("test",))


def said(config: StudyConfig) -> str:
    with pytest.raises(InputError) as caught:
        prepare(config)
    assert "\n" not in str(caught.value)
    assert not config.out.exists()
    return str(caught.value)


@pytest.mark.usefixtures("without_inception")
def test_they_are_trained_scored_and_compared_without_the_masks_of_the_pool(
    make_config: Make, phantom_folder: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(phantom_folder, data)
    bench, plan = begun(
        make_config(data=data, arms=ARMS, judges=(JUDGE,), seeds=1, train_batch_size=4, steps=3, resolution=SIDE)
    )
    r = bench.splits.repetitions[0]
    for record in bench.dataset.select((*r.extra, *r.pool)):
        assert record.mask is not None
        record.mask.unlink()
    for training in plan:
        assert run_training(bench, training, cells.default_tools())
    found = {arm: json.loads(bench.cell_path(f"{arm}.{JUDGE}.fold0.n8.test").read_text()) for arm in ARMS}
    assert all(set(cell["scores"]) == set(r.test) for cell in found.values())
    assert {arm: cell["n_synthetic"] for arm, cell in found.items() if cell["n_synthetic"]} == {
        "semi-syn": len(r.train)
    }
    n = len(bench.unannotated(r))
    assert {arm: cell.get("n_unlabelled") for arm, cell in found.items()} == {"real-geo": None} | dict.fromkeys(
        ARMS[1:], n
    )
    runs = {arm: bench.out / f"runs/{arm}.{JUDGE}.fold0.n8" for arm in ARMS}
    saved = {arm: json.loads((run / "final/config.json").read_text()) for arm, run in runs.items()}
    assert {values["segmenter"] for values in saved.values()} == {"unet"}
    assert [saved[arm].get("method") for arm in ARMS] == [None, "diff-cl", "cps", "diff-cl"]
    steps = {arm: (run / "metrics.jsonl").read_text() for arm, run in runs.items()}
    assert ["pseudo" in steps[arm] for arm in ARMS] == [False, True, True, True]
    joined = results.join(bench.out).results
    assert {(c["arm"], c["control"]) for c in joined["comparisons"]} == {(arm, "real-geo") for arm in ARMS[1:]}
    assert joined["protocol"]["arms"]["semi+method=cps"].endswith("without masks; method cps")


@pytest.mark.usefixtures("without_inception")
def test_a_whole_study_gives_them_the_images_that_no_validation_group_has(
    make_config: Make, quick: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "build", lambda out: results.join(out).results)
    arms = ("real-geo", "semi", "semi-syn+method=bcp+n=3", "more-real")
    config = make_config(arms=arms, annotated=6, resolution=SIDE)
    found = run_study(config, quick.tools)
    assert set(found["arms"]) == set(arms)
    bench = prepare(config)
    for r, control, semi, both in zip(
        bench.splits.repetitions, *(quick.arm(name) for name in ARMS[:1] + arms[1:3]), strict=True
    ):
        assert (control.unlabelled, control.method) == (None, None)
        assert (semi.steps, semi.batch, semi.seed, semi.augmentation) == (
            control.steps, control.batch, control.seed, control.augmentation,
        )  # fmt: skip
        assert [source.dataset.ids for source in semi.train] == [r.train]
        assert (semi.method, both.method, [len(source) for source in both.train]) == (
            "diff-cl",
            "bcp",
            [len(r.train), 3],
        )
        ids = semi.unlabelled.dataset.ids
        subjects = bench.splits.subjects
        held = {subjects[i] for i in r.validation}
        assert set(ids) == {i for i in (*r.extra, *r.pool) if subjects[i] not in held}
        assert set(ids).isdisjoint((*r.train, *r.validation, *r.test))
        assert 0 < len(ids) < len(r.extra) + len(r.pool)
        assert all(record.mask is None for record in semi.unlabelled.dataset)
        assert both.unlabelled.dataset.ids == ids
    n = len(bench.unannotated(bench.splits.repetitions[0]))
    assert (
        f"{n} training images in the first repetition, without masks, for semi-supervision" in capsys.readouterr().out
    )


def test_the_recipe_of_the_study_reaches_the_training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from morphogen.segmenters.diffcl import pictures

    seen: list[tuple[Any, ...]] = []
    monkeypatch.setattr(pictures, "train_pictures", lambda *given: seen.append(given))
    none = Pairs(Dataset("none", tmp_path, ()), SIDE)
    job = JudgeRun(
        judge="unet", architecture={"encoder": "scratch"}, train=[none, none], validation=none,
        augmentation="geometric", steps=7, batch=3, seed=5, out=tmp_path, method="ua-mt", unlabelled=none,
    )  # fmt: skip
    cells.default_tools().train(job)
    ((name, labelled, unlabelled, validation, config, out),) = seen
    assert (name, labelled, unlabelled, validation, out) == ("unet", [none, none], none, none, tmp_path)
    assert (config.method, config.max_train_steps, config.train_batch_size, config.seed) == ("ua-mt", 7, 3, 5)
    assert (config.augmentation, config.architecture) == ("geometric", {"encoder": "scratch"})


def test_a_training_costs_more_by_its_method(make_config: Make, quick: Any) -> None:
    bench, plan = begun(make_config(arms=("real-geo", "semi", "semi+method=cps"), seeds=1, steps=1000, resolution=SIDE))
    prices = [estimate.estimate(bench, [training]).seconds for training in plan]
    of, step = estimate.OF_A_SEMI_STEP, 1000 * estimate.SECONDS_A_STEP / 4  # of a quarter of the pixels
    assert prices[1] - prices[0] == pytest.approx((of["diff-cl"] - 1) * step)
    assert prices[2] - prices[0] == pytest.approx((of["cps"] - 1) * step)
    for training, seconds in zip(plan[:2], (10.0, 10 * of["diff-cl"]), strict=True):
        name = next(iter(training.cells.values()))
        bench.cell_path(name).write_text(json.dumps({"arm": training.arm, "wall_s": seconds}))
    scores = estimate.estimate(bench, plan[2:]).seconds - 10 * of["cps"]
    assert scores == pytest.approx(len(bench.splits.repetitions[0].test) * estimate.SECONDS_A_SCORE)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"annotated": None}, "--arms semi: --annotated all leaves no unannotated training image in fold0; lower"),
        ({"resolution": 24}, "--arms semi: --resolution 24: sides must be multiples of 16; write"),
        ({"resolution": 16}, "--arms semi: --resolution 16: leaves one value to normalise"),
        ({"judges": ("unet", "segformer+size=b0+weights=none")}, "--judges segformer+size=b0+weights=none: learns by"),
        ({"judges": ("polyp-pvt+size=b0+weights=none",)}, "learns by losses of its own, and semi-supervision teaches"),
        ({"judges": ("features",)}, "--judges features: stands on frozen features"),
        ({"judges": ("small",)}, "--arms semi: is for segmenters, and small among --judges only classify"),
        (
            {"judges": ("segformer+weights=none",), "recipe": "published"},
            "--recipe published: semi among --arms trains as its method does, not as the judge was published; leave",
        ),
        ({"arms": ("semi", "semi+method=diff-cl")}, "--arms semi semi+method=diff-cl: are one and the same arm"),
        ({"arms": ("semi-syn+text=none",)}, "copy-paste has no options for sampling; give none but n"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_written(
    make_config: Make, options: dict[str, Any], says: str
) -> None:
    assert says in said(make_config(**{"arms": ("real-geo", "semi"), "resolution": SIDE, **options}))


def test_classifiers_take_no_part(make_config: Make) -> None:
    assert not fits("semi", "small")
    assert not fits("semi-syn+method=bcp+n=3", "small")
    assert fits("semi", "unet")


def test_a_network_with_losses_of_its_own_is_no_student(phantom_folder: Path, tmp_path: Path) -> None:
    data = read_dataset(phantom_folder)
    parts = [Pairs(replace(data, records=data.records[start : start + 2]), SIDE) for start in (0, 2, 4)]
    config = SemiConfig(architecture={"size": "b0", "weights": "none"}, max_train_steps=1)
    with pytest.raises(InputError, match=r"^segformer: learns by losses of its own, .*; take a segmenter without, as"):
        train_pictures("segformer", parts[:1], parts[1], parts[2], config, tmp_path / "run")
    odd = [Pairs(part.dataset, 24) for part in parts]
    with pytest.raises(InputError, match=r"^--resolution 24: sides must be multiples of 16"):
        train_pictures("unet", odd[:1], odd[1], odd[2], SemiConfig(), tmp_path / "run")
    assert not (tmp_path / "run").exists()
