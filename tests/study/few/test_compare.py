"""Comparing ways to learn from few labelled volumes: folds, cells, what they say, and the page."""

from __future__ import annotations

import json
import math
import pickle
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from morphogen.cli import main
from morphogen.data.records import Record
from morphogen.data.volumes.readers import read_volumes
from morphogen.errors import InputError
from morphogen.study.few import on_ray
from morphogen.study.few.cells import Desk, few_of
from morphogen.study.few.folds import make_folds
from morphogen.study.few.recipe import CompareConfig
from morphogen.study.few.report import build, signed
from morphogen.study.few.results import join, lead_of
from morphogen.study.few.rows import row_of
from morphogen.study.few.run import begin, compare, plan_comparison
from segmenters.few_volumes import write_ball

SMALL = "filters=2+patch=16x16x16+operator=none+pseudo_steps=1+denoiser_norm=batch"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six volumes in the layout of the left-atrium benchmark, four in the training list."""
    folder = tmp_path_factory.mktemp("balls")
    for i in range(6):
        write_ball(folder / f"ball{i}" / "mri_norm2.h5", i)
    (folder / "train.list").write_text("".join(f"ball{i}\n" for i in range(4)))
    (folder / "test.list").write_text("ball4\nball5\n")
    return folder


def recipe(data: Path, out: Path, **options: Any) -> CompareConfig:
    stated: dict[str, Any] = {
        "rows": ("supervised", "diff-cl"),
        "preset": f"la2018+{SMALL}",
        "labelled": 1,
        "validation": 1,
        "folds": 3,
        "max_train_steps": 2,
        "validation_steps": 2,
    }
    return CompareConfig(data=data, out=out, **{**stated, **options})


class Truth:
    """Says the label, shifted by some voxels: as good as is asked for."""

    def __init__(self, shift: int) -> None:
        self.shift = shift

    def __call__(self, record: Record) -> np.ndarray:
        with h5py.File(record.image) as file:
            return np.roll(file["label"][()].astype(np.int64), self.shift, axis=0)


def test_folds_test_every_volume_once_and_share_no_subject(data: Path, tmp_path: Path) -> None:
    dataset = read_volumes(data, "la2018")
    folds = make_folds(recipe(data, tmp_path), dataset)
    assert sorted(i for fold in folds for i in fold.test) == sorted(dataset.ids)
    for fold in folds:
        parts = [fold.test, fold.validation, fold.labelled, fold.unlabelled]
        assert list(map(len, parts)) == [2, 1, 1, 2]
        assert len({i for part in parts for i in part}) == 6
    again = make_folds(recipe(data, tmp_path), dataset)
    assert again == folds
    assert make_folds(recipe(data, tmp_path, seed=1), dataset) != folds
    more = make_folds(recipe(data, tmp_path, labelled=2), dataset)
    assert all(set(a.labelled) < set(b.labelled) for a, b in zip(folds, more, strict=True))


def test_labels_of_unlabelled_volumes_are_hidden_unless_a_row_asks_for_all(data: Path, tmp_path: Path) -> None:
    config = recipe(data, tmp_path)
    dataset = read_volumes(data, "la2018")
    folds = make_folds(config, dataset)
    desk = Desk(config, dataset, folds)
    few = few_of(desk, row_of(config, "diff-cl"), folds[0])
    assert few.labelled.dataset.ids == folds[0].labelled
    assert few.unlabelled.dataset.ids == folds[0].unlabelled
    assert all(record.mask is None for record in few.unlabelled.dataset)
    upper = few_of(desk, row_of(config, "supervised+labelled=all"), folds[0])
    assert len(upper.labelled) == 3
    assert not len(upper.unlabelled)
    assert not set(folds[0].test) & {*few.labelled.dataset.ids, *few.validation.dataset.ids}


def test_a_whole_comparison_trains_scores_and_reports(data: Path, tmp_path: Path, capsys: Any) -> None:
    out, words = tmp_path / "out", ["--labelled", "1", "--validation", "1", "--folds", "3"]
    words += ["--max-train-steps", "2", "--validation-steps", "2", "--preset", f"la2018+{SMALL}"]
    command = ["compare", str(data), "--out", str(out), "--rows", "supervised", "diff-cl", *words]
    assert main([*command, "--cells", "fold0-*", "--json", str(tmp_path / "said.json")]) == 0
    said = json.loads((tmp_path / "said.json").read_text())
    assert said["missing"] == [f"fold{f}-{row}" for row in ("supervised", "diff-cl") for f in (1, 2)]
    assert said["rows"]["diff-cl"]["exploratory"]
    cell = json.loads((out / "cells" / "fold0-diff-cl.json").read_text())
    assert {"arm", "judge", "fold", "seed", "n_annotated", "n_unlabelled", "config_hash", "wall_s"} <= cell.keys()
    assert (cell["n_annotated"], cell["n_unlabelled"]) == (2, 2)
    for row in cell["scores"].values():
        assert {"subject", "dice", "iou", "hd95", "asd", "hd95_mm", "asd_mm"} == row.keys()
        assert row["hd95_mm"] == pytest.approx(0.625 * row["hd95"], abs=1e-4)
    page = (out / "report.html").read_text()
    assert "Three orthogonal slices" in page
    assert "exploratory" in page
    assert 'src="http' not in page
    before = (out / "cells" / "fold0-diff-cl.json").read_bytes()
    shutil.rmtree(out / "runs")
    assert main([*command, "--cells", "fold0-*"]) == 0  # nothing is trained again
    assert not (out / "runs").exists()
    assert (out / "cells" / "fold0-diff-cl.json").read_bytes() == before
    assert main(["report", str(out)]) == 0
    assert "diff-cl" in capsys.readouterr().out


def made(data: Path, out: Path, shifts: dict[str, Sequence[int]], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A comparison whose rows are off by so many voxels in each fold; nothing is trained."""
    from morphogen.study.few import cells

    monkeypatch.setattr(cells, "train_volumes", lambda few, config, patches, out: out)

    def load(run: Path, device: str) -> Truth:
        fold, _, row = run.name.removeprefix("fold").partition("-")
        return Truth(shifts[row][int(fold)])

    return compare(recipe(data, out, rows=tuple(shifts)), load)


