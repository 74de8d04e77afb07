"""A small convolutional network that learns from scratch on a CPU."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from morphogen.errors import InputError

_DROPOUT = 0.2


@dataclass(frozen=True)
class SmallConfig:
    """Architecture of the small network.

    Attributes:
        width: Channels of the first of four stages; each stage has twice as many as the one before.

    Raises:
        InputError: The width is not positive.
    """

    width: int = 16

    def __post_init__(self) -> None:
        if self.width < 1:
            raise InputError(f"small: width {self.width}: must be positive")


class SmallNet(nn.Module):
    """Four stages, each a convolution of stride 2 and one of stride 1; mean and maximum over the image; a linear layer.

    Batch normalisation keeps how an image differs from others in its colours, which normalisation within the image
    would take away. The maximum keeps what is small in the image.
    """

    def __init__(self, width: int, n_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for outputs in (width, 2 * width, 4 * width, 8 * width):
            layers += [*_convolution(inputs, outputs, 2), *_convolution(outputs, outputs, 1)]
            inputs = outputs
        self.encoder = nn.Sequential(*layers)
        self.dropout = nn.Dropout(_DROPOUT)
        self.head = nn.Linear(2 * inputs, n_classes)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, R, R) in [-1, 1] -> (B, K) logits."""
        features = self.encoder(image)
        pooled = torch.cat([features.mean(dim=(2, 3)), features.amax(dim=(2, 3))], dim=1)
        return self.head(self.dropout(pooled))


def _convolution(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    ]


def build(n_classes: int, config: SmallConfig, pretrained: bool = True) -> nn.Module:
    """The network of a config, from random weights.

    Args:
        n_classes: K.
        config: Its width.
        pretrained: Changes nothing: there are no published weights.
    """
    return SmallNet(config.width, n_classes)
