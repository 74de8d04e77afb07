"""Res2Net in its variant v1b: a bottleneck whose 3 x 3 convolution is a cascade over channel groups.

Gao et al., "Res2Net: A New Multi-scale Backbone Architecture" (TPAMI 2019, arXiv:1904.01169). v1b has the stem and the
pooled shortcuts of ResNet-D (He et al., CVPR 2019): three 3 x 3 convolutions instead of one of 7 x 7, and average
pooling before the 1 x 1 convolution of a shortcut that strides. Names of modules are those of timm's ``res2net50d``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CHANNELS = (256, 512, 1024, 2048)
"""Channels of the features at strides 4, 8, 16, 32."""
_GROUPS, _GROUP_WIDTH, _EXPANSION = 4, 26, 4


class Bottle2neck(nn.Module):
    """1 x 1, four groups of channels of which three are convolved 3 x 3, 1 x 1; residual.

    With x_i the groups: y_1 = conv(x_1), y_i = conv(x_i + y_(i-1)) for i = 2, 3, y_4 = x_4. The first block of a stage
    has no cascade, y_i = conv(x_i), and pools x_4, since its groups change size.
    """

    def __init__(self, inputs: int, planes: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        width, outputs = planes * _GROUP_WIDTH // 64, planes * _EXPANSION
        self.conv1 = nn.Conv2d(inputs, width * _GROUPS, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width * _GROUPS)
        self.convs = nn.ModuleList(
            nn.Conv2d(width, width, 3, stride, padding=1, bias=False) for _ in range(_GROUPS - 1)
        )
        self.bns = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(_GROUPS - 1))
        self.conv3 = nn.Conv2d(width * _GROUPS, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = downsample
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, 4 planes, H / stride, W / stride), rounded up."""
        *groups, last = F.relu(self.bn1(self.conv1(x))).chunk(_GROUPS, dim=1)
        first = self.downsample is not None
        ys: list[Tensor] = []
        for group, conv, norm in zip(groups, self.convs, self.bns, strict=True):
            ys.append(F.relu(norm(conv(group if first or not ys else group + ys[-1]))))
        ys.append(F.avg_pool2d(last, 3, self.stride, padding=1) if first else last)
        y = self.bn3(self.conv3(torch.cat(ys, dim=1)))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class Res2Net(nn.Module):
    """The trunk, without classifier; ``blocks = (3, 4, 6, 3)`` is Res2Net-50 (23,669,352 parameters)."""

    def __init__(self, blocks: Sequence[int] = (3, 4, 6, 3)) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(
            nn.Conv2d(3, 32, 3, 2, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1, bias=False),
        )
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = _stage(64, 64, blocks[0], stride=1)
        self.layer2 = _stage(256, 128, blocks[1], stride=2)
        self.layer3 = _stage(512, 256, blocks[2], stride=2)
        self.layer4 = _stage(1024, 512, blocks[3], stride=2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features at strides 4, 8, 16 and 32.

        Args:
            x: (B, 3, H, W), normalised by ImageNet's mean and standard deviation; any H and W.

        Returns:
            Four tensors with the channels of `CHANNELS`, finest first, sides rounded up.
        """
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, padding=1)
        levels = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            levels.append(x)
        return levels


def _stage(inputs: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
    """`blocks` bottlenecks, the first of which changes channels and size."""
    outputs = planes * _EXPANSION
    pool = nn.AvgPool2d(2, stride, ceil_mode=True, count_include_pad=False) if stride > 1 else nn.Identity()
    shortcut = nn.Sequential(pool, nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
    rest = (Bottle2neck(outputs, planes, 1, None) for _ in range(blocks - 1))
    return nn.Sequential(Bottle2neck(inputs, planes, stride, shortcut), *rest)
