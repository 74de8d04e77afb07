"""What training a network on labelled images takes, whether their labels are masks or classes."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from torch import nn

from morphogen.data.records import Dataset
from morphogen.errors import InputError
from morphogen.training.optim import SCHEDULES
from morphogen.training.task import Group, LoopConfig


@dataclass(frozen=True, kw_only=True)
class SupervisedConfig:
    """How to train; the words are those of the training loop.

    Attributes:
        architecture: Options of the network (for ``unet``: ``{"encoder": "lite0"}``).
        augmentation: ``geometric`` (see `morphogen.data.augment`) or ``none``.
        max_train_steps: Optimiser steps.
        train_batch_size: Rows per optimiser step.
        gradient_accumulation_steps: Parts that a batch is worked off in.
        mixed_precision: ``no``, ``bf16`` or ``fp16``.
        optimizer: ``adamw``, ``adamw8bit`` or ``sgd`` (Nesterov).
        lr: Peak learning rate; None for the network's own, of its line in the table.
        encoder_lr_scale: Factor on it for the encoder's parameters.
        weight_decay: AdamW's decoupled weight decay; SGD's L2 penalty.
        lr_scheduler: What follows the warm-up: ``constant``, ``cosine`` or ``linear`` to zero, ``poly`` (power 0.9),
            ``halving`` (at half and at three quarters of the steps), or ``drop`` (to a tenth for the last fifth).
        lr_warmup_steps: Steps in which the learning rate grows from 0; None for a tenth of all, 50 at most.
        max_grad_norm: The gradient is shortened to this norm; 0 for never.
        ema_decay: Moving average of the trained weights, which is what is validated and kept; 0 for none, None for the
            network's own, of its line in the table.
        seed: Seed of initialisation, order and augmentation.
        checkpointing_steps: Steps between checkpoints.
        validation_steps: Steps between looks at the validation part; the best look is what is kept.
        keep_last: Keep the last weights too, in the run's ``last`` folder.

    Raises:
        InputError: A value is out of range.
    """

    architecture: Mapping[str, Any] = field(default_factory=dict)
    augmentation: Literal["none", "geometric"] = "geometric"
    max_train_steps: int = 400
    train_batch_size: int = 16
    gradient_accumulation_steps: int = 1
    mixed_precision: str = "no"
    optimizer: str = "adamw"
    lr: float | None = None
    encoder_lr_scale: float = 1.0
    weight_decay: float = 1e-2
    lr_scheduler: str = "cosine"
    lr_warmup_steps: int | None = None
    max_grad_norm: float = 1.0
    ema_decay: float | None = None
    seed: int = 0
    checkpointing_steps: int = 200
    validation_steps: int = 50
    keep_last: bool = False

    def __post_init__(self) -> None:
        self.loop()  # refuses what it cannot do
        self._positive("lr", "encoder_lr_scale")
        self._not_negative("weight_decay", "lr_warmup_steps", "max_grad_norm", "validation_steps")
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise InputError(f"--ema-decay {self.ema_decay}: must lie in 0 to 1, 1 excluded")
        self._one_of("augmentation", ("none", "geometric"))
        self._one_of("lr_scheduler", tuple(SCHEDULES))

    def loop(self) -> LoopConfig:
        """The training loop's part of it."""
        return LoopConfig(
            max_train_steps=self.max_train_steps,
            train_batch_size=self.train_batch_size,
            gradient_accumulation_steps=self.gradient_accumulation_steps,
            mixed_precision=self.mixed_precision,
            optimizer=self.optimizer,
            max_grad_norm=self.max_grad_norm,
            ema_decay=self.ema_decay or 0.0,
            seed=self.seed,
            checkpointing_steps=self.checkpointing_steps,
            validation_steps=self.validation_steps,
            keep_best=True,
            keep_last=self.keep_last,
        )

    @property
    def warmup(self) -> int:
        """Steps of it, stated or not."""
        return min(50, self.max_train_steps // 10) if self.lr_warmup_steps is None else self.lr_warmup_steps

    def _positive(self, *options: str) -> None:
        for option in options:
            value = getattr(self, option)
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"{_flag(option)} {value}: must be positive")

    def _not_negative(self, *options: str) -> None:
        for option in options:
            value = getattr(self, option)
            if value is not None and not 0 <= value < math.inf:
                raise InputError(f"{_flag(option)} {value}: must be 0 or more")

    def _one_of(self, option: str, known: Sequence[str]) -> None:
        if getattr(self, option) not in known:
            raise InputError(f"{_flag(option)} {getattr(self, option)}: choose {' or '.join(known)}")


def _flag(option: str) -> str:
    return f"--{option.replace('_', '-')}"


class Source(Protocol):
    """What trains and validates: a dataset, read at one resolution."""

    dataset: Dataset
    resolution: int

    def __len__(self) -> int: ...


def one_resolution(sources: Sequence[Source]) -> int:
    """The resolution of all sources, in px.

    Raises:
        InputError: They have several.
    """
    first = sources[0]
    for source in sources:
        if source.resolution != first.resolution:
            raise InputError(
                f"{source.dataset.root}: is read at {source.resolution} px, {first.dataset.root} at "
                f"{first.resolution} px; train on one resolution"
            )
    return first.resolution


def digest(sources: Sequence[Source], rows: Sequence[Any]) -> dict[str, Any]:
    """How many items the sources have, and a hash of them in order: a run is not continued on other data.

    Args:
        sources: They.
        rows: What tells the items of each source from others.
    """
    return {"n": sum(map(len, sources)), "ids": hash_of(rows)}


def hash_of(rows: Sequence[Any]) -> str:
    """16 hexadecimal digits for what JSON can hold."""
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


def parameter_groups(net: nn.Module, config: SupervisedConfig, norm_decay: bool) -> list[Group]:
    """The parameters that are trained, by learning rate and decay.

    Args:
        net: What lies in a part named ``encoder`` has the encoder's learning rate.
        config: Learning rates and decay.
        norm_decay: Whether normalisation layers and biases, whose parameters have one axis, decay too. A parameter
            that says ``no_decay = True`` never does.
    """
    members: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in net.named_parameters():
        if not parameter.requires_grad:
            continue
        scale = config.encoder_lr_scale if ".encoder." in f".{name}" else 1.0
        kept = getattr(parameter, "no_decay", False) or not (norm_decay or parameter.ndim > 1)
        decay = 0.0 if kept else config.weight_decay
        members.setdefault((scale, decay), []).append(parameter)
    return [Group(parameters, scale, decay) for (scale, decay), parameters in members.items()]
