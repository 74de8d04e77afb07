"""V-Net for images and volumes: the convolutional network, and with a time embedding the denoiser, of Diff-CL.

Five levels of plain 3 x 3 (x 3) convolutions, strided convolutions between them, skips that are added (Milletari et
al., 3DV 2016, arXiv:1606.04797, in the form without residual blocks that semi-supervised work has used since Yu et al.,
UA-MT, MICCAI 2019, arXiv:1907.07034).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from morphogen.errors import InputError
from morphogen.segmenters.diffcl.hfm import HFMConfig, HighFrequencyModule

ENCODER_CONVS, DECODER_CONVS = (1, 2, 3, 3, 3), (3, 3, 2, 1)
MULTIPLE = 2 ** (len(ENCODER_CONVS) - 1)
"""Sides have to be multiples of it."""
TIME_WIDTH, TIME_HIDDEN = 128, 512

Norm = Literal["batch", "instance"]
_CONV = {2: nn.Conv2d, 3: nn.Conv3d}
_UP = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_DROP = {2: nn.Dropout2d, 3: nn.Dropout3d}
_NORM = {
    ("batch", 2): nn.BatchNorm2d,
    ("batch", 3): nn.BatchNorm3d,
    ("instance", 2): nn.InstanceNorm2d,
    ("instance", 3): nn.InstanceNorm3d,
}


@dataclass(frozen=True)
class VNetConfig:
    """Shape of a V-Net.

    Attributes:
        dims: Axes of what it sees: 2 for images, 3 for volumes.
        in_channels: Of the image.
        n_classes: K, background included.
        filters: Channels of the first level; they double at each of the four others.
        norm: ``batch`` or ``instance``.
        hfm: Levels, counted from 1, whose skip has a high-frequency module; none for the plain network.
        high_frequency: What these modules are like.
        denoiser: Takes x_t beside the image, and the time t.
        dropout: Of whole channels: after the coarsest and the last level; of a denoiser after every convolution.
    """

    dims: int = 3
    in_channels: int = 1
    n_classes: int = 2
    filters: int = 16
    norm: Norm = "batch"
    hfm: tuple[int, ...] = ()
    high_frequency: HFMConfig = field(default_factory=HFMConfig)
    denoiser: bool = False
    dropout: float = 0.5

    def __post_init__(self) -> None:
        if self.dims not in _CONV:
            raise InputError(f"diffcl: dims {self.dims}: choose 2 (images) or 3 (volumes)")
        if min(self.filters, self.in_channels) < 1 or self.n_classes < 2:
            raise InputError(f"diffcl: filters {self.filters}, classes {self.n_classes}: need 1 and 2 at least")
        if not 0 <= self.dropout < 1:
            raise InputError(f"diffcl: dropout {self.dropout}: must lie in 0 to 1, 1 excluded")
        if self.norm not in ("batch", "instance"):
            raise InputError(f"diffcl: norm {self.norm}: choose batch or instance")
        if not set(self.hfm) <= set(range(1, len(ENCODER_CONVS))):
            raise InputError(f"diffcl: hfm {self.hfm}: levels whose skip has a module are 1 to {len(DECODER_CONVS)}")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the five levels."""
        return tuple(self.filters * 2**level for level in range(len(ENCODER_CONVS)))


class _Unit(nn.Module):
    """A convolution with its normalisation and ReLU; in a denoiser ReLU comes first, then dropout and the time."""

    def __init__(self, conv: nn.Module, width: int, config: VNetConfig, timed: bool) -> None:
        super().__init__()
        self.conv = conv
        self.norm = _NORM[config.norm, config.dims](width)
        self.denoiser = config.denoiser
        self.drop = _DROP[config.dims](config.dropout) if config.denoiser else nn.Identity()
        self.time = nn.Linear(TIME_HIDDEN, width) if config.denoiser and timed else None

    def forward(self, x: Tensor, time: Tensor | None) -> Tensor:
        x = self.conv(x)
        if not self.denoiser:
            return F.relu(self.norm(x), inplace=True)
        x = self.drop(self.norm(F.relu(x)))
        if self.time is None or time is None:
            return x
        return x + self.time(F.silu(time))[(..., *[None] * (x.ndim - 2))]


