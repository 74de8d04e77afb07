"""Predicting at native size, and the artefact on disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from morphogen.errors import InputError
from morphogen.segmenters import build
from morphogen.segmenters.predictor import Predictor, load_segmenter, save_segmenter

CLASSES = ("background", "lesion")
ARCHITECTURE = {"encoder": "lite0"}


class Bright(nn.Module):
    """Class 1 where the red channel is above the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(50.0))
        self.rows: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.rows.append(len(x))
        return torch.stack([-self.gain * x[:, 0], self.gain * x[:, 0]], dim=1)


def predictor(net: nn.Module, resolution: int = 16) -> Predictor:
    return Predictor(net.eval(), {"segmenter": "unet", "classes": CLASSES, "resolution": resolution}, Path())


def test_answers_at_the_size_of_each_image() -> None:
    rng = np.random.default_rng(0)
    sizes = [(40, 30), (7, 90), (16, 16), (1, 1), (33, 64)]
    net = Bright()
    found = predictor(net)([rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes], batch_size=2)
    assert [labels.shape for labels in found] == sizes
    assert {labels.dtype for labels in found} == {np.dtype(np.int64)}
    assert net.rows == [2, 2, 1]


def test_probabilities_are_resized_bilinearly_then_compared() -> None:
    image = np.zeros((50, 80, 3), dtype=np.uint8)
    image[10:30, 20:60] = 200
    predict = predictor(Bright())
    small = np.array(Image.fromarray(image).resize((16, 16), Image.Resampling.LANCZOS)).astype(np.float64)
    score = 50 * (small[..., 0] / 127.5 - 1)
    expected = Image.fromarray((1 / (1 + np.exp(-2 * score))).astype(np.float32))
    # PIL's bilinear resize, enlarging, is the same half-pixel interpolation
    enlarged = np.array(expected.resize((80, 50), Image.Resampling.BILINEAR))
    (probability,) = predict.probabilities([image])
    assert probability.shape == (2, 50, 80)
    np.testing.assert_allclose(probability[1], enlarged, atol=1e-4)
    np.testing.assert_allclose(probability.sum(axis=0), 1, atol=1e-5)
    assert np.array_equal(predict([image])[0], probability.argmax(axis=0))
    truth = np.zeros((50, 80))
    truth[10:30, 20:60] = 1
    assert (predict([image])[0] == truth).mean() > 0.93


class TestFiles:
    @pytest.fixture
    def run(self, tmp_path: Path) -> Path:
        (tmp_path / "final").mkdir()
        net = build("unet", 2, ARCHITECTURE, pretrained=False)
        save_segmenter(tmp_path / "final", net, "unet", ARCHITECTURE, CLASSES, 32)
        return tmp_path

    def test_config_says_what_it_is(self, run: Path) -> None:
        assert json.loads((run / "final" / "config.json").read_text()) == {
            "segmenter": "unet",
            "architecture": {"encoder": "lite0"},
            "n_classes": 2,
            "classes": ["background", "lesion"],
            "resolution": 32,
        }

    def test_loading_needs_no_published_weights(self, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def absent(name: str) -> None:
            raise AssertionError("weights were asked for")

        monkeypatch.setattr("morphogen.metrics.weights.load_member", absent)
        assert load_segmenter(run).resolution == 32

    def test_a_folder_without_segmenter_is_one_line(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="holds no finished segmenter"):
            load_segmenter(tmp_path / "nowhere")
