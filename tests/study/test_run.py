"""Whole studies: resumed, in pieces, and refused."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from morphogen.errors import InputError, WorkError
from morphogen.foundation.model import CARD
from morphogen.study import cells, refusals, report, results
from morphogen.study.recipe import StudyConfig
from morphogen.study.run import prepare, run_study

Make = Callable[..., StudyConfig]
pytestmark = pytest.mark.usefixtures("without_inception")


@pytest.fixture
def without_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page takes a second to draw: join the cells only."""
    monkeypatch.setattr(report, "build", lambda out: results.join(out).results)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_study_runs_to_its_report_and_is_not_done_twice(make_config: Make, quick: Any) -> None:
    config = make_config(annotated=6)
    found = run_study(config, quick.tools)
    arms = ["real", "real-geo", "syn", "syn-geo", "duplicated", "more-real"]
    assert [path.name for path in sorted((config.out / "cells").iterdir())] == sorted(
        f"{arm}.unet.fold{fold}.n6.test.json" for arm in arms for fold in (0, 1)
    )
    assert set(found["arms"]) == set(arms)
    assert found["missing"] == []
    assert found["protocol"]["test_reads"] == 12
    assert found["protocol"]["test_reads_of_audits"] == 2
    assert set(found["images"]) == {"fold0", "fold1"}
    assert json.loads((config.out / "results.json").read_text())["verdict"]["text"] == found["verdict"]["text"]
    assert (config.out / "report.html").stat().st_size > 1000
    before, jobs = contents(config.out / "cells"), len(quick.jobs)
    assert run_study(config, quick.tools)["verdict"] == found["verdict"]
    assert contents(config.out / "cells") == before
    assert len(quick.jobs) == jobs


