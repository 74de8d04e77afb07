"""runs/validation_scores.py: what a study's choices are read from."""

from __future__ import annotations

import json
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "runs" / "validation_scores.py"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def log(runs: Path, name: str, looks: Mapping[int, float]) -> None:
    rows = [{"step": step, "loss": 1.0, **({"val/score": looks[step]} if step in looks else {})} for step in range(100)]
    (runs / name).mkdir(parents=True)
    (runs / name / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_second_half_of_the_looks_counts_and_generators_do_not(script: dict[str, Any], tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    log(runs, "real-geo.unet.fold0.n25", {24: 0.9, 49: 0.1, 74: 0.5, 99: 0.7})
    log(runs, "real-geo.unet.fold1.n25", {99: 0.2})
    log(runs, "syn-geo+n=10+gates=none.unet+encoder=scratch.fold0-seed1.n25", {99: 0.4})
    log(runs, "generator.siamese.fold0", {99: 0.3})
    log(runs, "syn-geo.unet.fold0.n25", {})
    assert script["scores"](runs) == {
        ("unet", "real-geo"): {"fold0": pytest.approx(0.6), "fold1": 0.2},
        ("unet+encoder=scratch", "syn-geo+n=10+gates=none"): {"fold0-seed1": 0.4},
    }


def test_an_arm_has_its_mean(script: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log(tmp_path / "runs", "real-geo.unet.fold0.n25", {99: 0.6})
    log(tmp_path / "runs", "real-geo.unet.fold1.n25", {99: 0.2})
    script["main"](tmp_path)
    assert "| `real-geo` | 0.400 | 2 |" in capsys.readouterr().out


def test_a_folder_without_logs_is_named(script: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="holds no log of a judge"):
        script["main"](tmp_path)
