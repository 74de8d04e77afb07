"""How a classifier is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from morphogen.errors import InputError
from morphogen.training.supervised import SupervisedConfig

SELECTIONS = ("macro_f1", "balanced_accuracy")


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig(SupervisedConfig):
    """How to train a classifier; normalisation layers and biases do not decay.

    Attributes:
        classes: The classes in their order; where empty, the labels of the training records, sorted.
        class_balance: Exponent of class-balanced sampling: a row is of class c with a probability proportional to
            n_c^(1 - class_balance), n_c its training records. 0 takes the data as they are, each record once an epoch;
            1 draws every class equally often.
        weighting: Exponent of the classes' weights in the loss, (N / (K n_c))^weighting: 0 weighs all rows alike, 1
            all classes.
        select_by: Score on the validation part that chooses the weights that are kept: ``macro_f1`` or
            ``balanced_accuracy``.
        ema_decay: Moving average of the trained weights, which is what is validated and kept; 0 for none.

    Raises:
        InputError: A value is out of range.
    """

    classes: tuple[str, ...] = ()
    class_balance: float = 0.0
    weighting: float = 0.0
    select_by: Literal["macro_f1", "balanced_accuracy"] = "macro_f1"
    ema_decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for option in ("class_balance", "weighting"):
            if not 0 <= getattr(self, option) <= 1:
                raise InputError(f"--{option.replace('_', '-')} {getattr(self, option)}: must lie in 0 to 1")
        self._one_of("select_by", SELECTIONS)
