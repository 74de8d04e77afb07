"""The script that joins studies of different numbers of annotated pairs."""

from __future__ import annotations

import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from morphogen.study.results import join
from study.study_folder import Fake

SCRIPT = Path(__file__).parents[2] / "runs" / "dice_against_n.py"
EFFECTS = {"real-geo": 0.0, "syn-geo": 0.03, "syn-geo+generator=controlnet": -0.02}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = spec_from_file_location("dice_against_n", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "dice_against_n", module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def studies(tmp_path: Path) -> list[Path]:
    """Of 20 and of 60 annotated pairs; the second has one repetition of controlnet, and a further test set."""
    for n in (20, 60):
        Fake(effects=EFFECTS, n_annotated=n, config_hash=str(n)).write_cells(tmp_path / str(n))
    for path in (tmp_path / "60" / "cells").glob("*controlnet*fold[12]*"):
        path.unlink()
    Fake(effects=EFFECTS, n_annotated=60, config_hash="60", test_set="further").write_cells(tmp_path / "60")
    return [tmp_path / "20", tmp_path / "60"]


def run(script: ModuleType, monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["dice_against_n", *map(str, words)])
    script.main()


def test_a_table_for_every_test_set_and_a_figure(
    script: ModuleType,
    studies: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(script, monkeypatch, *studies, "--figure", tmp_path / "made" / "dice.png")
    printed = capsys.readouterr().out
    own, further = printed.split("Judge unet, test set further:")
    assert own.startswith("Judge unet, test set test:\n")
    lines = [line.split(" | ") for line in own.splitlines() if line.startswith("| `")]
    assert [(line[0].strip("| `"), line[1]) for line in lines] == [(arm, n) for arm in EFFECTS for n in ("20", "60")]
    (comparison,) = (
        c for c in join(studies[0]).results["comparisons"] if (c["arm"], c["metric"]) == ("syn-geo", "dice")
    )
    low, high = comparison["ci95"]
    assert f"| {comparison['diff']:+.3f} ({low:+.3f} to {high:+.3f}) to `real-geo` |" in own
    assert [line[-1] for line in lines] == ["3 |"] * 5 + ["exploratory (1 of 3 repetitions) |"]
    assert [line[3:] for line in lines[:2]] == [["| ", "3 |"]] * 2
    assert further.count("| `") == 3
    with Image.open(tmp_path / "made" / "dice.png") as image:
        assert image.format == "PNG"
        assert image.width > image.height


def test_only_what_is_asked_for(
    script: ModuleType, studies: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(script, monkeypatch, *studies, "--arms", "real-geo")
    printed = capsys.readouterr().out
    assert "syn-geo" not in printed
    assert printed.count("| `real-geo`") == 3


def test_what_cannot_be_joined_is_one_line(
    script: ModuleType, studies: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for words, says in (
        ((*studies, studies[0]), "has real-geo of 20 annotated pairs, judge unet, test set test, as has"),
        ((*studies, "--judge", "segformer"), "hold no cell of segformer; name other --judge or --arms"),
        ((tmp_path / "none",), "no such folder"),
    ):
        with pytest.raises(SystemExit) as caught:
            run(script, monkeypatch, *words)
        assert says in str(caught.value)
        assert "\n" not in str(caught.value)


def test_folds_of_different_sizes_stand_at_their_mean(script: ModuleType, tmp_path: Path) -> None:
    Fake(effects={"real-geo": 0.0}).write_cells(tmp_path)
    for fold, path in enumerate(sorted((tmp_path / "cells").glob("*.json"))):
        path.write_text(json.dumps({**json.loads(path.read_text()), "n_annotated": 30 + fold}))
    ((_, panel),) = script.panels([tmp_path], [], []).items()
    assert list(panel["real-geo"]) == [31]
