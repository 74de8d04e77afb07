"""Mask adherence: the Dice of two sets at native size, and warnings where the segmenter has seen them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from morphogen.cli import main
from morphogen.cli.eval_images import Images
from morphogen.data.images import load_rgb
from morphogen.data.pairs import native_mask
from morphogen.data.phantoms import phantom_dataset
from morphogen.data.readers import read_dataset
from morphogen.errors import InputError
from morphogen.metrics import networks
from morphogen.metrics.overlap import dice
from morphogen.segmenters.adherence import adherence, dice_of
from morphogen.segmenters.predictor import Predictor


class Red(nn.Module):
    """Class 1 where red outweighs green."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(50.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        score = self.gain * (x[:, 0] - x[:, 1] - 0.4)
        return torch.stack([-score, score], dim=1)


@pytest.fixture
def judge(tmp_path: Path) -> Predictor:
    run = tmp_path / "judge"
    run.mkdir()
    for name in ("config.json", "model.safetensors"):
        (run / name).write_text("{}")
    config = {"segmenter": "unet", "classes": ("background", "lesion"), "resolution": 32}
    return Predictor(Red().eval(), config, run)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    phantom_dataset(tmp_path / "syn", "mucosa", 5, 40, seed=1)
    phantom_dataset(tmp_path / "real", "mucosa", 7, 48, seed=2)
    return tmp_path / "syn", tmp_path / "real"


def test_the_dice_is_that_of_the_predictions(judge: Predictor, folders: tuple[Path, Path]) -> None:
    synthetic, real = map(read_dataset, folders)
    found = adherence(judge, synthetic, real, batch_size=2)
    for data, name in ((synthetic, "dice"), (real, "dice_on_real")):
        wanted = [dice(judge([load_rgb(record)])[0], native_mask(record, data)) for record in data]
        assert dice_of(judge, data, batch_size=3) == pytest.approx(wanted)
        assert found[name] == pytest.approx(np.mean(wanted))
        assert 0 < found[name] < 1
    low, high = found["ci95"]
    assert low <= found["dice"] <= high
    assert (found["n"], found["n_real"], found["segmenter"]) == (5, 7, "unet")
    assert "does not say what it was trained on" in found["warnings"][0]


def test_other_classes_are_refused(judge: Predictor, folders: tuple[Path, Path]) -> None:
    judge.classes = ("background", "polyp", "tool")
    with pytest.raises(InputError, match=r"syn: its masks hold 2 classes, the segmenter of .* 3"):
        adherence(judge, *map(read_dataset, folders))


@pytest.fixture
def no_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """FID of constant features: the images go through no network."""
    from morphogen.metrics import image_metrics

    def load(spec: object, *_: object) -> networks.Network:
        def module(pixels: torch.Tensor) -> torch.Tensor:
            return pixels.mean(dim=(2, 3)) + torch.arange(3)

        return networks.Network(image_metrics.EXTRACTORS["lite0"], module, "cpu", "", "")

    monkeypatch.setattr(networks, "require", lambda *_: None)
    monkeypatch.setattr(networks, "load_network", load)


def train(data: Path, run: Path, words: Sequence[str] = ()) -> Path:
    command = ["train", "unet", str(data), "--out", str(run), "--encoder", "scratch", "--resolution", "32"]
    assert main([*command, "--max-train-steps", "1", "--train-batch-size", "2", *words]) == 0
    return run


@pytest.mark.usefixtures("no_passes")
def test_a_segmenter_that_has_seen_a_set_is_named(folders: tuple[Path, Path], tmp_path: Path) -> None:
    syn, real = folders

    def lines(run: Path) -> list[str]:
        found = Images(syn=syn, real=real, metrics=("clip_i",), adherence=run).run()
        assert 0 <= found["adherence"]["dice"] <= 1
        assert "warnings" not in found["adherence"]
        assert "adherence: Dice at native size" in found["protocol"]
        return [line for line in found["warnings"] if line.startswith("adherence")]

    phantom_dataset(tmp_path / "other", "mucosa", 6, 32, seed=3)
    for path in (tmp_path / "other").rglob("mucosa-*.png"):
        path.rename(path.with_name(path.name.replace("mucosa", "other")))
    (tmp_path / "other" / "records.csv").unlink()
    assert lines(train(tmp_path / "other", tmp_path / "clean")) == []
    (line,) = lines(train(real, tmp_path / "seen", ["--seed", "4"]))
    assert "seen was trained on images of" in line
    assert "not held out" in line
    (line,) = lines(train(syn, tmp_path / "judge") / "final")
    assert "its Dice there says nothing" in line


def test_a_judge_like_the_gate_is_named(judge: Predictor, folders: tuple[Path, Path]) -> None:
    synthetic, real = map(read_dataset, folders)
    judge.config = {**judge.config, "architecture": {"encoder": "scratch"}}
    gate = {"name": "unet", "architecture": {"encoder": "scratch"}, "hash": judge.hash}

    def said(**changes: object) -> str:
        (synthetic.root / "gates.json").write_text(json.dumps({"segmenter": {**gate, **changes}}))
        return " ".join(adherence(judge, synthetic, real)["warnings"][:-1])

    assert "is the segmenter of the gate that judged" in said()
    assert "has the architecture of the gate" in said(hash="another")
    assert said(hash="another", architecture={"encoder": "lite0"}) == ""
    assert said(hash="another", name="sanet") == ""
    (synthetic.root / "gates.json").write_text(json.dumps({"segmenter": None}))
    assert len(adherence(judge, synthetic, real)["warnings"]) == 1


@pytest.mark.usefixtures("no_passes")
def test_dropped_samples_are_judged_too(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """The measure is that of unfiltered samples; everything else is that of those that were kept."""
    syn, real = folders
    (syn / "manifest.jsonl").write_text(json.dumps({"id": "mucosa-000001", "dropped": "blur"}) + "\n")
    found = Images(syn=syn, real=real, metrics=("clip_i",), adherence=train(real, tmp_path / "run")).run()
    assert (found["n_synthetic"], found["adherence"]["n"]) == (4, 5)
    for mask in (syn / "masks").iterdir():
        mask.unlink()
    with pytest.raises(InputError, match=r"syn: 5 of 5 images have no mask"):
        Images(syn=syn, real=real, metrics=("clip_i",), adherence=tmp_path / "run").run()
