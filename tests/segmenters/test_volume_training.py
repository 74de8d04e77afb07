"""Training on volumes, whole: what it learns, what it writes, that it resumes exactly, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from morphogen.errors import InputError, StoppedError
from morphogen.segmenters.diffcl.config import SemiConfig
from morphogen.segmenters.diffcl.methods import METHODS
from morphogen.segmenters.diffcl.methods.base import Parts
from morphogen.segmenters.diffcl.nets import TwoNets
from morphogen.segmenters.diffcl.task import SemiTask
from morphogen.segmenters.diffcl.validation import Validation
from morphogen.segmenters.diffcl.vnet import VNet, VNetConfig
from morphogen.segmenters.diffcl.volumes import PatchConfig, train_volumes
from morphogen.training.task import Draw
from segmenters.few_volumes import few

PATCH = PatchConfig(patch=(16, 16, 16))


def config(method: str, steps: int = 4, **options: Any) -> SemiConfig:
    stated = {
        "filters": 2,
        "max_train_steps": steps,
        "train_batch_size": 2,
        "start": 0.3,
        "voxels": 16,
        "bank": 16,
        "patience": 0.1,
    }
    stated["denoiser_norm"] = "batch"  # the patch leaves one value to each instance
    return SemiConfig(**{"method": method, "lr": 1e-2, "checkpointing_steps": 2, **stated, **options})


def rows_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("method", list(METHODS))
def test_a_run_has_weights_config_and_previews(tmp_path: Path, method: str) -> None:
    run = train_volumes(few(tmp_path / "data"), config(method), PATCH, tmp_path / "run")
    said = json.loads((run / "final" / "config.json").read_text())
    assert (said["volume_segmenter"], said["method"], said["classes"]) == ("diffcl", method, ["background", "ball"])
    weights = load_file(run / "final" / "model.safetensors")
    assert {name.split(".")[0] for name in weights} == ({"cs", "ds"} if method == "diff-cl" else {"cs"})
    assert said["networks"].keys() == {name.split(".")[0] for name in weights}
    with Image.open(next((run / "previews").glob("*.png"))) as picture:
        assert picture.width > 2 * picture.height  # three slices, plain and outlined
    val = [row for row in rows_of(run) if "val/score" in row]
    assert all(0 <= row["val/score"] <= 1 for row in val)
    assert ("val/one_shot_dice" in val[-1]) == (method == "diff-cl")


@pytest.mark.slow
def test_diff_cl_finds_the_ball_and_its_diffusion_network_reads_it_from_the_image(tmp_path: Path) -> None:
    run = train_volumes(
        few(tmp_path / "data"), config("diff-cl", 60, filters=4, signal_scale=0.5, late=1.0), PATCH, tmp_path / "run"
    )
    last = rows_of(run)[-1]
    assert last["val/score"] > 0.7
    assert last["val/one_shot_dice"] > 0.8


def test_a_killed_run_ends_with_the_same_bits_and_the_same_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = few(tmp_path / "data")
    whole = train_volumes(data, config("diff-cl", 6), PATCH, tmp_path / "whole")
    stopped, calls = tmp_path / "stopped", []
    batch = SemiTask.batch

    def killed(self: SemiTask, draws: Any) -> Any:
        calls.append(self)
        if len(calls) == 6:
            raise StoppedError("killed")
        return batch(self, draws)

    monkeypatch.setattr(SemiTask, "batch", killed)
    with pytest.raises(StoppedError):
        train_volumes(data, config("diff-cl", 6), PATCH, stopped)
    kept = load_file(next((stopped / "checkpoints").glob("step-00000004")) / "model.safetensors")
    assert kept["bank.filled"].sum() > 0
    monkeypatch.setattr(SemiTask, "batch", batch)
    train_volumes(data, config("diff-cl", 6), PATCH, stopped)
    for name, value in load_file(whole / "final" / "model.safetensors").items():
        assert torch.equal(load_file(stopped / "final" / "model.safetensors")[name], value), name
    drop = ("cs/grad_norm", "ds/grad_norm")
    ours, theirs = ([{k: v for k, v in r.items() if k not in drop} for r in rows_of(run)] for run in (whole, stopped))
    assert ours == theirs


def test_unlabelled_volumes_are_needed_and_their_number_is_part_of_the_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no unlabelled volume for cps"):
        train_volumes(few(tmp_path / "data", unlabelled=0), config("cps"), PATCH, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    train_volumes(few(tmp_path / "data"), config("cps", 1), PATCH, tmp_path / "run")
    with pytest.raises(InputError, match="other settings"):
        train_volumes(few(tmp_path / "data", unlabelled=2), config("cps", 1), PATCH, tmp_path / "run")


def test_validation_volumes_of_several_sizes_are_looked_at_one_by_one() -> None:
    net = TwoNets(VNet(VNetConfig(filters=1)).eval(), None, 2, 1.0)
    images = [torch.randn(1, *shape) for shape in ((16, 16, 16), (20, 16, 12), (16, 16, 16))]
    looks = Validation(images, [np.zeros(image.shape[1:], np.uint8) for image in images], (16, 16, 16))
    assert [made.shape for made in looks.predicted(net, "cs", 1)] == [image.shape[1:] for image in images]
    assert looks.scores(net, config("supervised"))["score"] >= 0


class Numbers:
    """A stream whose images are their own index."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def draw(self, index: int, seed: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        return torch.full((1, 16, 16), float(index)), torch.zeros(16, 16, dtype=torch.long)

    def views(self, index: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = self.draw(index, seed)[0]
        return image, image


@pytest.mark.parametrize(("labelled", "unlabelled"), [(6, 10), (10, 6)])
def test_the_longer_stream_is_walked_through_and_the_shorter_one_drawn_evenly(labelled: int, unlabelled: int) -> None:
    settings = config("cps")
    net = VNetConfig(dims=2, filters=1)
    parts = Parts(settings, 2, lambda: VNet(net), lambda: VNet(net), torch.zeros(1, 1, 16, 16))
    task = SemiTask(parts, Numbers(labelled), Numbers(unlabelled), Validation([], [], (16, 16)), lambda *_: None)
    assert len(task) == 10
    batch = task.batch([Draw(i % 10, seed) for seed, i in enumerate(range(3000))])
    for name, n in (("image_l", labelled), ("image_u", unlabelled)):
        seen = batch[name][:, 0, 0, 0].long().bincount(minlength=n)
        assert len(seen) == n
        assert (seen == 300).all() if n == 10 else (seen - 500).abs().max() < 100  # 4.5 deviations


def test_a_patch_that_leaves_nothing_to_normalise_is_refused(tmp_path: Path) -> None:
    for options in ({"train_batch_size": 1}, {"norm": "instance"}, {"gradient_accumulation_steps": 2}):
        with pytest.raises(InputError, match="one value to normalise"):
            train_volumes(few(tmp_path / "data"), config("supervised", 1, **options), PATCH, tmp_path / "run")
    larger = PatchConfig(patch=(32, 16, 16))
    train_volumes(few(tmp_path / "data"), config("supervised", 1, norm="instance"), larger, tmp_path / "run")


def test_a_patch_larger_than_the_volumes_is_filled_up(tmp_path: Path) -> None:
    run = train_volumes(
        few(tmp_path / "data"), config("supervised", 2), PatchConfig(patch=(32, 32, 32)), tmp_path / "run"
    )
    assert (run / "final").is_dir()
