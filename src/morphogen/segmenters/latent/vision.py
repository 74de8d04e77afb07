"""What reads the image: tau, whose output stands beside the noisy latent of the mask."""

from __future__ import annotations

import copy

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional as F

from morphogen.metrics import lite0
from morphogen.segmenters.latent.networks import set_dropout

LITE0_CHANNELS = 32
"""Of tau where Lite0 reads the image: features of five levels do not fit into the few channels of a latent."""
_LATERAL = 64
_GROUPS = 8


class AutoencoderVision(nn.Module):
    """tau as published: the autoencoder's encoder, trained on, whose 2 z channels a new 1 x 1 convolution brings to z.

    The convolution starts at random; what it gives is neither sampled nor scaled.
    """

    multiple = 1

    def __init__(self, autoencoder: AutoencoderKL, dropout: float) -> None:
        super().__init__()
        z = autoencoder.config.latent_channels
        self.encoder = copy.deepcopy(autoencoder.encoder)
        self.quant_conv = copy.deepcopy(autoencoder.quant_conv) or nn.Identity()
        self.to_latent = nn.Conv2d(2 * z, z, 1)
        set_dropout(self.encoder, dropout)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, z, H / f, W / f)."""
        return self.to_latent(self.quant_conv(self.encoder(image)))


class Lite0Vision(nn.Module):
    """tau of ImageNet features: EfficientNet-Lite0's five levels, each brought to one width and to the latents' grid.

    Args:
        factor: f, pixels of a cell along one side.
        pretrained: Load the ImageNet weights.
    """

    multiple = lite0.STRIDE
    mean: Tensor
    std: Tensor

    def __init__(self, factor: int, pretrained: bool) -> None:
        super().__init__()
        self.factor = factor
        self.encoder = lite0.lite0_encoder(pretrained)
        self.laterals = nn.ModuleList(nn.Conv2d(channels, _LATERAL, 1) for channels in lite0.CHANNELS)
        self.norm = nn.GroupNorm(_GROUPS, _LATERAL)
        self.to_latent = nn.Conv2d(_LATERAL, LITE0_CHANNELS, 3, padding=1)
        with torch.device("cpu"):
            self.register_buffer("mean", torch.tensor(lite0.MEAN).view(1, 3, 1, 1), persistent=False)
            self.register_buffer("std", torch.tensor(lite0.STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1], H and W multiples of 32 -> (B, 32, H / f, W / f)."""
        grid = [side // self.factor for side in image.shape[-2:]]
        # channels last: depthwise convolutions are a third faster so on a CPU
        normalised = ((image * 0.5 + 0.5 - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        levels = self.encoder(normalised)
        found = [_at(lateral(level), grid) for lateral, level in zip(self.laterals, levels, strict=True)]
        return self.to_latent(F.silu(self.norm(torch.stack(found).sum(dim=0)))).contiguous()


def _at(level: Tensor, grid: list[int]) -> Tensor:
    """A level at the latents' grid: pooled where it is finer, interpolated where it is coarser."""
    if level.shape[-2] > grid[0]:
        return F.avg_pool2d(level, level.shape[-2] // grid[0])
    return F.interpolate(level, size=grid, mode="bilinear", align_corners=False)