@pytest.mark.usefixtures("without_page")
def test_a_study_stopped_in_the_middle_ends_as_an_undisturbed_one(
    make_config: Make, tmp_path: Path, quick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_config(out=tmp_path / "whole")
    run_study(whole, quick.tools)
    config, score, calls = make_config(), cells.score, []

    def failing(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return score(*args)

    monkeypatch.setattr(cells, "score", failing)
    with pytest.raises(KeyboardInterrupt):
        run_study(config, quick.tools)
    assert len(list((config.out / "cells").iterdir())) == 3
    run_study(config, quick.tools)
    ours, theirs = (
        {path.name: json.loads(path.read_text()) | {"wall_s": 0} for path in (out / "cells").iterdir()}
        for out in (config.out, whole.out)
    )
    assert ours == theirs


@pytest.mark.usefixtures("without_page")
def test_cells_are_made_in_any_order_and_joined(make_config: Make, tmp_path: Path, quick: Any) -> None:
    whole = run_study(make_config(out=tmp_path / "whole", annotated=6), quick.tools)
    first = run_study(make_config(annotated=6, cells="syn-geo.*"), quick.tools)
    assert {cell["arm"] for cell in first["cells"]} == {"syn-geo"}
    assert len(first["missing"]) == 10
    run_study(make_config(annotated=6, cells="*.fold1.*"), quick.tools)
    last = run_study(make_config(annotated=6, cells="*.fold0.*"), quick.tools)
    assert last["missing"] == []
    assert last["comparisons"] == whole["comparisons"]


def test_a_dry_run_writes_nothing(make_config: Make, quick: Any, capsys: pytest.CaptureFixture[str]) -> None:
    config = make_config(annotated=6, dry_run=True)
    plan = run_study(config, quick.tools)
    assert not config.out.exists()
    assert not quick.jobs
    assert len(plan["cells"]) == 12
    assert plan["missing"] == plan["cells"]
    assert plan["seconds"] > 0
    assert plan["disk_mb"] > 0
    printed = capsys.readouterr().out
    assert "6" in printed
    assert "more-real" in printed
    assert "GB of disk" in printed


@pytest.mark.usefixtures("without_page")
def test_another_config_is_refused_and_nothing_touched(make_config: Make, quick: Any) -> None:
    config = make_config(arms=("real", "syn"))
    run_study(config, quick.tools)
    before = contents(config.out)
    others = ({"steps": 3}, {"annotated": 5}, {"folds": 5}, {"seeds": 1})
    for other in others:
        option = next(iter(other))
        with pytest.raises(InputError, match=f"--{option} .*use its value or name another --out"):
            run_study(make_config(**{"arms": ("real", "syn"), **other}), quick.tools)
    assert contents(config.out) == before


@pytest.mark.usefixtures("without_page")
def test_an_arm_is_added_to_a_finished_study(make_config: Make, quick: Any) -> None:
    config = make_config(arms=("real", "syn"))
    run_study(config, quick.tools)
    cells = contents(config.out / "cells")
    results = run_study(make_config(arms=("real-geo",)), quick.tools)
    now = contents(config.out / "cells")
    assert {name: now[name] for name in cells} == cells
    assert {name.split(".")[0] for name in now} == {"real", "syn", "real-geo"}
    assert results["protocol"]["settings"]["added_arms"] == ["real-geo"]
    assert set(results["arms"]) == {"real", "syn", "real-geo"}


def test_more_real_needs_the_pairs(make_config: Make, quick: Any) -> None:
    with pytest.raises(InputError, match="too few annotated images for the arm more-real"):
        run_study(make_config(annotated=None, arms=("real-geo", "more-real")), quick.tools)
    plan = run_study(make_config(annotated=None, dry_run=True), quick.tools)
    assert "more-real" not in plan["arms"]


def test_data_that_cannot_be_studied_is_one_line(make_config: Make, tmp_path: Path, phantom_folder: Path) -> None:
    import shutil

    shutil.copytree(phantom_folder / "images", tmp_path / "bare" / "images")
    cases = {
        "does not exist": {"data": tmp_path / "nowhere"},
        "holds no masks": {"data": tmp_path / "bare"},
        "cannot be drawn": {"annotated": 500},
        "too few for": {"folds": 30},
        "far: holds no masks|'far' needs": {"test": (f"far={tmp_path / 'bare'}",)},
    }
    for says, options in cases.items():
        with pytest.raises(InputError, match=says) as caught:
            run_study(make_config(**options))
        assert "\n" not in str(caught.value)
    assert not make_config().out.exists()


def test_a_foundation_that_knows_a_test_image_is_refused(
    make_config: Make, phantom_folder: Path, tmp_path: Path, quick: Any
) -> None:
    from morphogen.data.duplicates import signatures
    from morphogen.data.readers import read_dataset

    dataset = read_dataset(phantom_folder)
    folder = tmp_path / "foundation"
    folder.mkdir()
    (folder / "model_index.json").write_text("{}")
    config = make_config(arms=("real-geo", "autoencoded"), preset=str(folder), seeds=1, dry_run=True)
    tested = prepare(config).splits.repetitions[0].test
    learnt = sorted(set(dataset.ids) - set(tested))
    hashes = dict(zip(dataset.ids, signatures(dataset).hashes, strict=True))
    for ids, phashes, refused in (
        ([tested[0]], [], True),
        ([], [hashes[tested[-1]]], True),
        ([], [], False),
        (learnt, [], False),
    ):
        card = {"sets": {dataset.name: {"training_ids": ids, "phashes": phashes}}}
        (folder / CARD).write_text(json.dumps(card))
        if refused:
            with pytest.raises(InputError, match=r"test images were used to train the foundation"):
                run_study(config, quick.tools)
        else:
            run_study(config, quick.tools)


def test_a_judges_own_foundation_must_not_know_a_test_image_either(
    make_config: Make, tmp_path: Path, quick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"arms": ("real-geo",), "seeds": 1, "dry_run": True, "resolution": 64}
    config = make_config(**options, judges=("unet", "latent+foundation=tiny"))
    tested = prepare(config)
    card = {"sets": {tested.dataset.name: {"training_ids": [tested.splits.repetitions[0].test[0]]}}}
    asked: list[str] = []
    monkeypatch.setattr(refusals, "card_of", lambda name: asked.append(name) or card)
    with pytest.raises(InputError, match=r"test images were used to train the foundation tiny"):
        run_study(config, quick.tools)
    assert asked == ["tiny"]
    asked.clear()
    run_study(make_config(**options), quick.tools)
    assert asked == []


def test_a_further_test_set_that_holds_training_images_is_refused(
    make_config: Make, phantom_folder: Path, quick: Any
) -> None:
    with pytest.raises(InputError, match=r"test images were used to train this study"):
        run_study(make_config(test=(f"again={phantom_folder}",)), quick.tools)


def test_a_device_that_is_not_there_is_refused_before_any_training(make_config: Make, quick: Any) -> None:
    with pytest.raises(InputError, match="--device gpu: is not to be had here"):
        run_study(make_config(device="gpu"), quick.tools)
    assert quick.jobs == []


@pytest.mark.usefixtures("without_page")
def test_a_full_disk_is_one_line_and_the_study_goes_on_later(
    make_config: Make, quick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(arms=("real",))
    with monkeypatch.context() as patch:

        def full(path: Path, value: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

        patch.setattr(cells, "write_json", full)
        with pytest.raises(WorkError, match=r"the disk is full; free some space and run the same command again"):
            run_study(config, quick.tools)
    assert not list((config.out / "cells").iterdir())
    assert run_study(config, quick.tools)["missing"] == []


@pytest.mark.usefixtures("without_page")
@pytest.mark.parametrize("writes", [0, 1])
def test_a_study_that_could_not_even_write_its_recipe_goes_on_later(
    writes: int, make_config: Make, quick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, done = make_config(arms=("real",)), []
    with monkeypatch.context() as patch:

        def full(descriptor: int) -> None:
            if len(done) == writes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            done.append(descriptor)

        patch.setattr(os, "fsync", full)
        with pytest.raises(WorkError, match="the disk is full"):
            run_study(config, quick.tools)
    assert run_study(config, quick.tools)["missing"] == []
