"""Hint encoders: from a hint image at pixel resolution to the latent grid.

Both end in a zero-initialised convolution, so that an untrained hint changes nothing (ControlNet, section 3.1).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1)


def zero_conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    layer = conv3x3(inputs, outputs)
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class Residual(nn.Module):
    """silu(x + conv(silu(conv(x)))), without normalisation (Siamese-Diffusion, Fig. 2c)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = conv3x3(channels, channels), conv3x3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x + self.second(F.silu(self.first(x))))


class PatchMerging(nn.Module):
    """Half the resolution, twice the channels: 2 x 2 neighbours -> LayerNorm(4d) -> Linear(4d -> 2d) (Liu et al. 2021).

    Neighbours are gathered in the order (even, even), (odd row, even column), (even, odd), (odd, odd).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduction = nn.Linear(4 * channels, 2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, d, H, W) with even H and W -> (B, 2d, H/2, W/2)."""
        x = x.permute(0, 2, 3, 1)
        parts = [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]]
        return self.reduction(self.norm(torch.cat(parts, dim=-1))).permute(0, 3, 1, 2)


class DenseHint(nn.Sequential):
    """Dense Hint Input (Siamese-Diffusion, section 3.3 and Fig. 2c).

    Two stages at full resolution, then one merge and one stage for each halving. At the width of Stable Diffusion 1.5
    (`width` 16, three merges, 320 outputs) it has 3,263,872 parameters.

    Args:
        outputs: Channels of the U-Net's first convolution.
        merges: log2 of the autoencoder's factor.
        width: Channels of the first stage.
        channels: Channels of the hint image.
    """

    def __init__(self, outputs: int, merges: int = 3, width: int = 16, channels: int = 3) -> None:
        layers: list[nn.Module] = [
            conv3x3(channels, width),
            Residual(width),
            conv3x3(width, 2 * width),
            Residual(2 * width),
        ]
        d = 2 * width
        for _ in range(merges):
            layers += [PatchMerging(d), conv3x3(2 * d, 2 * d), Residual(2 * d)]
            d *= 2
        super().__init__(*layers, zero_conv3x3(d, outputs))
