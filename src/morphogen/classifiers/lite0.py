"""EfficientNet-Lite0 as a classifier of medical images: ImageNet's network with another last layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from morphogen.errors import InputError
from morphogen.metrics import lite0

Weights = Literal["imagenet", "none"]
_DROPOUT = 0.2
_EMBEDDING = 1280


@dataclass(frozen=True)
class Lite0Config:
    """Where the network starts.

    Attributes:
        weights: ``imagenet`` for the published weights, ``none`` for a random start.

    Raises:
        InputError: Neither of these.
    """

    weights: Weights = "imagenet"

    def __post_init__(self) -> None:
        if self.weights not in get_args(Weights):
            raise InputError(f"lite0: weights {self.weights!r}: choose one of {', '.join(get_args(Weights))}")


class Lite0Classifier(nn.Module):
    """The embedding of EfficientNet-Lite0, dropout and a linear layer."""

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: lite0.Lite0, n_classes: int) -> None:
        super().__init__()
        encoder._fc = nn.Identity()  # type: ignore[assignment]  # ImageNet's classes
        self.encoder = encoder
        self.dropout = nn.Dropout(_DROPOUT)
        self.head = nn.Linear(_EMBEDDING, n_classes)
        self.register_buffer("mean", torch.tensor(lite0.MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(lite0.STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, R, R) in [-1, 1], R a multiple of 32 -> (B, K) logits."""
        # channels last: a third faster on a CPU; only the input, so that parameters and optimiser state stay contiguous
        image = ((image * 0.5 + 0.5 - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        return self.head(self.dropout(self.encoder.embed(image)))


def build(n_classes: int, config: Lite0Config, pretrained: bool = True) -> nn.Module:
    """The network of a config.

    Args:
        n_classes: K.
        config: Where it starts.
        pretrained: Load the published weights where the config asks for them; False where trained weights follow.

    Raises:
        InputError: The package that carries the weights is not installed.
    """
    published = pretrained and config.weights == "imagenet"
    return Lite0Classifier(lite0.pretrained_lite0() if published else lite0.Lite0(), n_classes)
