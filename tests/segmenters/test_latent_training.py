"""Training the latent segmenter, and its commands."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from morphogen.cli import main
from morphogen.data.phantoms import phantom_dataset
from morphogen.errors import InputError, WorkError
from morphogen.foundation.model import Foundation
from morphogen.segmenters.latent import mask_autoencoder
from morphogen.segmenters.predictor import Sampling, load_segmenter
from morphogen.segmenters.task import SegmenterConfig, train_segmenter
from segmenters.base import PhantomPairs

QUICK = SegmenterConfig(max_train_steps=4, train_batch_size=4, checkpointing_steps=2, validation_steps=2, ema_decay=0.5)


class TestTraining:
    @pytest.fixture(autouse=True)
    def short(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(mask_autoencoder, "_STEPS", 2)
        monkeypatch.setattr(mask_autoencoder, "_TURNS", 1)

    def config(self, foundation: Path, **changes: Any) -> SegmenterConfig:
        return replace(QUICK, architecture={"foundation": str(foundation), "vision": "autoencoder", **changes})

    @pytest.mark.parametrize("fails", ["while the decoder trains", "while the segmenter trains"])
    def test_a_stopped_run_ends_with_the_same_bits(
        self, fails: str, foundation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from morphogen.segmenters.task import SegmenterTask

        pairs, config = PhantomPairs(4), self.config(foundation)
        whole = train_segmenter("latent", pairs, pairs, config, tmp_path / "whole")
        target = mask_autoencoder.MaskAutoencoderTask if "decoder" in fails else SegmenterTask
        batch, calls = target.batch, iter(range(99))
        monkeypatch.setattr(
            target, "batch",
            lambda self, draws: batch(self, draws) if next(calls) != (1 if "decoder" in fails else 3) else _cut(),
        )  # fmt: skip
        with pytest.raises(WorkError):
            train_segmenter("latent", pairs, pairs, config, tmp_path / "cut")
        cut = train_segmenter("latent", pairs, pairs, config, tmp_path / "cut")
        a, b = (load_file(run / "final" / "model.safetensors") for run in (whole, cut))
        assert a.keys() == b.keys()
        assert all(torch.equal(a[k], b[k]) for k in a)

    def test_run_holds_all_that_prediction_needs(
        self, foundation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pairs = PhantomPairs(4)
        run = train_segmenter("latent", pairs, pairs, self.config(foundation), tmp_path / "run")
        frozen = Foundation.load(foundation).vae.encoder.state_dict()
        saved = load_file(run / "final" / "model.safetensors")
        assert all(torch.equal(saved[f"net.autoencoder.encoder.{k}"], v) for k, v in frozen.items())
        assert json.loads((run / "final" / "config.json").read_text())["oracle_dice"]["mean"] <= 1
        monkeypatch.setattr(Foundation, "load", None)
        monkeypatch.setattr("morphogen.foundation.model.find_folder", None)
        predictor = load_segmenter(run)
        image = pairs[0][0].transpose(1, 2, 0)
        assert predictor([image])[0].shape == (32, 32)
        assert saved["net.prompt_states"].abs().sum() > 0
        several = load_segmenter(run).with_sampling(Sampling(steps=2, ensemble=2, seed=1)).probabilities([image])[0]
        assert not np.array_equal(several, predictor.probabilities([image])[0])

    def test_average_covers_all_that_trains_and_nothing_else(self, foundation: Path, tmp_path: Path) -> None:
        from morphogen.segmenters.task import SegmenterTask
        from morphogen.training.loop import _Run

        config = self.config(foundation)
        task = SegmenterTask("latent", [PhantomPairs(4)], PhantomPairs(4), config)
        averaged = _Run(task, config.loop(), tmp_path, "").ema.live  # type: ignore[union-attr]
        assert {name.split(".")[2] for name in averaged} == {"vision", "denoiser"}
        (phase,) = task.phases()
        assert {id(p) for group in phase.groups for p in group.parameters} == {id(p) for p in averaged.values()}

    def test_resolution_of_half_cells_is_one_line(self, foundation: Path, tmp_path: Path) -> None:
        pairs = PhantomPairs(2, 36)
        with pytest.raises(InputError, match="--resolution 36: is not a multiple of 8"):
            train_segmenter("latent", pairs, pairs, self.config(foundation), tmp_path / "run")
        assert not (tmp_path / "run").exists()


def _cut() -> Any:
    raise WorkError("power cut")


def test_the_commands(foundation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(mask_autoencoder, "_STEPS", 1)
    monkeypatch.setattr(mask_autoencoder, "_TURNS", 1)
    phantom_dataset(tmp_path / "data", "mucosa", 8, 32, subjects=4)
    run, out = tmp_path / "run", tmp_path / "out"
    words = ["train", "latent", str(tmp_path / "data"), "--out", str(run), "--resolution", "32"]
    quick = ["--max-train-steps", "2", "--train-batch-size", "4", "--ema-decay", "0.9"]
    assert main([*words, *quick, "--preset", f"foundation={foundation}+objective=paper"]) == 0
    assert "ema_decay: 0.9" in (run / "config.yaml").read_text()
    words = ["predict", str(run), str(tmp_path / "data"), "--out", str(out)]
    more = ["--steps", "2", "--ensemble", "3", "--seed", "4", "--uncertainty"]
    assert main([*words, *more]) == 0
    images = sorted((tmp_path / "data" / "images").iterdir())
    found = load_segmenter(run).with_sampling(Sampling(2, 3, 4)).uncertainty([np.array(Image.open(images[0]))])[0]
    for kind, values, scale in (("std", found[1], 0.5), ("entropy", found[2], 1.0)):
        shown = np.array(Image.open(out / "uncertainty" / kind / f"{images[0].stem}.png")) / 255 * scale
        np.testing.assert_allclose(shown, values, atol=scale / 255)
    assert np.array_equal(np.array(Image.open(out / f"{images[0].stem}.png")) // 255, found[0].argmax(axis=0))
    (out / "uncertainty" / "std" / f"{images[0].stem}.png").unlink()
    assert main([*words, *more, "--json", str(tmp_path / "note")]) == 0
    assert json.loads((tmp_path / "note").read_text())["made"] == 1
    unet = load_segmenter(run)
    unet.net, unet.config = torch.nn.Identity(), {**unet.config, "segmenter": "unet"}
    with pytest.raises(InputError, match="--ensemble: the segmenter unet has no such setting; leave it out"):
        unet.with_sampling(Sampling(ensemble=2))
    with pytest.raises(InputError, match="--uncertainty: the segmenter unet draws no noise"):
        unet.uncertainty([])
    for bad, said in (
        (["--steps", "3"], "holds predictions with other settings"),
        (["--steps", "0"], "--steps 0: the segmenter latent takes 1 to 1000"),
        (["--uncertainty"], "--uncertainty: needs several members"),
    ):
        capsys.readouterr()
        assert main([*words, *bad]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1
        assert said in lines[0]