class _Block(nn.Module):
    """Some convolutions of one width; the time enters after all but the last."""

    def __init__(self, inputs: int, width: int, convs: int, config: VNetConfig) -> None:
        super().__init__()
        conv = _CONV[config.dims]
        self.units = nn.ModuleList(
            _Unit(conv(inputs if i == 0 else width, width, 3, padding=1), width, config, timed=i < convs - 1)
            for i in range(convs)
        )

    def forward(self, x: Tensor, time: Tensor | None) -> Tensor:
        for unit in self.units:
            x = unit(x, time)
        return x


class VNet(nn.Module):
    """``(B, C, *S) -> (B, K, *S)`` logits, sides multiples of 16; a denoiser takes (B, C + K, *S) and t."""

    def __init__(self, config: VNetConfig) -> None:
        super().__init__()
        self.config = config
        widths, conv, up = config.widths, _CONV[config.dims], _UP[config.dims]
        inputs = config.in_channels + config.n_classes * config.denoiser
        self.encoder = nn.ModuleList(
            _Block(inputs if level == 0 else width, width, ENCODER_CONVS[level], config)
            for level, width in enumerate(widths)
        )
        self.downs = nn.ModuleList(_Unit(conv(a, b, 2, stride=2), b, config, timed=True) for a, b in pairwise(widths))
        coarse_first = tuple(reversed(widths))
        self.ups = nn.ModuleList(_Unit(up(a, b, 2, stride=2), b, config, timed=True) for a, b in pairwise(coarse_first))
        self.decoder = nn.ModuleList(
            _Block(width, width, DECODER_CONVS[i], config) for i, width in enumerate(coarse_first[1:])
        )
        self.hfm = nn.ModuleDict(
            {
                str(level): HighFrequencyModule(widths[level - 1], config.dims, config.high_frequency)
                for level in sorted(config.hfm)
            }
        )
        self.drop = nn.Identity() if config.denoiser else _DROP[config.dims](config.dropout)
        self.head = conv(config.filters, config.n_classes, 1)
        if config.denoiser:
            self.time = nn.Sequential(
                nn.Linear(TIME_WIDTH, TIME_HIDDEN), nn.SiLU(), nn.Linear(TIME_HIDDEN, TIME_HIDDEN)
            )

    def forward(self, x: Tensor, t: Tensor | None = None) -> Tensor:
        """Logits.

        Args:
            x: (B, C, *S) image; of a denoiser (B, C + K, *S), image and x_t.
            t: (B,) time step of a denoiser, 0..999.
        """
        logits: Tensor = self.head(self.features(x, t))
        return logits

    def features(self, x: Tensor, t: Tensor | None = None) -> Tensor:
        """(B, filters, *S): what the last decoder level says, which the 1 x 1 head reads."""
        time = self.time(time_embedding(t)) if self.config.denoiser and t is not None else None
        skips = []
        for level, block in enumerate(self.encoder):
            x = block(x if level == 0 else self.downs[level - 1](x, time), time)
            skips.append(x)
        x = self.drop(skips.pop())
        for up, block in zip(self.ups, self.decoder, strict=True):
            name = str(len(skips))
            skip = skips.pop()
            x = block(up(x, time) + (self.hfm[name](skip) if name in self.hfm else skip), time)
        return self.drop(x)


def time_embedding(t: Tensor) -> Tensor:
    """(B,) time steps -> (B, 128): sines, then cosines, of t / 10000^(i / 63) (Ho et al. 2020, arXiv:2006.11239)."""
    half = TIME_WIDTH // 2
    rates = torch.exp(-math.log(10_000) / (half - 1) * torch.arange(half, device=t.device))
    angles = t.float()[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def build(settings: Mapping[str, Any]) -> VNet:
    """A V-Net from what a config file holds of its `VNetConfig`."""
    values = dict(settings)
    modules = values.pop("high_frequency", {})
    hfm = tuple(values.pop("hfm", ()))
    return VNet(VNetConfig(**values, hfm=hfm, high_frequency=HFMConfig(**modules)))
