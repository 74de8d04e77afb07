"""What a network's last convolution reads: the features on which labels are propagated."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_CONVS = (nn.Conv2d, nn.Conv3d)


class LastFeatures:
    """Runs a network and keeps what its last convolution was given, whatever the network is."""

    def __init__(self, net: nn.Module, example: Tensor) -> None:
        """Finds the convolution that runs last.

        Args:
            net: ``(B, C, *S) -> (B, K, *S)``.
            example: (1, C, *S).
        """
        self.net = net
        order: list[Any] = []
        convs = [module for module in net.modules() if isinstance(module, _CONVS)]
        handles = [conv.register_forward_pre_hook(lambda module, _: order.append(module)) for conv in convs]
        training = net.training
        with torch.no_grad():
            net.eval()(example)
        net.train(training)
        for handle in handles:
            handle.remove()
        self.conv: Any = order[-1]
        self.channels = int(self.conv.in_channels)

    def __call__(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, K, *S), and features (B, channels, *S'), whose grid may be coarser."""
        kept: list[Tensor] = []
        handle = self.conv.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
        try:
            logits = self.net(image)
        finally:
            handle.remove()
        return logits, kept[-1]
