"""Joining cells: groups, comparisons, what is missing, and the verdict."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from morphogen.errors import InputError
from morphogen.study import results
from morphogen.study.report import render
from morphogen.study.results import join
from morphogen.study.stats import holm
from study.study_folder import EFFECTS, Fake, write_images


def test_results_have_the_shape_of_the_design(tmp_path: Path) -> None:
    Fake().write_cells(tmp_path)
    results = join(tmp_path).results
    keys = ("verdict", "cells", "comparisons", "arms", "empty", "images", "audit", "protocol", "versions", "missing")
    assert tuple(results) == keys
    assert {"text", "outcome"} <= results["verdict"].keys()
    row = {"arm", "control", "test_set", "n_train", "metric", "diff", "ci95", "p_holm"}
    assert all(row <= comparison.keys() for comparison in results["comparisons"])
    for metric in ("dice", "iou", "hd95"):
        assert {"mean", "ci95"} <= results["arms"]["syn-geo"]["unet"][metric].keys()
    assert results["images"] == {}
    assert results["missing"] == []
    json.dumps(results, allow_nan=False)


def test_figures_follow_from_the_cells(tmp_path: Path) -> None:
    Fake().write_cells(tmp_path)
    scores: dict[str, dict[str, float]] = {}
    for path in (tmp_path / "cells").glob("*.json"):
        cell = json.loads(path.read_text())
        scores.setdefault(cell["arm"], {}).update({i: row["dice"] for i, row in cell["scores"].items()})
    results = join(tmp_path).results
    mean = {arm: np.mean(list(of_arm.values())) for arm, of_arm in scores.items()}
    assert results["arms"]["syn"]["unet"]["dice"]["mean"] == pytest.approx(mean["syn"])
    assert results["arms"]["syn"]["unet"]["dice"]["n_images"] == 48
    found = {(c["arm"], c["metric"]): c for c in results["comparisons"]}
    assert found["syn-geo", "dice"]["diff"] == pytest.approx(mean["syn-geo"] - mean["real-geo"])
    assert found["syn", "dice"]["control"] == "real"
    assert found["syn", "dice"]["diff"] == pytest.approx(mean["syn"] - mean["real"])
    assert found["syn-geo", "hd95"]["diff"] < 0
    assert results["verdict"]["diff"] == found["syn-geo", "dice"]["diff"]
    dice = [c for c in results["comparisons"] if c["metric"] == "dice"]
    assert [c["p_holm"] for c in dice] == pytest.approx(holm([c["p"] for c in dice]))


def test_two_arms_need_no_correction(tmp_path: Path) -> None:
    Fake(effects={"real-geo": 0.0, "syn-geo": 0.01}).write_cells(tmp_path)
    assert all(c["p"] == c["p_holm"] for c in join(tmp_path).results["comparisons"])


@pytest.mark.parametrize(("effect", "outcome"), [(0.04, "helped"), (-0.04, "hurt"), (0.0, "undecided")])
def test_outcome(tmp_path: Path, effect: float, outcome: str) -> None:
    Fake(effects={**EFFECTS, "syn-geo": effect}).write_cells(tmp_path)
    verdict = join(tmp_path).results["verdict"]
    assert verdict["outcome"] == outcome
    assert verdict["text"].lower().startswith(outcome)
    assert verdict["can_detect"] is True
    low, high = verdict["ci95"]
    assert (low > 0, high < 0) == (outcome == "helped", outcome == "hurt")
    assert f"{verdict['smallest_detectable_gain']:.3f}" in verdict["text"]
    assert "cannot detect" not in verdict["text"]


def test_a_study_in_which_more_real_data_does_not_help_cannot_detect_a_gain(tmp_path: Path) -> None:
    Fake(effects={**EFFECTS, "syn-geo": 0.0, "more-real": 0.0}).write_cells(tmp_path)
    verdict = join(tmp_path).results["verdict"]
    assert (verdict["outcome"], verdict["can_detect"]) == ("undecided", False)
    assert "this study cannot detect a gain" in verdict["text"]


def test_a_control_that_moves_by_itself_is_named(tmp_path: Path) -> None:
    Fake(effects={**EFFECTS, "duplicated": 0.05}).write_cells(tmp_path)
    assert "read this verdict with care" in join(tmp_path).results["verdict"]["text"]


def test_no_verdict_without_its_arms(tmp_path: Path) -> None:
    Fake(effects={"real": 0.0, "syn": 0.1}).write_cells(tmp_path)
    verdict = join(tmp_path).results["verdict"]
    assert verdict["outcome"] == "undecided"
    assert "No verdict yet" in verdict["text"]


def test_one_repetition_is_exploratory(tmp_path: Path) -> None:
    Fake(folds=1).write_cells(tmp_path)
    assert "exploratory" in join(tmp_path).results["verdict"]["text"]


def test_arms_of_fewer_repetitions_than_the_verdict_are_exploratory(tmp_path: Path) -> None:
    arms = {"real-geo": 0.0, "syn-geo+n=50": 0.0, "syn-geo+n=100": 0.06, "duplicated": 0.0}
    fake = Fake(effects=arms)
    fake.write_cells(tmp_path)
    fake.write_plan(tmp_path, tmp_path / "data")
    for fold, arm in ((0, "syn-geo+n=100"), (1, "syn-geo+n=100"), (2, "duplicated")):
        (tmp_path / f"cells/{arm}.unet.fold{fold}.n20.test.json").unlink()
    found = join(tmp_path).results
    marks = {c["arm"]: c["exploratory"] for c in found["comparisons"] if c["metric"] == "dice"}
    assert marks == {
        "syn-geo+n=50": None,
        "syn-geo+n=100": "exploratory (1 of 3 repetitions)",
        "duplicated": "exploratory (2 of 3 repetitions)",
    }
    assert found["arms"]["duplicated"]["unet"]["exploratory"] == marks["duplicated"]
    assert found["verdict"]["arm"] == "syn-geo+n=50"
    assert "with synthetic pairs (syn-geo+n=50) and" in found["verdict"]["text"]
    assert "Preliminary" not in found["verdict"]["text"]
    assert len(found["missing"]) == 3
    page = render(tmp_path, join(tmp_path))
    assert page.count("exploratory (1 of 3 repetitions)") == 4  # in the table and beside three metrics
    assert "on the same repetitions" in page
    (tmp_path / "cells/syn-geo+n=50.unet.fold1.n20.test.json").unlink()
    assert "Preliminary: 1 planned cell still missing" in join(tmp_path).results["verdict"]["text"]


def test_a_study_on_its_way_is_preliminary_and_no_arm_of_it_exploratory(tmp_path: Path) -> None:
    fake = Fake(folds=3)
    fake.write_cells(tmp_path)
    fake.write_plan(tmp_path, tmp_path / "data")
    for path in (tmp_path / "cells").glob("*.fold2.*"):
        path.unlink()
    found = join(tmp_path).results
    assert {c["exploratory"] for c in found["comparisons"]} == {None}
    assert "Preliminary: 6 planned cells still missing" in found["verdict"]["text"]


def test_the_verdict_follows_the_order_of_the_study(tmp_path: Path) -> None:
    Fake(effects={"real-geo": 0.0, "syn-geo+n=50": 0.0, "syn-geo+n=100": 0.06}).write_cells(tmp_path)
    assert join(tmp_path).results["verdict"]["arm"] == "syn-geo+n=50"
    fake = Fake(effects={"real-geo": 0.0, "syn-geo+n=100": 0.06, "syn-geo+n=50": 0.0})
    fake.write_plan(tmp_path, tmp_path / "data")
    verdict = join(tmp_path).results["verdict"]
    assert (verdict["arm"], verdict["outcome"]) == ("syn-geo+n=100", "helped")
    assert "adding synthetic pairs (syn-geo+n=100) raised" in verdict["text"]


def test_fewer_pairs_than_an_arm_asks_for_are_said(tmp_path: Path) -> None:
    Fake(effects={"real-geo": 0.0, "syn-geo+n=16": 0.0, "syn-geo+n=50": 0.0}).write_cells(tmp_path)
    path = tmp_path / "cells" / "syn-geo+n=50.unet.fold1.n20.test.json"
    damage(path, n_synthetic=12)
    assert join(tmp_path).results["protocol"]["fewer_pairs"] == [
        "syn-geo+n=50: fewer pairs passed the gates or were made than it asks for; it trained on 12 to 16"
    ]


def test_crossed_seeds_are_averaged_per_image(tmp_path: Path) -> None:
    Fake(folds=1, seeds=3).write_cells(tmp_path)
    results = join(tmp_path).results
    row = next(c for c in results["comparisons"] if c["arm"] == "syn-geo")
    assert (row["n_images"], row["n_subjects"], row["repetitions"]) == (48, 12, 3)


def test_missing_cells_come_from_the_plan(tmp_path: Path) -> None:
    fake = Fake()
    fake.write_cells(tmp_path)
    fake.write_plan(tmp_path, tmp_path / "data")
    assert join(tmp_path).results["missing"] == []
    (tmp_path / "cells/syn-geo.unet.fold1.n20.test.json").unlink()
    results = join(tmp_path).results
    assert results["missing"] == ["syn-geo.unet.fold1.n20.test"]
    assert "Preliminary: 1 planned cell still missing" in results["verdict"]["text"]
    row = next(c for c in results["comparisons"] if c["arm"] == "syn-geo")
    assert row["repetitions"] == 2


def test_missing_cells_without_a_plan(tmp_path: Path) -> None:
    Fake().write_cells(tmp_path)
    (tmp_path / "cells/more-real.unet.fold2.n20.test.json").unlink()
    assert join(tmp_path).results["missing"] == ["more-real.unet.fold2-seed2.n20.test"]


def test_sizes_and_test_sets_are_kept_apart(tmp_path: Path) -> None:
    arms = {"real-geo": 0.0, "syn-geo": 0.05}
    Fake(effects=arms, n_annotated=20, config_hash="a").write_cells(tmp_path)
    Fake(effects=arms, n_annotated=40, config_hash="b").write_cells(tmp_path)
    Fake(effects=arms, n_annotated=40, config_hash="b", test_set="other").write_cells(tmp_path)
    joined = join(tmp_path)
    found = {(c["test_set"], c["n_train"]) for c in joined.results["comparisons"]}
    assert found == {("test", 20), ("test", 40), ("other", 40)}
    assert joined.primary is not None
    assert (joined.primary.test_set, joined.primary.n_annotated) == ("test", 40)


def test_folds_of_different_size_are_one_group(tmp_path: Path) -> None:
    Fake().write_cells(tmp_path)
    for path in (tmp_path / "cells").glob("*fold0*"):
        path.write_text(path.read_text().replace('"n_annotated": 20', '"n_annotated": 21'))
    (group,) = join(tmp_path).groups
    assert group.n_annotated is None
    assert group.means["syn"]["dice"].n_repetitions == 3


def damage(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_faulty_cells_are_one_clear_line(tmp_path: Path) -> None:
    Fake(effects={"real-geo": 0.0, "syn-geo": 0.05}).write_cells(tmp_path)
    path = tmp_path / "cells/syn-geo.unet.fold1.n20.test.json"
    whole = path.read_text()
    path.write_text(whole[:100])
    with pytest.raises(InputError, match=r"fold1.n20.test.json: is not a finished cell; remove it"):
        join(tmp_path)
    path.write_text(whole.replace('"wall_s"', '"other"'))
    with pytest.raises(InputError, match="has no wall_s"):
        join(tmp_path)
    path.write_text(whole)
    damage(path, config_hash="other")
    with pytest.raises(InputError, match="another recipe or other splits"):
        join(tmp_path)
    path.write_text(whole)
    damage(path, fold=0, seed=0)
    with pytest.raises(InputError, match=r"is the same cell as syn-geo\.unet\.fold0"):
        join(tmp_path)
    path.write_text(whole)
    scores = json.loads(whole)["scores"]
    damage(path, scores={i: {**row, "hd95": None} for i, row in scores.items()})
    with pytest.raises(InputError, match="is not a finished cell"):
        join(tmp_path)
    damage(path, scores={i: {**row, "hd95": float("nan")} for i, row in scores.items()})
    with pytest.raises(InputError, match="is no finite number"):
        join(tmp_path)
    damage(path, scores=dict(list(scores.items())[1:]))
    with pytest.raises(InputError, match=r"scores other images than real-geo\.unet\.fold1"):
        join(tmp_path)


def test_the_protocol_names_the_judges_and_no_other_segmenter(tmp_path: Path) -> None:
    def trained(run: str, segmenter: str, **architecture: str) -> None:
        folder = tmp_path / "runs" / run / "final"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"segmenter": segmenter, "architecture": architecture}))

    judges = ["unet", "segformer+size=b0", "segformer+size=b2", "segformer+drop=0.1"]
    trained("adherence.unet.fold0", "unet", encoder="of the judge of adherence")
    trained("gate.unet.fold0", "unet", encoder="of the gate")
    trained("gate.sanet.fold0", "sanet")
    trained("real.unet.fold0.n6", "unet", encoder="lite0")
    trained("real.segformer+size=b0.fold0.n6", "segformer", size="b0")
    trained("real.segformer+size=b2.fold0.n6", "segformer", size="b2")
    trained("features.unet.fold0.n6", "features", foundation="tiny")
    trained("syn-geo+guidance=2.5.segformer+drop=0.1.fold0.nall", "segformer", drop="0.1")
    assert results._judges(tmp_path, judges) == {
        "features": {"foundation": "tiny"},
        "segformer+drop=0.1": {"drop": "0.1"},
        "segformer+size=b0": {"size": "b0"},
        "segformer+size=b2": {"size": "b2"},
        "unet": {"encoder": "lite0"},
    }


def test_folder_without_cells(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        join(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds no finished cell"):
        join(tmp_path)


def test_a_training_that_serves_two_test_sets_took_its_time_once(tmp_path: Path) -> None:
    Fake().write_cells(tmp_path)
    alone = join(tmp_path).results["protocol"]["hours"]
    assert alone == pytest.approx(18 * 12.5 / 3600)  # six arms in three folds
    Fake(test_set="further").write_cells(tmp_path)
    assert join(tmp_path).results["protocol"]["hours"] == pytest.approx(alone)


def test_no_path_of_this_machine_is_in_the_results(tmp_path: Path) -> None:
    fake = Fake()
    fake.write_cells(tmp_path)
    fake.write_plan(tmp_path, tmp_path / "data")
    assert str(tmp_path) not in json.dumps(join(tmp_path).results)


@pytest.mark.parametrize(("on_synthetic", "reached"), [(0.6, False), (0.769, False), (0.771, True), (0.9, True)])
def test_pairs_that_agree_less_than_real_ones_are_said_beside_the_verdict(
    on_synthetic: float, reached: bool, tmp_path: Path
) -> None:
    Fake().write_cells(tmp_path)
    assert "agree less" not in join(tmp_path).results["verdict"]["text"]
    for fold in (0, 1):
        write_images(tmp_path, fold)
        path = tmp_path / "images" / f"fold{fold}.json"
        values = json.loads(path.read_text())
        values["adherence"]["dice"] = on_synthetic + (0.1 if fold else -0.1)  # what counts is the mean
        path.write_text(json.dumps(values))
    joined = join(tmp_path)
    text = joined.results["verdict"]["text"]
    assert ("agree less than real ones do" in text) != reached
    assert reached or f"a Dice of {on_synthetic:.3f} on all of them and 0.800 on unseen real ones" in text
    assert f"which a claim asks for, is {'reached' if reached else 'not reached'}." in render(tmp_path, joined)
