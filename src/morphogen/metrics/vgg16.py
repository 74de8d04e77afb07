"""VGG16's thirteen convolutions (Simonyan and Zisserman, 2015; configuration D, no batch norm)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from morphogen.metrics.weights import load_member

STRIDE = 16
"""At height and width that are multiples of this every pooling halves exactly; at others it floors."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Input normalisation of the ImageNet weights, for RGB in [0, 1]."""
CHANNELS = (64, 128, 256, 512, 512)
"""Channels of the features at strides 1, 2, 4, 8, 16."""
_REPEATS = (2, 2, 3, 3, 3)


class Vgg16Features(nn.Module):
    """Convolutions of VGG16; the features are taken before each pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList()
        inputs = 3
        for repeats, channels in zip(_REPEATS, CHANNELS, strict=True):
            for _ in range(repeats):
                self.convs.append(nn.Conv2d(inputs, channels, 3, padding=1))
                inputs = channels

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features relu1_2, relu2_2, relu3_3, relu4_3, relu5_3.

        Args:
            x: (B, 3, H, W), normalised by `MEAN` and `STD`, H and W at least 16.

        Returns:
            Five tensors with the channels of `CHANNELS`, finest first; the k-th from 0 is floor(H / 2^k) high.
        """
        taps = []
        convs = iter(self.convs)
        for level, repeats in enumerate(_REPEATS):
            if level:
                x = F.max_pool2d(x, 2)
            for _ in range(repeats):
                x = F.relu(next(convs)(x))
            taps.append(x)
        return taps


def state_dict_from_flax(tree: Mapping[str, Any], trunk: str = "VGG16_0") -> dict[str, Tensor]:
    """Flax's ``trunk/Conv_i/{kernel (h, w, in, out), bias (out,)}`` -> ``convs.i.{weight (out, in, h, w), bias}``."""
    layers = tree[trunk]
    state = {}
    for name, layer in layers.items():
        index = int(name.removeprefix("Conv_"))
        state[f"convs.{index}.weight"] = torch.tensor(layer["kernel"]).permute(3, 2, 0, 1).contiguous()
        state[f"convs.{index}.bias"] = torch.tensor(layer["bias"])
    return state


def vgg16_encoder(pretrained: bool) -> Vgg16Features:
    """The encoder, with ImageNet weights or freshly initialised.

    Raises:
        InputError: The package that carries the weights is not installed.
    """
    trunk = Vgg16Features()
    if pretrained:
        trunk.load_state_dict(state_dict_from_flax(load_member("vgg16")), strict=True)
    return trunk