def test_scores_differences_and_folds_won_are_what_they_are_by_hand(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shifts = {"supervised": [3, 3, 1], "diff-cl": [1, 1, 2], "cps": [3, 2, 1]}
    results = made(data, tmp_path / "out", shifts, monkeypatch)
    scores = {
        (c["arm"], c["fold"]): json.loads((tmp_path / "out" / "cells" / f"fold{c['fold']}-{c['arm']}.json").read_text())
        for c in results["cells"]
    }
    dice = {key: {i: row["dice"] for i, row in cell["scores"].items()} for key, cell in scores.items()}
    for row in shifts:
        every = [value for f in range(3) for value in dice[row, f].values()]
        assert results["rows"][row]["dice"]["mean"] == pytest.approx(np.mean(every))
        assert not results["rows"][row]["exploratory"]
    found = {(c["row"], c["control"]): c for c in results["comparisons"] if c["metric"] == "dice"}
    one = found["diff-cl", "supervised"]
    assert (one["folds_won"], one["beats"]) == (2, False)  # two of three are less than four in five
    assert one["per_volume"] == pytest.approx(
        {i: dice["diff-cl", f][i] - dice["supervised", f][i] for f in range(3) for i in dice["diff-cl", f]}
    )
    assert one["diff"] == pytest.approx(np.mean(list(one["per_volume"].values())))
    assert set(found) == {("diff-cl", "supervised"), ("diff-cl", "cps"), ("cps", "supervised")}
    for found in results["rows"].values():  # six volumes are few, and intervals wide
        assert 0 <= found["dice"]["ci95"][0] <= found["dice"]["ci95"][1] <= 1
        assert found["asd"]["ci95"][0] >= 0
    distances = {(c["row"], c["control"]): c for c in results["comparisons"] if c["metric"] == "hd95"}
    assert distances["diff-cl", "supervised"]["folds_won"] == 2  # smaller is better
    assert "does not beat supervised" in results["verdict"]["text"]
    assert results["protocol"]["test_reads"] == 9


def test_the_verdict_speaks_of_diff_cl_as_it_is_wherever_its_row_stands() -> None:
    assert lead_of(["supervised", "diff-cl+operator=none", "diff-cl"]) == "diff-cl"
    assert lead_of(["diff-cl+operator=none", "diff-cl+eta=0", "cps"]) == "diff-cl+operator=none"
    assert lead_of(["supervised"]) is None


def test_a_row_beats_where_it_wins_four_folds_of_five_and_rows_can_join_later(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = made(data, tmp_path / "out", {"supervised": [3, 3, 3], "diff-cl": [1, 1, 1]}, monkeypatch)
    assert "diff-cl beats supervised" in results["verdict"]["text"]
    later = made(data, tmp_path / "out", {"cps": [2, 2, 2], "supervised": [0, 0, 0], "diff-cl": [0, 0, 0]}, monkeypatch)
    assert list(later["rows"]) == ["supervised", "diff-cl", "cps"]
    assert later["rows"]["supervised"]["dice"]["mean"] < 1  # finished cells are not made again


def test_the_time_of_a_resumed_training_is_not_taken_for_the_whole(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    begin(plan_comparison(recipe(data, out, rows=("supervised", "cps"))))
    for name in ("fold1-supervised", "fold0-cps", "fold1-cps", "fold2-cps"):  # what a stopped call leaves
        (out / "runs" / name).mkdir(parents=True)
        (out / "runs" / name / "config.yaml").write_text("seed: 0\n")
    (out / "runs" / "fold2-supervised").mkdir()  # it was not begun
    made(data, out, {"supervised": [1, 1, 1], "cps": [1, 1, 1]}, monkeypatch)
    cells = {path.stem: json.loads(path.read_text()) for path in (out / "cells").iterdir()}
    assert [cells[f"fold{f}-supervised"]["resumed"] for f in range(3)] == [False, True, False]
    for fold, seconds in enumerate((10.0, 1.0, 20.0)):
        cell = {**cells[f"fold{fold}-supervised"], "train_s": seconds}
        if fold == 2:  # as older cells are
            del cell["resumed"]
        (out / "cells" / f"fold{fold}-supervised.json").write_text(json.dumps(cell))
    rows = join(out)["rows"]
    assert (rows["supervised"]["train_s"], rows["cps"]["train_s"]) == (15.0, None)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rows": ("diffcl",)}, "no method"),
        ({"rows": ("diff-cl+operatr=none",)}, "did you mean 'operator'"),
        ({"rows": ("diff-cl+labelled=3",)}, "labelled=all"),
        ({"rows": ("cps", "cps")}, "none twice"),
        ({"preset": "la2019"}, "neither option=value nor one of"),
        ({"preset": "la2018+method=cps", "rows": ("diff-cl",)}, "method is the row's"),
        ({"labelled": 3}, "has 4 subjects to train on, and 4 leave none unlabelled"),
        ({"rows": ("cps+labelled=all",)}, "leaves nothing unlabelled"),
        ({"rows": ("cps+max-train-steps=9",)}, "give --max-train-steps, which holds for all rows"),
        ({"preset": "la2018+seed=7"}, "give --seed"),
        ({"device": "gpu"}, "--device gpu"),
        ({"folds": 9}, "too few for 9 folds"),
        ({"cells": "fold7-*"}, "matches none"),
        ({"preset": "la2018+patch=20x16x16"}, "multiples of 16"),
        ({"preset": "la2018+spacing=2x3"}, "write 3 numbers"),
    ],
)
def test_a_wrong_recipe_is_one_line_and_writes_nothing(
    data: Path, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        compare(recipe(data, tmp_path / "out", **options))
    assert not (tmp_path / "out").exists()


def test_a_folder_of_another_comparison_is_refused(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    made(data, out, {"supervised": [1, 1, 1]}, monkeypatch)
    with pytest.raises(InputError, match="has --max-train-steps 2, not 3"):
        compare(recipe(data, out, max_train_steps=3))
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"no compare\.yaml"):
        compare(recipe(data, other))


def test_cells_of_two_recipes_are_not_joined(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    made(data, out, {"supervised": [1, 1, 1]}, monkeypatch)
    path = out / "cells" / "fold1-supervised.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "config_hash": "other"}))
    with pytest.raises(InputError, match="several recipes"):
        build(out)
    path.write_text("{")
    with pytest.raises(InputError, match="is not a cell"):
        join(out)
    shutil.rmtree(out / "cells")
    with pytest.raises(InputError, match="no finished cell"):
        join(out)


def test_intervals_take_volumes_as_the_unit(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = made(data, tmp_path / "out", {"supervised": [2, 2, 2], "diff-cl": [1, 1, 1]}, monkeypatch)
    one = next(c for c in results["comparisons"] if c["metric"] == "dice")
    values = np.array(list(one["per_volume"].values()))
    half = (one["ci95"][1] - one["ci95"][0]) / 2
    t = 2.5706  # of five degrees of freedom
    assert half == pytest.approx(t * values.std(ddof=1) / math.sqrt(6), rel=0.2)
    assert one["p"] == pytest.approx(2 / 2**6)  # all six of one sign


def test_figures_of_the_page_have_their_digits_and_signs() -> None:
    assert [signed(v, "dice") for v in (0.0123, -0.5, -0.0001, 0.0)] == ["+0.012", "−0.500", "0.000", "0.000"]
    assert [signed(v, "asd_mm") for v in (1.26, -0.04)] == ["+1.3", "0.0"]


def test_dry_run_says_what_is_to_be_made(data: Path, tmp_path: Path) -> None:
    plan = compare(replace(recipe(data, tmp_path / "out"), dry_run=True))
    assert len(plan["todo"]) == 6
    assert not (tmp_path / "out").exists()


def test_cells_by_jobs_of_slurm_or_tasks_of_ray_are_those_of_one_process(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of Slurm the tasks are called by hand; Ray's function is called here, with what would be sent to a worker."""
    options: dict[str, Any] = {"rows": ("supervised",), "folds": 2}
    words = ["--rows", "supervised", "--folds", "2", "--labelled", "1", "--validation", "1", "--max-train-steps", "2"]
    words = ["compare", str(data), *words, "--validation-steps", "2", "--preset", f"la2018+{SMALL}", "--out"]
    compare(recipe(data, tmp_path / "here", **options))
    assert main([*words, str(tmp_path / "slurm"), "--slurm"]) == 0
    assert not list((tmp_path / "slurm" / "cells").iterdir())
    script = (tmp_path / "slurm" / "slurm" / "step.sbatch").read_text()
    assert "cells=(fold0-supervised fold1-supervised)" in script
    for name in ("fold0-supervised", "fold1-supervised"):
        task = ["compare", "--config", str(tmp_path / "slurm" / "slurm" / "options.yaml"), "--cells", name]
        assert main(task) == 0

    @contextmanager
    def crew(address: str, workers: int | None) -> Iterator[None]:
        yield

    def do_all(hands: None, function: Any, calls: dict[str, Any], description: str) -> list[Any]:
        return [pickle.loads(pickle.dumps(function))(*pickle.loads(pickle.dumps(call))) for call in calls.values()]

    monkeypatch.setattr(on_ray, "crew", crew)
    monkeypatch.setattr(on_ray, "do_all", do_all)
    on_ray.compare_on_ray(recipe(data, tmp_path / "ray", **options), "local")
    here, *others = (_without_times(tmp_path / name) for name in ("here", "slurm", "ray"))
    assert others == [here, here]


def _without_times(out: Path) -> dict[str, Any]:
    found = {path.stem: json.loads(path.read_text()) for path in (out / "cells").iterdir()}
    results = json.loads((out / "results.json").read_text())
    return {"scores": {name: cell["scores"] for name, cell in found.items()}, "verdict": results["verdict"]}
