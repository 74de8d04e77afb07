"""Several generators in one study: what results.json, the verdict and the page say of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from morphogen.study.measured import adherence_of, known, measured, of_arm, side_by_side
from morphogen.study.report import build
from study.study_folder import Fake, write_images

RIVAL = "syn-geo+generator=controlnet"


def write_two(out: Path, arms: tuple[str, ...], folds: int = 2) -> None:
    """A study of copy-paste, whose arms have pairs of controlnet too; what was measured of both."""
    fake = Fake(effects={"real-geo": 0.0, **dict.fromkeys(arms, 0.05)}, folds=folds)
    fake.write_cells(out)
    fake.write_plan(out, out / "data")
    for fold in range(folds):
        write_images(out, fold)
        path = out / "images" / f"fold{fold}.json"
        values = {**json.loads(path.read_text()), "n_synthetic": 16}
        path.write_text(json.dumps(values))
        rival = {**values, "generator": "controlnet", "n_synthetic": 20}
        rival["adherence"] = {**values["adherence"], "dice": 0.79}
        rival["audit"] = {"memorisation": {**values["audit"].get("memorisation", values["audit"]), "rate": 0.5}}
        rival["audit"]["memorisation"]["ci95"] = [0.4, 0.6]
        rival["distances"] = json.loads(json.dumps(values["distances"]))
        rival["distances"]["rows"]["synthetic"] = {"fid": 50.0, "kid": {"mean": 0.02, "std": 0.0}}
        (out / "images" / f"fold{fold}+generator=controlnet.json").write_text(json.dumps(rival))
        sampled = {
            "fold": fold,
            "seed": fold,
            "generator": "controlnet",
            "sampling": {"text": "none"},
            "n_synthetic": 3,
        }
        (out / "images" / f"fold{fold}+generator=controlnet+text=none.json").write_text(json.dumps(sampled))


def images_of(out: Path) -> dict[str, Any]:
    return {path.stem: json.loads(path.read_text()) for path in (out / "images").glob("*.json")}


def test_generators_are_told_apart(tmp_path: Path) -> None:
    write_two(tmp_path, ("syn-geo", RIVAL))
    images = images_of(tmp_path)
    assert known(images) == [None, "controlnet"]
    assert sorted(measured(images)) == ["fold0", "fold1"]
    assert sorted(measured(images, "controlnet")) == ["fold0+generator=controlnet", "fold1+generator=controlnet"]
    assert of_arm(images, "syn-geo") == of_arm(images, "syn-geo+generator=copy-paste") == [None]
    assert of_arm(images, f"{RIVAL}+n=3") == ["controlnet"]
    assert of_arm(images, "syn-geo+generator=copy-paste,controlnet") == [None, "controlnet"]
    assert of_arm(images, "from elsewhere") == [None]
    assert adherence_of(images) == pytest.approx((0.6, 0.8))
    assert adherence_of(images, ["controlnet"]) == pytest.approx((0.79, 0.8))
    assert adherence_of(images, [None, "controlnet"]) == pytest.approx((0.695, 0.8))
    assert side_by_side({name: images[name] for name in ("fold0", "fold1")}, {}, "copy-paste") == {}


def test_results_and_page_have_a_row_for_each(tmp_path: Path) -> None:
    write_two(tmp_path, ("syn-geo", RIVAL))
    found = build(tmp_path)
    rows = found["generators"]
    assert list(rows) == ["copy-paste", "controlnet"]
    assert rows["copy-paste"] == {
        "repetitions": 2, "pairs": 32, "accepted": 11, "kid": pytest.approx(0.065), "fid": pytest.approx(100.5),
        "adherence": pytest.approx(0.6), "adherence_on_real": pytest.approx(0.8), "copies": pytest.approx(0.125),
    }  # fmt: skip
    assert rows["controlnet"] == {
        "repetitions": 2, "pairs": 40, "accepted": None, "kid": pytest.approx(0.02), "fid": pytest.approx(50),
        "adherence": pytest.approx(0.79), "adherence_on_real": pytest.approx(0.8), "copies": pytest.approx(0.5),
    }  # fmt: skip
    assert {c["arm"]: c["control"] for c in found["comparisons"]} == {"syn-geo": "real-geo", RIVAL: "real-geo"}
    page = (tmp_path / "report.html").read_text()
    for words in (
        "Generators copy-paste, controlnet",
        '<th scope="row">controlnet<small>2 repetitions</small></th><td>40</td><td>–</td><td>20.0</td><td>50.0</td>',
        '<th scope="row">copy-paste<small>2 repetitions</small></th><td>32</td><td>11</td><td>65.0</td>',
        "What follows is about copy-paste, of the arm that the verdict speaks of.",
        "fold1+generator=controlnet",
        "copy-paste puts lesions onto training images",
        "means over 2 repetitions",
    ):
        assert words in page, words


@pytest.mark.parametrize(("lead", "agrees"), [("syn-geo", False), (RIVAL, True)])
def test_the_verdict_speaks_of_its_own_generator(tmp_path: Path, lead: str, agrees: bool) -> None:
    write_two(tmp_path, ("syn-geo", RIVAL))
    study = yaml.safe_load((tmp_path / "study.yaml").read_text())
    study["arms"] = sorted(study["arms"], key=lambda arm: arm != lead)
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    verdict = build(tmp_path)["verdict"]
    assert verdict["arm"] == lead
    assert ("agree less than real ones do" not in verdict["text"]) is agrees
    name = "controlnet" if agrees else "copy-paste"
    assert f"What follows is about {name}, of the arm" in (tmp_path / "report.html").read_text()


def test_a_study_of_one_generator_has_no_such_table(tmp_path: Path) -> None:
    Fake().write_cells(tmp_path)
    write_images(tmp_path, 0)
    found = build(tmp_path)
    assert "generators" not in found
    assert "side by side, each trained" not in (tmp_path / "report.html").read_text()
