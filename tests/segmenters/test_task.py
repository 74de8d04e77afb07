"""Training a segmenter through the loop."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from morphogen.errors import InputError, WorkError
from morphogen.segmenters.predictor import load_segmenter
from morphogen.segmenters.task import SegmenterConfig, SegmenterTask, train_segmenter
from morphogen.training.task import Draw, Progress
from segmenters.base import PhantomPairs

QUICK = SegmenterConfig(
    architecture={"encoder": "lite0"}, max_train_steps=4, train_batch_size=4, checkpointing_steps=2, validation_steps=2
)


@pytest.fixture(autouse=True)
def random_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoders start from random weights, so that nothing needs to be installed."""
    from morphogen.metrics import lite0

    monkeypatch.setattr(lite0, "lite0_encoder", lambda pretrained: lite0.Lite0Features())


def final_weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "final" / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def power_cut_at_the_fourth(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The fourth loss fails, once; returns the list of the losses' calls."""
    loss, calls = SegmenterTask.loss, []

    def dies_at_the_fourth(self: SegmenterTask, batch: dict, progress: object) -> dict:
        calls.append(progress)
        if len(calls) == 4:
            raise WorkError("power cut")
        return loss(self, batch, progress)  # type: ignore[arg-type,return-value]

    monkeypatch.setattr(SegmenterTask, "loss", dies_at_the_fourth)
    return calls


class TestBatch:
    def test_joins_sources_in_order_and_scales_to_minus_one_and_one(self) -> None:
        first, second = PhantomPairs(3), PhantomPairs(2, first_seed=10)
        task = SegmenterTask("unet", [first, second], first, replace(QUICK, augmentation="none"))
        assert len(task) == 5
        batch = task.batch([Draw(4, 7), Draw(0, 8)])
        expected = second[1][0].astype(np.float32) / 127.5 - 1
        np.testing.assert_allclose(batch["image"][0].numpy(), expected, atol=1e-6)
        assert torch.equal(batch["mask"][1], torch.from_numpy(first[0][1]).long())
        assert batch["seed"].tolist() == [7, 8]
        assert batch["image"].min() >= -1
        assert batch["image"].max() <= 1

    def test_augmentation_is_a_function_of_the_seed_alone(self) -> None:
        pairs = PhantomPairs(3)
        task = SegmenterTask("unet", [pairs], pairs, QUICK)
        together, alone = task.batch([Draw(0, 1), Draw(1, 2), Draw(2, 3)]), task.batch([Draw(1, 2)])
        assert torch.equal(together["image"][1], alone["image"][0])
        assert torch.equal(together["mask"][1], alone["mask"][0])
        looks = {task.batch([Draw(0, seed)])["image"].numpy().tobytes() for seed in range(10)}
        assert len(looks) > 5

    def test_sources_must_agree(self) -> None:
        with pytest.raises(InputError, match="is read at 48 px"):
            SegmenterTask("unet", [PhantomPairs(1), PhantomPairs(1, 48)], PhantomPairs(1), QUICK)
        other = PhantomPairs(1)
        other.dataset = replace(other.dataset, classes=("background", "polyp"))
        with pytest.raises(InputError, match="give all of them the same classes"):
            SegmenterTask("unet", [PhantomPairs(1), other], PhantomPairs(1), QUICK)


class TestValidation:
    def test_score_is_the_mean_dice_over_images_and_foreground_classes(self) -> None:
        val = PhantomPairs(5, n_classes=3)
        task = SegmenterTask("unet", [val], val, QUICK)
        images, masks = val.stacked()
        task.modules.eval()
        with torch.no_grad():
            labels = task.net(images).argmax(dim=1)
        scores = []
        for label, mask in zip(labels, masks, strict=True):
            for k in (1, 2):
                total = (label == k).sum() + (mask == k).sum()
                scores.append(1.0 if total == 0 else float(2 * ((label == k) & (mask == k)).sum() / total))
        assert task.validate(0)["score"] == pytest.approx(np.mean(scores), abs=1e-6)

    def test_best_look_is_kept(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The score is made to be highest at step 2: the result must be the weights of step 2."""
        pairs = PhantomPairs(4)
        seen = {}

        def validate(self: SegmenterTask, step: int) -> dict[str, float]:
            seen[step] = {k: v.clone() for k, v in self.net.state_dict().items()}
            return {"score": 1.0 if step == 2 else 0.0}

        monkeypatch.setattr(SegmenterTask, "validate", validate)
        run = train_segmenter("unet", pairs, pairs, QUICK, tmp_path / "run")
        assert same(final_weights(run), seen[2])
        assert not same(final_weights(run), seen[4])


class TestRun:
    def test_run_folder_says_what_was_done(self, tmp_path: Path) -> None:
        train, val = PhantomPairs(4), PhantomPairs(2, first_seed=50)
        run = train_segmenter("unet", [train, train], val, QUICK, tmp_path / "run")
        config = yaml.safe_load((run / "config.yaml").read_text())
        assert config["segmenter"]["architecture"] == {"encoder": "lite0"}
        assert (config["data"]["train"]["n"], config["data"]["val"]["n"]) == (8, 2)
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert sum("cross_entropy" in row and "dice" in row for row in rows) == 4
        assert sum("val/dice" in row for row in rows) == 2
        assert (run / "previews" / "step-000004.png").is_file()
        assert load_segmenter(run).classes == ("background", "part1")

    def test_stopped_and_continued_ends_with_the_same_bits(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pairs = PhantomPairs(6)
        whole = final_weights(train_segmenter("unet", pairs, pairs, QUICK, tmp_path / "whole"))
        calls = power_cut_at_the_fourth(monkeypatch)
        with pytest.raises(WorkError):
            train_segmenter("unet", pairs, pairs, QUICK, tmp_path / "cut")
        again = train_segmenter("unet", pairs, pairs, QUICK, tmp_path / "cut")
        assert len(calls) == 6  # it went on after step 2
        assert same(final_weights(again), whole)

    def test_seed_decides_everything(self, tmp_path: Path) -> None:
        pairs, config = PhantomPairs(4), replace(QUICK, max_train_steps=1, validation_steps=0)
        torch.manual_seed(1)
        first = final_weights(train_segmenter("unet", pairs, pairs, config, tmp_path / "a"))
        torch.manual_seed(2)
        again = final_weights(train_segmenter("unet", pairs, pairs, config, tmp_path / "b"))
        other = final_weights(train_segmenter("unet", pairs, pairs, replace(config, seed=1), tmp_path / "c"))
        assert same(first, again)
        assert not same(first, other)

    def test_other_data_is_another_run(self, tmp_path: Path) -> None:
        pairs, config = PhantomPairs(4), replace(QUICK, max_train_steps=1)
        train_segmenter("unet", pairs, pairs, config, tmp_path / "run")
        with pytest.raises(InputError, match="other settings"):
            train_segmenter("unet", PhantomPairs(5), pairs, config, tmp_path / "run")


@pytest.mark.slow
def test_learns_phantoms_that_it_has_not_seen(tmp_path: Path) -> None:
    config = replace(
        QUICK, max_train_steps=40, train_batch_size=8, validation_steps=0, checkpointing_steps=100, lr=3e-3
    )
    run = train_segmenter("unet", PhantomPairs(40), PhantomPairs(16, first_seed=500), config, tmp_path / "run")
    test = PhantomPairs(16, first_seed=900)
    predicted = load_segmenter(run)([np.ascontiguousarray(image.transpose(1, 2, 0)) for image, _ in test.pairs])
    both = sum(int((p * m).sum()) for p, (_, m) in zip(predicted, test.pairs, strict=True))
    total = sum(int(p.sum()) + int(m.sum()) for p, (_, m) in zip(predicted, test.pairs, strict=True))
    assert 2 * both / total > 0.4


class TestHow:
    """What a published recipe asks of the training."""

    def task(self, **changes: object) -> SegmenterTask:
        pairs = PhantomPairs(3)
        return SegmenterTask("unet", [pairs], pairs, replace(QUICK, **changes))  # type: ignore[arg-type]

    def test_encoder_and_normalisation_have_groups_of_their_own(self) -> None:
        task = self.task(encoder_lr_scale=0.1, norm_decay=False, weight_decay=0.02)
        (phase,) = task.phases()
        names = {id(p): name for name, p in task.net.named_parameters()}
        found = {}
        for group in phase.groups:
            for p in group.parameters:
                found[names[id(p)]] = (group.lr_scale, group.weight_decay)
        assert found.keys() == set(names.values())
        assert found["net.encoder._conv_stem.weight"] == (0.1, 0.02)
        assert found["net.encoder._bn0.weight"] == (0.1, 0.0)
        assert found["net.head.weight"] == (1.0, 0.02)
        assert found["net.head.bias"] == (1.0, 0.0)

    def test_each_step_has_its_scale(self, monkeypatch: pytest.MonkeyPatch) -> None:
        task, seen = self.task(scales=(0.5, 1.0, 2.0)), []
        monkeypatch.setattr(
            "morphogen.segmenters.task.losses_of", lambda net, image, mask, seeds: seen.append((image, mask)) or {}
        )
        image = torch.rand(2, 3, 64, 64)
        mask = torch.randint(0, 3, (2, 64, 64))
        for step in range(4):
            task.loss({"image": image, "mask": mask, "seed": torch.arange(2)}, Progress(step, 9))
        assert [tuple(i.shape[-2:]) for i, _ in seen] == [(32, 32), (64, 64), (128, 128), (32, 32)]
        assert torch.equal(seen[1][0], image)
        assert torch.equal(seen[2][1], mask.repeat_interleave(2, 1).repeat_interleave(2, 2))
        assert torch.equal(seen[0][1], mask[:, 1::2, 1::2])  # the nearest pixel's label, never a mixture

    def test_every_image_takes_the_colours_of_one_drawn_by_its_seed(self) -> None:
        from morphogen.data.colour_exchange import exchange_colour

        task = self.task(colour_exchange=True, augmentation="none")
        batch = task.batch([Draw(1, seed) for seed in range(12)])
        images = [image for image, _ in task.val.pairs]  # type: ignore[attr-defined]
        expected = [exchange_colour(images[1], other) / 127.5 - 1 for other in images]
        which = [
            next(k for k, e in enumerate(expected) if np.allclose(row.numpy(), e, atol=1e-5)) for row in batch["image"]
        ]
        assert set(which) == {0, 1, 2}
        again = task.batch([Draw(1, 5)])["image"][0]
        assert torch.equal(again, batch["image"][5])

    def test_last_weights_are_kept_beside_the_best(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pairs, seen = PhantomPairs(4), {}

        def validate(self: SegmenterTask, step: int) -> dict[str, float]:
            seen[step] = {k: v.clone() for k, v in self.net.state_dict().items()}
            return {"score": 1.0 if step == 2 else 0.0}

        monkeypatch.setattr(SegmenterTask, "validate", validate)
        run = train_segmenter("unet", pairs, pairs, replace(QUICK, keep_last=True), tmp_path / "run")
        assert same(load_file(run / "last" / "model.safetensors"), seen[4])
        assert same(final_weights(run), seen[2])
        assert load_segmenter(run / "last").hash != load_segmenter(run).hash

    def test_sgd_trains_and_resume(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        config = replace(QUICK, optimizer="sgd", lr_scheduler="halving", lr=0.05, max_grad_value=0.5)
        pairs = PhantomPairs(4)
        whole = final_weights(train_segmenter("unet", pairs, pairs, config, tmp_path / "whole"))
        power_cut_at_the_fourth(monkeypatch)
        with pytest.raises(WorkError):
            train_segmenter("unet", pairs, pairs, config, tmp_path / "cut")
        assert same(final_weights(train_segmenter("unet", pairs, pairs, config, tmp_path / "cut")), whole)

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"scales": ()}, "--scales"),
            ({"scales": (1.0, -1.0)}, "--scales"),
            ({"momentum": float("nan")}, "--momentum nan: must be 0 or more"),
            ({"mixed_precision": "fp8"}, "--mixed-precision fp8: choose no or bf16 or fp16"),
            ({"lr": -1}, "--lr -1: must be positive"),
        ],
    )
    def test_impossible_values(self, change: dict, said: str) -> None:
        with pytest.raises(InputError, match=said):
            replace(QUICK, **change)
