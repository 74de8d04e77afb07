"""Generator and patch discriminator of one scale: five convolutions each, none of them padded."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

CHANNELS = 4
"""Red, green, blue, and the mask."""
LAYERS, KERNEL = 5, 3
RECEPTIVE_FIELD = 1 + LAYERS * (KERNEL - 1)
"""Side of the patch that a value of the last layer sees: 11 px."""
PADDING = LAYERS * (KERNEL - 1) // 2
"""Zeros around the generator's input, so that its output is as large as what it refines."""
SLOPE = 0.2
DEVIATION = 0.02
"""Of new weights."""


def _blocks(width: int, out: int) -> nn.Sequential:
    """Four blocks of convolution, batch norm and leaky ReLU, and a last convolution to `out` channels."""
    layers: list[nn.Module] = []
    for inputs in (CHANNELS, *[width] * (LAYERS - 2)):
        layers += [nn.Conv2d(inputs, width, KERNEL), nn.BatchNorm2d(width), nn.LeakyReLU(SLOPE)]
    net = nn.Sequential(*layers, nn.Conv2d(width, out, KERNEL))
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, 0.0, DEVIATION)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, DEVIATION)
    return net


class Generator(nn.Module):
    """G_n(z, x) = x + psi(z + x): adds to what a coarser scale painted the details that it lacks.

    Args:
        width: Channels of its blocks.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = _blocks(width, CHANNELS)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        """Refine.

        Args:
            z: (B, 4, H, W) noise, with its amplitude.
            x: (B, 4, H, W) about [-1, 1], the coarser scale's output at this size; zeros at the coarsest.

        Returns:
            (B, 4, H, W) about [-1, 1].
        """
        details: Tensor = self.net(F.pad(z + x, [PADDING] * 4)).tanh()
        return x + details


class Discriminator(nn.Module):
    """D_n: how real every patch of 11 x 11 px is, image and mask together.

    Args:
        width: Channels of its blocks.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = _blocks(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 4, H, W) about [-1, 1] to (B, 1, H - 10, W - 10) without bounds."""
        scores: Tensor = self.net(x)
        return scores
