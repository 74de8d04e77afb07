"""``morphogen predict --probabilities`` and what ``eval masks --probabilities`` makes of it, in process."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from morphogen.cli import main
from morphogen.data.phantoms import phantom_dataset
from morphogen.segmenters import build
from morphogen.segmenters.predictor import Predictor, load_segmenter, save_segmenter


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four phantoms."""
    phantom_dataset(tmp_path / "data", "mucosa", 4, 40, subjects=2)
    return tmp_path / "data"


@pytest.fixture
def segmenter(tmp_path: Path) -> Path:
    return made(tmp_path / "segmenter", ("background", "lesion"))


def made(folder: Path, classes: tuple[str, ...]) -> Path:
    (folder / "final").mkdir(parents=True)
    torch.manual_seed(0)
    net = build("unet", len(classes), {"encoder": "lite0"}, pretrained=False)
    save_segmenter(folder / "final", net, "unet", {"encoder": "lite0"}, classes, 32)
    return folder


def refusal(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(words) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


def test_maps_are_the_rounded_probabilities_and_can_be_scored(data: Path, segmenter: Path, tmp_path: Path) -> None:
    Image.new("RGB", (70, 23), "pink").save(data / "images" / "wide.png")
    out, note = tmp_path / "maps", tmp_path / "note.json"
    assert main(["predict", str(segmenter), str(data), "--out", str(out), "--probabilities"]) == 0
    assert np.array(Image.open(out / "wide.png")).shape == (23, 70)
    assert json.loads((out / "predictions.json").read_text())["probabilities"] is True
    image = np.array(Image.open(data / "images" / "mucosa-000001.png").convert("RGB"))
    expected = load_segmenter(segmenter).probabilities([image])[0][1]
    found = np.array(Image.open(out / "mucosa-000001.png"))
    assert found.dtype == np.uint8
    assert np.abs(found / 255 - expected).max() <= 0.5 / 255 + 1e-6
    (out / "wide.png").unlink()
    assert main(["eval", "masks", str(out), str(data), "--probabilities", "--json", str(note)]) == 0
    assert json.loads(note.read_text())["n"] == 4


def test_the_same_command_again_continues(
    data: Path, segmenter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, note = tmp_path / "maps", tmp_path / "note.json"
    words = ["predict", str(segmenter), str(data), "--out", str(out), "--probabilities", "--json", str(note)]
    assert main(words) == 0
    (out / "mucosa-000002.png").unlink()
    monkeypatch.setattr(Predictor, "__call__", None)
    assert main(words) == 0
    assert json.loads(note.read_text())["made"] == 1


def test_labels_and_probabilities_do_not_share_a_folder(
    data: Path, segmenter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", str(segmenter), str(data), "--out"]
    assert main([*words, str(tmp_path / "maps"), "--probabilities"]) == 0
    assert main([*words, str(tmp_path / "labels")]) == 0
    assert "maps: holds probability maps" in refusal([*words, str(tmp_path / "maps")], capsys)
    assert "labels: holds labels" in refusal([*words, str(tmp_path / "labels"), "--probabilities"], capsys)


def test_more_than_two_classes_are_refused(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = made(tmp_path / "multi", ("background", "a", "b"))
    words = ["predict", str(run), str(data), "--out", str(tmp_path / "out"), "--probabilities"]
    assert "tells 3 classes apart" in refusal(words, capsys)
    assert not (tmp_path / "out").exists()
