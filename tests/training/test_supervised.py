"""What trainings on labelled images share."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import pytest
from torch import nn

from morphogen.data.records import Dataset
from morphogen.errors import InputError
from morphogen.training.supervised import SupervisedConfig, digest, one_resolution, parameter_groups
from morphogen.training.task import LoopConfig


@dataclass
class Images:
    dataset: Dataset
    resolution: int
    n: int = 1

    def __len__(self) -> int:
        return self.n


def images(name: str, resolution: int = 32, n: int = 1) -> Images:
    return Images(Dataset(name, Path(name), ()), resolution, n)


class TestConfig:
    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"lr": -1.0}, "--lr -1.0: must be positive"),
            ({"lr": float("inf")}, "--lr inf: must be positive"),
            ({"encoder_lr_scale": 0.0}, "--encoder-lr-scale 0.0: must be positive"),
            ({"max_train_steps": 0}, "--max-train-steps 0: must be positive"),
            ({"train_batch_size": 2, "gradient_accumulation_steps": 3}, "--train-batch-size 2: fewer rows"),
            ({"weight_decay": float("nan")}, "--weight-decay nan: must be 0 or more"),
            ({"lr_warmup_steps": -1}, "--lr-warmup-steps -1: must be 0 or more"),
            ({"validation_steps": -1}, "--validation-steps -1: must be 0 or more"),
            ({"ema_decay": 1.0}, "--ema-decay 1.0: must lie in 0 to 1, 1 excluded"),
            ({"augmentation": "colour"}, "--augmentation colour: choose none or geometric"),
            ({"mixed_precision": "fp8"}, "--mixed-precision fp8: choose no"),
            ({"optimizer": "adam"}, "--optimizer adam: choose adamw or adamw8bit or sgd"),
            ({"lr_scheduler": "step"}, "--lr-scheduler step: choose constant or cosine"),
        ],
    )
    def test_impossible_values(self, change: dict, said: str) -> None:
        with pytest.raises(InputError, match=said):
            SupervisedConfig(**change)

    @pytest.mark.parametrize(
        ("steps", "stated", "warmup"), [(40, None, 4), (9, None, 0), (9000, None, 50), (40, 7, 7), (40, 0, 0)]
    )
    def test_warmup_is_a_tenth_up_to_fifty_steps_unless_stated(
        self, steps: int, stated: int | None, warmup: int
    ) -> None:
        assert SupervisedConfig(max_train_steps=steps, lr_warmup_steps=stated).warmup == warmup

    def test_loop_has_its_words_and_keeps_the_best(self) -> None:
        config = SupervisedConfig(
            max_train_steps=7, train_batch_size=6, gradient_accumulation_steps=3, mixed_precision="bf16",
            optimizer="sgd", max_grad_norm=0.5, ema_decay=0.9, seed=4, checkpointing_steps=2, validation_steps=3,
            keep_last=True,
        )  # fmt: skip
        assert config.loop() == LoopConfig(
            max_train_steps=7, train_batch_size=6, gradient_accumulation_steps=3, mixed_precision="bf16",
            optimizer="sgd", max_grad_norm=0.5, ema_decay=0.9, seed=4, checkpointing_steps=2, validation_steps=3,
            keep_last=True, keep_best=True,
        )  # fmt: skip
        assert SupervisedConfig().loop().ema_decay == 0


class TestGroups:
    @pytest.mark.parametrize(("norm_decay", "of_norms"), [(False, 0.0), (True, 0.02)])
    def test_encoder_and_parameters_of_one_axis_are_told_apart(self, norm_decay: bool, of_norms: float) -> None:
        encoder = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1))
        encoder[2].requires_grad_(False)
        net = nn.ModuleDict({"net": nn.ModuleDict({"encoder": encoder, "encoder_head": nn.Linear(4, 2)})})
        config = SupervisedConfig(encoder_lr_scale=0.1, weight_decay=0.02)
        names = {id(parameter): name for name, parameter in net.named_parameters()}
        groups = parameter_groups(net, config, norm_decay)
        found = {names[id(p)]: (g.lr_scale, g.weight_decay) for g in groups for p in g.parameters}
        assert found == {
            "net.encoder.0.weight": (0.1, 0.02),
            "net.encoder.0.bias": (0.1, of_norms),
            "net.encoder.1.weight": (0.1, of_norms),
            "net.encoder.1.bias": (0.1, of_norms),
            "net.encoder_head.weight": (1.0, 0.02),
            "net.encoder_head.bias": (1.0, of_norms),
        }


class TestSources:
    def test_one_resolution(self) -> None:
        assert one_resolution([images("a"), images("b")]) == 32
        with pytest.raises(InputError, match=r"^b: is read at 48 px, a at 32 px; train on one resolution$"):
            one_resolution([images("a"), images("b", 48)])

    def test_digest_counts_and_hashes_rows_in_their_order(self) -> None:
        """As run folders have had it since there are any: other bytes would refuse to continue them."""
        found = digest([images("a", n=2), images("b")], [("x", "y"), ("z",)])
        assert found == {"n": 3, "ids": hashlib.sha256(b'[["x", "y"], ["z"]]').hexdigest()[:16]}
        assert digest([images("a", n=2)], [("y", "x")])["ids"] != digest([images("a", n=2)], [("x", "y")])["ids"]
