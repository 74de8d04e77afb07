"""Any segmenter is a judge, with options of its own in its name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from morphogen.errors import InputError
from morphogen.study import report, results
from morphogen.study.recipe import StudyConfig
from morphogen.study.run import prepare, run_study

Make = Callable[..., StudyConfig]


@pytest.mark.usefixtures("without_inception")
def test_options_reach_the_network_and_the_names_of_cells(
    make_config: Make, quick: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "build", lambda out: results.join(out).results)
    judges = ("segformer+size=b0+weights=none", "polyp-pvt+size=b0+weights=none")
    config = make_config(judges=judges, arms=("real", "real-geo"), seeds=1)
    found = run_study(config, quick.tools)
    jobs = {job.out.name: job for job in quick.arm("real")}
    assert set(jobs) == {f"real.{judge}.fold0.n8" for judge in judges}
    job = jobs[f"real.{judges[0]}.fold0.n8"]
    assert (job.judge, dict(job.architecture)) == ("segformer", {"size": "b0", "weights": "none"})
    cell = json.loads((config.out / f"cells/real.{judges[1]}.fold0.n8.test.json").read_text())
    assert cell["judge"] == judges[1]
    assert set(found["arms"]["real"]) == set(judges)


@pytest.mark.usefixtures("without_inception")
def test_a_judge_is_trained_and_loaded(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "build", lambda out: results.join(out).results)
    judge = "polyp-pvt+size=b0+weights=none"
    config = make_config(judges=(judge,), arms=("real",), seeds=1, train_batch_size=2, resolution=32)
    found = run_study(config)
    assert 0 <= found["arms"]["real"][judge]["dice"]["mean"] <= 1
    saved = json.loads((config.out / f"runs/real.{judge}.fold0.n8/final/config.json").read_text())
    assert (saved["segmenter"], saved["architecture"]["size"]) == ("polyp-pvt", "b0")


@pytest.mark.parametrize(
    ("judge", "said"),
    [
        ("segforme", "did you mean segformer"),
        ("segformer+siz=b0", "no option 'siz'; did you mean 'size'"),
        ("segformer+b0", r"segformer\+b0: is not option=value"),
        ("segformer+size=b9", "b9"),
        ("polyp-pvt", "cannot be reached.*weights=none"),
        ("polyp-pvt+weights=/nowhere", "/nowhere: no such weights"),
    ],
)
def test_a_judge_that_cannot_be_is_refused_before_anything_is_written(
    make_config: Make, judge: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    config = make_config(judges=(judge,))
    with pytest.raises(InputError, match=said):
        prepare(config)
    assert not config.out.exists()
