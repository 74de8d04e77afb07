"""``morphogen demo``, shrunk to seconds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from morphogen.cli import demo, main
from morphogen.metrics import weights
from morphogen.study.recipe import StudyConfig


@pytest.fixture
def shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty phantoms of 32 px, two steps a training, no slow features."""
    full = demo.recipe

    def recipe(data: Path, out: Path) -> StudyConfig:
        return replace(full(data, out), annotated=6, resolution=32, steps=2, generator="copy-paste")

    available = weights.available
    monkeypatch.setattr(weights, "available", lambda name: name != "inception" and available(name))
    monkeypatch.setattr(demo, "recipe", recipe)
    for name, value in {"PHANTOMS": 30, "SUBJECTS": 15, "SIDE": 32}.items():
        monkeypatch.setattr(demo, name, value)


@pytest.mark.usefixtures("shrunk")
def test_the_demo_ends_with_a_verdict_and_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, result = tmp_path / "demo", tmp_path / "r.json"
    assert main(["demo", "--out", str(out), "--json", str(result), "--debug"]) == 0
    printed = capsys.readouterr().out
    told = json.loads(result.read_text())
    assert told["verdict"]["outcome"] in {"helped", "hurt", "undecided"}
    assert told["verdict"]["text"] in printed
    assert printed.strip().endswith(str(Path(told["report"]).resolve()))
    assert "2 of 5" in printed
    assert Path(told["report"]).read_text().startswith("<!doctype html>")

    # again: nothing is trained a second time
    cells = {path: path.stat().st_mtime_ns for path in (out / "study" / "cells").iterdir()}
    assert len(cells) == 6
    assert main(["demo", "--out", str(out)]) == 0
    assert {path: path.stat().st_mtime_ns for path in (out / "study" / "cells").iterdir()} == cells


def test_the_demo_paints_with_the_diffusion_model() -> None:
    recipe = demo.recipe(Path("data"), Path("out"))
    assert (recipe.generator, recipe.preset) == ("siamese", "tiny")
