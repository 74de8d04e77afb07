"""How a classifier is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from morphogen.errors import InputError
from morphogen.training.optim import SCHEDULES
from morphogen.training.task import LoopConfig

SELECTIONS = ("macro_f1", "balanced_accuracy")


@dataclass(frozen=True)
class ClassifierConfig:
    """How to train a classifier; the words are those of the training loop.

    Attributes:
        architecture: Options of the classifier (for ``lite0``: ``{"weights": "imagenet"}``).
        classes: The classes in their order; where empty, the labels of the training records, sorted.
        augmentation: ``geometric`` (see `morphogen.data.augment`) or ``none``.
        balance: Exponent of class-balanced sampling: a row is of class c with a probability proportional to
            n_c^(1 - balance), n_c its training records. 0 takes the data as they are, each record once an epoch; 1
            draws every class equally often.
        weighting: Exponent of the classes' weights in the loss, (N / (K n_c))^weighting: 0 weighs all rows alike, 1
            all classes.
        select_by: Score on the validation part that chooses the weights that are kept: ``macro_f1`` or
            ``balanced_accuracy``.
        max_train_steps: Optimiser steps.
        train_batch_size: Rows per optimiser step.
        gradient_accumulation_steps: Parts that a batch is worked off in.
        mixed_precision: ``no``, ``bf16`` or ``fp16``.
        optimizer: ``adamw``, ``adamw8bit`` or ``sgd`` (Nesterov).
        lr: Peak learning rate; None for the classifier's own (`ClassifierEntry.lr`).
        encoder_lr_scale: Factor on it for all but the last layer.
        weight_decay: AdamW's decoupled weight decay; SGD's L2 penalty. Normalisation layers and biases have none.
        lr_scheduler: What follows the warm-up: ``constant``, ``cosine`` or ``linear`` to zero, ``poly`` (power 0.9), or
            ``halving`` (at half and at three quarters of the steps).
        lr_warmup_steps: Steps in which the learning rate grows from 0; None for a tenth of all, 50 at most.
        max_grad_norm: The gradient is shortened to this norm; 0 for never.
        ema_decay: Moving average of the trained weights, which is what is validated and kept; 0 for none.
        seed: Seed of initialisation, order and augmentation.
        checkpointing_steps: Steps between checkpoints.
        validation_steps: Steps between looks at the validation part; the best look is what is kept.
        keep_last: Keep the last weights too, in the run's ``last`` folder.

    Raises:
        InputError: A value is out of range.
    """

    architecture: Mapping[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    augmentation: Literal["none", "geometric"] = "geometric"
    balance: float = 0.0
    weighting: float = 0.0
    select_by: Literal["macro_f1", "balanced_accuracy"] = "macro_f1"
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
    ema_decay: float = 0.0
    seed: int = 0
    checkpointing_steps: int = 200
    validation_steps: int = 50
    keep_last: bool = False

    def __post_init__(self) -> None:
        self.loop()  # refuses what it cannot do
        for option in ("lr", "encoder_lr_scale"):
            value = getattr(self, option)
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"{_flag(option)} {value}: must be positive")
        for option in ("weight_decay", "lr_warmup_steps", "max_grad_norm", "validation_steps"):
            value = getattr(self, option)
            if value is not None and not 0 <= value < math.inf:
                raise InputError(f"{_flag(option)} {value}: must be 0 or more")
        for option in ("balance", "weighting"):
            if not 0 <= getattr(self, option) <= 1:
                raise InputError(f"{_flag(option)} {getattr(self, option)}: must lie in 0 to 1")
        if not 0 <= self.ema_decay < 1:
            raise InputError(f"--ema-decay {self.ema_decay}: must lie in 0 to 1, 1 excluded")
        choices: dict[str, Sequence[str]] = {
            "augmentation": ("none", "geometric"),
            "select_by": SELECTIONS,
            "lr_scheduler": tuple(SCHEDULES),
        }
        for option, known in choices.items():
            if getattr(self, option) not in known:
                raise InputError(f"{_flag(option)} {getattr(self, option)}: choose {' or '.join(known)}")

    def loop(self) -> LoopConfig:
        """The training loop's part of it."""
        return LoopConfig(
            max_train_steps=self.max_train_steps,
            train_batch_size=self.train_batch_size,
            gradient_accumulation_steps=self.gradient_accumulation_steps,
            mixed_precision=self.mixed_precision,
            optimizer=self.optimizer,
            max_grad_norm=self.max_grad_norm,
            ema_decay=self.ema_decay,
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


def _flag(option: str) -> str:
    return f"--{option.replace('_', '-')}"
