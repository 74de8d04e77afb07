"""U-Net (Ronneberger et al., 2015) with an ImageNet encoder, or MONAI's from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from types import ModuleType
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from morphogen.errors import InputError
from morphogen.segmenters.any_size import AnySize

Encoder = Literal["auto", "scratch", "lite0", "vgg16"]
_ENCODERS = {"lite0": "morphogen.metrics.lite0", "vgg16": "morphogen.metrics.vgg16"}
_DECODER_WIDTHS = (128, 64, 48, 32, 16)
_SCRATCH_WIDTHS = (32, 32, 64, 128, 256, 32)
_SCRATCH_MULTIPLE = 32  # its stride is 16, but instance normalisation needs more than one pixel


@dataclass(frozen=True)
class UNetConfig:
    """Architecture of the U-Net.

    Attributes:
        encoder: ``lite0`` and ``vgg16`` start from ImageNet weights; ``scratch`` is MONAI's BasicUNet; ``auto`` is
            lite0 where its weights are installed, else scratch.
    """

    encoder: Encoder = "auto"

    def __post_init__(self) -> None:
        if self.encoder not in get_args(Encoder):
            raise InputError(f"unet: has no encoder {self.encoder!r}; choose one of {', '.join(get_args(Encoder))}")

    def resolved(self) -> UNetConfig:
        """The same with ``auto`` replaced by what this machine has."""
        if self.encoder != "auto":
            return self
        from morphogen.metrics.weights import available

        return replace(self, encoder="lite0" if available("lite0") else "scratch")


class _Up(nn.Module):
    """Doubles the resolution, joins the skip and convolves twice."""

    def __init__(self, inputs: int, skip: int, outputs: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels in (inputs + skip, outputs):
            layers += [nn.Conv2d(channels, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        self.convs = nn.Sequential(*layers)

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        """(B, inputs, H, W), (B, skip, 2H, 2W) -> (B, outputs, 2H, 2W)."""
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return self.convs(x if skip is None else torch.cat([x, skip], dim=1))


class EncoderUNet(nn.Module):
    """A U-Net decoder on an encoder that returns features finest first, each half the size of the one before."""

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: nn.Module, facts: ModuleType, n_classes: int) -> None:
        """Builds the decoder for `encoder`.

        Args:
            encoder: Returns the features of a normalised image.
            facts: The encoder's module: its ``CHANNELS``, ``STRIDE``, ``MEAN`` and ``STD``.
            n_classes: K, background included.
        """
        super().__init__()
        self.encoder = encoder
        channels: Sequence[int] = facts.CHANNELS
        finest = facts.STRIDE // 2 ** (len(channels) - 1)
        skips = [*reversed(channels[:-1]), *([0] if finest == 2 else [])]
        widths = [channels[-1], *_DECODER_WIDTHS[: len(skips)]]
        self.ups = nn.ModuleList(_Up(widths[i], skip, widths[i + 1]) for i, skip in enumerate(skips))
        self.head = nn.Conv2d(widths[-1], n_classes, 1)
        self.register_buffer("mean", torch.tensor(facts.MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(facts.STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1], H and W multiples of the encoder's stride -> (B, K, H, W) logits."""
        # channels last: a third faster on a CPU; only the input, so that parameters and optimiser state stay contiguous
        image = ((image * 0.5 + 0.5 - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        x, *skips = reversed(self.encoder(image))
        for i, up in enumerate(self.ups):
            x = up(x, skips[i] if i < len(skips) else None)
        return self.head(x)


def build(n_classes: int, config: UNetConfig, pretrained: bool = True) -> nn.Module:
    """The network of a resolved config: (B, 3, H, W) in [-1, 1] -> (B, n_classes, H, W) logits.

    Args:
        n_classes: K, background included.
        config: Its encoder must not be ``auto`` (see `UNetConfig.resolved`).
        pretrained: Load the encoder's ImageNet weights; False where trained weights follow.

    Raises:
        InputError: The package that carries the encoder's weights is not installed.
    """
    if config.encoder == "scratch":
        from monai.networks.nets import BasicUNet  # takes seconds to import

        net = BasicUNet(spatial_dims=2, in_channels=3, out_channels=n_classes, features=_SCRATCH_WIDTHS)
        return AnySize(net, _SCRATCH_MULTIPLE)
    facts = import_module(_ENCODERS[config.encoder])
    encoder = getattr(facts, f"{config.encoder}_encoder")(pretrained)
    return AnySize(EncoderUNet(encoder, facts, n_classes), facts.STRIDE)
