"""The judge of mask adherence has another architecture than what a generator has learnt to please."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from morphogen.metrics import weights
from morphogen.study import quality
from morphogen.study.arms import Variant
from morphogen.study.independence import (
    judge_of_adherence,
    judges_that_resemble,
    said_of_gate,
    said_of_loss,
    segmenter_of_loss,
)
from morphogen.study.recipe import StudyConfig
from morphogen.study.report import build
from morphogen.study.run import freeze, plan_study, prepare
from morphogen.study.synthesis import Pairs
from study.study_folder import Fake, write_images

Make = Callable[..., StudyConfig]
SANET, UNET = "sanet+size=14+weights=none", "unet+encoder=scratch"


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Says whether packages of weights are there."""
    return lambda there: monkeypatch.setattr(weights, "available", lambda name: there)


@pytest.mark.parametrize(
    ("generator", "preset", "segmenter"),
    [
        ("copy-paste", "tiny", None),
        ("siamese", "tiny", None),
        ("arsdm", "tiny", SANET),
        ("arsdm", "tiny+segmenter=segformer,size=b0", "segformer+size=b0"),
        ("arsdm", "adaptive", None),
        ("dual", "tiny", UNET),
        ("dual", "tiny+align_weight=0", None),
    ],
)
def test_what_a_generator_learns_with(make_config: Make, generator: str, preset: str, segmenter: str | None) -> None:
    config = make_config(generator=generator, preset=preset)
    assert segmenter_of_loss(config) == segmenter
    assert ("learnt_with" in said_of_loss(config)) == (segmenter is not None)


@pytest.mark.parametrize(
    ("generator", "judges", "there", "judge"),
    [
        ("siamese", ("unet",), False, "unet"),
        ("siamese", (SANET,), False, SANET),
        ("arsdm", ("unet",), False, "unet"),
        ("arsdm", ("small",), False, "unet"),  # which classifies
        ("arsdm", ("sanet",), False, "sanet"),  # of another size
        ("arsdm", (SANET,), False, "unet"),
        ("arsdm", (SANET, "segformer+size=b0"), False, "segformer+size=b0"),
        ("dual", ("unet",), True, "unet"),  # on ImageNet's encoder
        ("dual", ("unet",), False, SANET),
        ("dual", (UNET,), True, "unet"),
        ("dual", (UNET, SANET), True, SANET),
    ],
)
def test_the_judge_is_the_first_one_of_another_architecture(
    make_config: Make,
    installed: Callable[[bool], None],
    generator: str,
    judges: tuple[str, ...],
    there: bool,
    judge: str,
) -> None:
    installed(there)
    assert judge_of_adherence(make_config(generator=generator, judges=judges)) == judge


def test_generators_of_arms_have_judges_of_their_own(make_config: Make) -> None:
    config = make_config(generator="copy-paste", judges=(SANET,), arms=("real-geo", "syn-geo+generator=arsdm"))
    assert (judge_of_adherence(config), judge_of_adherence(config, "arsdm")) == (SANET, "unet")
    assert (judges_that_resemble(config), judges_that_resemble(config, "arsdm")) == ([], [SANET])
    other = make_config(**{**config.__dict__, "presets": ("arsdm=w_r=0",)})
    assert judge_of_adherence(other, "arsdm") == SANET


@pytest.mark.parametrize(
    ("generator", "judges", "there", "judge", "same"),
    [
        ("copy-paste", ("unet",), False, "unet", True),
        ("copy-paste", ("unet",), True, "unet", False),
        ("arsdm", (SANET,), True, "unet", False),  # lite0; the gate's is from scratch
        ("arsdm", (SANET,), False, "unet", True),  # there is no further one
        ("dual", ("unet",), False, SANET, False),
    ],
)
def test_it_is_not_the_gates_either_where_there_is_another(
    make_config: Make,
    installed: Callable[[bool], None],
    generator: str,
    judges: tuple[str, ...],
    there: bool,
    judge: str,
    same: bool,
) -> None:
    installed(there)
    config = make_config(generator=generator, judges=judges, gates=("adherence",))
    assert judge_of_adherence(config) == judge
    said = said_of_gate(config, prepare(make_config()).splits.repetitions[0])
    assert said is not None
    assert said["architecture_of_the_judge_of_adherence"] == same


def test_the_measure_names_its_judge_and_what_the_generator_learnt_with(make_config: Make, quick: Any) -> None:
    bench = prepare(make_config(judges=(SANET,), arms=("real-geo", "syn-geo", "syn-geo+generator=arsdm")))
    freeze(bench)
    r = bench.splits.repetitions[0]
    pairs = Pairs(bench.dataset.select(r.train), bench.config.resolution)
    plain = quality.adherence(bench, r, pairs, quick.tools)
    found = quality.adherence(bench, r, pairs, quick.tools, Variant(generator="arsdm"))
    assert [(job.judge, dict(job.architecture)) for job in quick.jobs] == [
        ("sanet", {"size": "14", "weights": "none"}),
        ("unet", {}),
    ]
    assert (plain["judge"], found["judge"]) == (SANET, "unet")
    assert "learnt_with" not in plain
    assert found["learnt_with"] == {"segmenter": SANET, "judges_of_its_architecture": [SANET]}
    assert np.isfinite(found["dice"])


def test_the_plan_says_which_judge_resembles(make_config: Make, capsys: pytest.CaptureFixture[str]) -> None:
    plan_study(make_config(judges=(SANET,), arms=("real-geo", "syn-geo+generator=arsdm"), dry_run=True))
    said = f"the judge {SANET} has the architecture of {SANET}, with which arsdm learns; unet judges the adherence"
    assert f"note         {said}" in capsys.readouterr().out
    plan_study(make_config(judges=("unet",), arms=("real-geo", "syn-geo+generator=arsdm"), dry_run=True))
    assert "has the architecture of" not in capsys.readouterr().out


def test_protocol_and_page_say_it(tmp_path: Path) -> None:
    arms = {"real-geo": 0.0, "syn-geo": 0.05, "syn-geo+generator=arsdm": 0.05}
    fake = Fake(effects=arms)
    fake.write_cells(tmp_path)
    fake.write_plan(tmp_path, tmp_path / "data")
    write_images(tmp_path, 0)
    values = json.loads((tmp_path / "images" / "fold0.json").read_text())
    values = {**values, "n_synthetic": 16}
    (tmp_path / "images" / "fold0.json").write_text(json.dumps(values))
    learnt = {"segmenter": SANET, "judges_of_its_architecture": ["sanet+size=14"]}
    values |= {"generator": "arsdm", "adherence": {**values["adherence"], "judge": "segformer", "learnt_with": learnt}}
    (tmp_path / "images" / "fold0+generator=arsdm.json").write_text(json.dumps(values))
    found = build(tmp_path)
    assert found["protocol"]["adherence"] == {
        "copy-paste": {"judges": ["unet"]},
        "arsdm": {"judges": ["segformer"], "learnt_with": learnt},
    }
    page = (tmp_path / "report.html").read_text()
    assert f"arsdm learns with the segmenter {SANET}, so that segformer of another architecture judges" in page
    assert "The judge sanet+size=14 has the architecture of that segmenter" in page
    assert "on real ones, by segformer</small>" in page
