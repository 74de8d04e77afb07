"""AlexNet's five convolutions (Krizhevsky, "One weird trick", 2014: one tower of 64, 192, 384, 256, 256 channels)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class AlexNetFeatures(nn.Module):
    """Convolutions of AlexNet; the features are taken after each ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            [
                nn.Conv2d(3, 64, 11, stride=4, padding=2),
                nn.Conv2d(64, 192, 5, padding=2),
                nn.Conv2d(192, 384, 3, padding=1),
                nn.Conv2d(384, 256, 3, padding=1),
                nn.Conv2d(256, 256, 3, padding=1),
            ]
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features relu1 to relu5.

        Args:
            x: (B, 3, H, W), normalised by `vgg16.MEAN` and `vgg16.STD`, H and W at least 31 (poolings floor).

        Returns:
            Five tensors of 64, 192, 384, 256 and 256 channels, finest first; the last three have one size.
        """
        taps: list[Tensor] = []
        for level, conv in enumerate(self.convs):
            if level in (1, 2):
                x = F.max_pool2d(x, 3, stride=2)
            x = F.relu(conv(x))
            taps.append(x)
        return taps
