"""The three modules of Polyp-PVT's decoder: CFM, CIM and SAM, after Dong et al., arXiv:2108.06932."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH = 32
"""Channels of the decoder."""
_REDUCTION = 16
_STATES = 16
_SIDE = 4
"""Of the grid of nodes."""


class ConvNorm(nn.Sequential):
    """A convolution without bias and its normalisation; no activation follows."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(outputs))


def doubled(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, 2 H, 2 W), bilinear, corners on corners."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)


class CascadedFusion(nn.Module):
    """CFM: coarse levels gate the finer ones by products, and are joined to them."""

    def __init__(self) -> None:
        super().__init__()
        self.fourth_gates_third = ConvNorm(WIDTH, WIDTH, 3)
        self.fourth_gates_second = ConvNorm(WIDTH, WIDTH, 3)
        self.third_gates_second = ConvNorm(WIDTH, WIDTH, 3)
        self.fourth_joins = ConvNorm(WIDTH, WIDTH, 3)
        self.third_joins = ConvNorm(2 * WIDTH, 2 * WIDTH, 3)
        self.third_joined = ConvNorm(2 * WIDTH, 2 * WIDTH, 3)
        self.second_joined = ConvNorm(3 * WIDTH, 3 * WIDTH, 3)
        self.out = ConvNorm(3 * WIDTH, WIDTH, 3)

    def forward(self, fourth: Tensor, third: Tensor, second: Tensor) -> Tensor:
        """(B, 32, h, w), (B, 32, 2 h, 2 w), (B, 32, 4 h, 4 w) -> (B, 32, 4 h, 4 w)."""
        up = doubled(fourth)
        gated_third = self.fourth_gates_third(up) * third
        gated_second = self.fourth_gates_second(doubled(up)) * self.third_gates_second(doubled(third)) * second
        joined = self.third_joined(torch.cat([gated_third, self.fourth_joins(up)], dim=1))
        joined = self.second_joined(torch.cat([gated_second, self.third_joins(doubled(joined))], dim=1))
        return self.out(joined)


class CamouflageIdentification(nn.Module):
    """CIM: attention over channels, then over places (as in CBAM, Woo et al., ECCV 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, channels // _REDUCTION, 1, bias=False)
        self.excite = nn.Conv2d(channels // _REDUCTION, channels, 1, bias=False)
        self.places = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> the same."""
        pooled = (x.mean(dim=(2, 3), keepdim=True), x.amax(dim=(2, 3), keepdim=True))
        x = x * sum(self.excite(self.squeeze(p).relu()) for p in pooled).sigmoid()
        maps = torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)
        return x * self.places(maps).sigmoid()


class GraphConvolution(nn.Module):
    """A graph of nodes with states: mixes nodes, subtracts what was there, mixes states (as EAGRNet, ECCV 2020)."""

    def __init__(self) -> None:
        super().__init__()
        self.nodes = nn.Linear(_SIDE**2, _SIDE**2)
        self.states = nn.Conv1d(_STATES, _STATES, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, states, nodes) -> the same, 0 or more."""
        return self.states(self.nodes(x) - x).relu()


class SimilarityAggregation(nn.Module):
    """SAM: pixels are gathered in nodes by similarity, reasoned on in a graph and given back.

    One of the finer features' channels, after a softmax over them all, weights the pixels whose averages over a grid of
    6 x 6, without its rim, are the nodes' anchors.
    """

    def __init__(self) -> None:
        super().__init__()
        self.state = nn.Conv2d(WIDTH, _STATES, 1)
        self.project = nn.Conv2d(WIDTH, _STATES, 1)
        self.graph = GraphConvolution()
        self.extend = nn.Conv2d(_STATES, WIDTH, 1, bias=False)

    def forward(self, fused: Tensor, details: Tensor) -> Tensor:
        """(B, 32, h, w) from CFM, (B, 32, h, w) from CIM -> (B, 32, h, w)."""
        weight = details.softmax(dim=1)[:, 1:2]
        projected = self.project(fused)
        anchors = F.adaptive_avg_pool2d(projected * weight, _SIDE + 2)[:, :, 1:-1, 1:-1].flatten(2)
        to_nodes = (anchors.transpose(1, 2) @ projected.flatten(2)).softmax(dim=1)  # (B, nodes, pixels)
        nodes = self.state(fused).flatten(2) @ to_nodes.transpose(1, 2)  # (B, states, nodes)
        pixels = self.graph(nodes) @ to_nodes
        return fused + self.extend(pixels.unflatten(2, fused.shape[-2:]))
