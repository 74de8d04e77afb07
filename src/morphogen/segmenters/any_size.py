"""A network that wants sides of some multiple, made to take any image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F


class AnySize(nn.Module):
    """Pads height and width to the multiple that `net` needs by repeating the border, and crops its output."""

    def __init__(self, net: nn.Module, multiple: int) -> None:
        super().__init__()
        self.net = net
        self.multiple = multiple

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, K, H, W) logits, for any H and W."""
        height, width = image.shape[-2:]
        return self.net(self._padded(image))[..., :height, :width]

    @property
    def has_losses(self) -> bool:
        """Whether the network was published with a loss of its own."""
        return hasattr(self.net, "losses")

    def losses(self, image: Tensor, mask: Tensor) -> Mapping[str, Tensor]:
        """The network's own losses, where it `has_losses`; what is added at the border is trained on too.

        Args:
            image: (B, 3, H, W) in [-1, 1].
            mask: (B, H, W) int64 class ids.

        Returns:
            Named scalars, each a mean over rows.
        """
        net: Any = self.net
        # float64 holds every label exactly; padding by repetition is not made for integers
        padded = self._padded(mask[:, None].double())[:, 0].long()
        losses: Mapping[str, Tensor] = net.losses(self._padded(image), padded)
        return losses

    def _padded(self, image: Tensor) -> Tensor:
        below, right = (-side % self.multiple for side in image.shape[-2:])
        return F.pad(image, (0, right, 0, below), mode="replicate") if below or right else image
