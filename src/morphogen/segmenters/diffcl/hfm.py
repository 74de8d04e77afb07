"""The high-frequency Mamba module: attention to boundaries and detail, by sequences over the whole grid."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from morphogen.errors import InputError
from morphogen.segmenters.diffcl.high_frequency import fft_high, haar_high, laplacian_high
from morphogen.segmenters.diffcl.mamba import Mamba
from morphogen.segmenters.diffcl.scan_orders import scan_orders

Operator = Literal["fft", "haar", "laplacian"]
Mixer = Literal["mamba", "conv"]


@dataclass(frozen=True)
class HFMConfig:
    """Shape of a high-frequency module.

    Attributes:
        operator: What makes the high-frequency part: ``fft`` (Gaussian high-pass), ``haar`` (all wavelet bands but the
            lowest) or ``laplacian``.
        cut: Of ``fft``: its width in cycles per voxel.
        mixer: ``mamba`` over sequences of the whole grid, or ``conv``, one convolution of 3 x 3 (x 3) in its place.
        directions: Orders in which ``mamba`` passes the grid; None for all, 4 in 2D and 6 in 3D.
        state: N, numbers of a state of ``mamba``.
        expand: Its inner channels over its channels.
        conv: Tokens that its convolution sees.
    """

    operator: Operator = "fft"
    cut: float = 0.1
    mixer: Mixer = "mamba"
    directions: int | None = None
    state: int = 16
    expand: int = 2
    conv: int = 4

    def __post_init__(self) -> None:
        for name, value, known in (("operator", self.operator, Operator), ("mixer", self.mixer, Mixer)):
            if value not in get_args(known):
                raise InputError(
                    f"high-frequency module: has no {name} {value!r}; choose {' or '.join(get_args(known))}"
                )
        if not 0 < self.cut < math.inf:
            raise InputError(f"high-frequency module: cut={self.cut}: must be above 0")
        if self.directions is not None and not 1 <= self.directions <= 6:
            raise InputError(f"high-frequency module: directions={self.directions}: must lie in 1 to 6 (2D: 4)")
        for name, number in (("state", self.state), ("expand", self.expand), ("conv", self.conv)):
            if number < 1:
                raise InputError(f"high-frequency module: {name}={number}: must be 1 or more")


class HighFrequencyModule(nn.Module):
    """``out = f + gamma sigmoid(W m) f_h``, m what a Mamba makes of the high-frequency part f_h of the features f.

    After the high-frequency Mamba module of Diff-CL (Guo et al. 2025, arXiv:2503.09408), whose equations were not at
    hand: this form is our own reading of its description. m is the mean over the orders of `scan_orders` of one Mamba
    on the normalised tokens of f_h; all orders share its weights, so that with the whole set of orders the module's
    output is flipped with its input along all axes, and its axes are shifted cyclically with those of the input. gamma
    starts at 0, and the module as the identity.
    """

    def __init__(self, channels: int, dims: int, config: HFMConfig | None = None) -> None:
        """Random weights.

        Args:
            channels: C, of the features.
            dims: Their spatial axes, 2 or 3.
            config: None for the defaults.

        Raises:
            InputError: There are no such axes, or not so many directions for them.
        """
        super().__init__()
        self.config = config or HFMConfig()
        self.orders = scan_orders(dims, self.config.directions)
        self.norm = nn.LayerNorm(channels)
        conv = nn.Conv2d if dims == 2 else nn.Conv3d
        self.mixer: nn.Module = (
            Mamba(channels, self.config.state, self.config.expand, self.config.conv)
            if self.config.mixer == "mamba"
            else conv(channels, channels, 3, padding=1)
        )
        self.gate = conv(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(channels))

    def forward(self, f: Tensor) -> Tensor:
        """(B, C, *S) -> (B, C, *S), of f's type; any sizes."""
        high = self.high(f)
        gamma = self.gamma.view(-1, *(1 for _ in f.shape[2:]))
        return f + (gamma * self.gate(self.mixed(high)).sigmoid() * high).to(f.dtype)

    def high(self, f: Tensor) -> Tensor:
        """(B, C, *S) -> (B, C, *S), the high-frequency part."""
        if self.config.operator == "fft":
            return fft_high(f, self.config.cut)
        return haar_high(f) if self.config.operator == "haar" else laplacian_high(f)

    def mixed(self, high: Tensor) -> Tensor:
        """(B, C, *S) -> (B, C, *S), the mixer's output."""
        normed = self.norm(high.movedim(1, -1)).movedim(-1, 1)
        if self.config.mixer == "conv":
            return self.mixer(normed)
        # All orders in one batch: a scan of more rows has as many steps.
        tokens = self.mixer(torch.cat([order.flatten(normed) for order in self.orders]))
        parts = tokens.chunk(len(self.orders))
        shape = high.shape[2:]
        grids = [order.unflatten(part, shape) for order, part in zip(self.orders, parts, strict=True)]
        return torch.stack(grids).mean(dim=0)
