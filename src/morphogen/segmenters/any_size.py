"""A network that wants sides of some multiple, made to take any image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from morphogen.errors import InputError


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

    def losses(self, image: Tensor, mask: Tensor, seeds: Tensor) -> Mapping[str, Tensor]:
        """The network's own losses, where it `has_losses`; what is added at the border is trained on too.

        Args:
            image: (B, 3, H, W) in [-1, 1].
            mask: (B, H, W) int64 class ids.
            seeds: (B,) int64, of the rows; passed on to a net that declares ``takes_seeds = True``.

        Returns:
            Named scalars, each a mean over rows.
        """
        net: Any = self.net
        drawn = (seeds,) if getattr(net, "takes_seeds", False) else ()
        # float64 holds every label exactly; padding by repetition is not made for integers
        padded = self._padded(mask[:, None].double())[:, 0].long()
        losses: Mapping[str, Tensor] = net.losses(self._padded(image), padded, *drawn)
        return losses

    def predict_probabilities(self, image: Tensor, **settings: int | None) -> Any:
        """What a net with settings of its own says of images of any size, cropped; see its ``predict_probabilities``.

        Args:
            image: (B, 3, H, W) in [-1, 1].
            **settings: Of the prediction.
        """
        height, width = image.shape[-2:]
        net: Any = self.net
        return net.predict_probabilities(self._padded(image), **settings).cropped(height, width)

    @property
    def check_sampling(self) -> Any:
        """Refuses settings of a prediction that cannot be; an attribute of nets alone that have such settings."""
        return self.net.check_sampling

    def saved_state(self) -> Mapping[str, Tensor]:
        """The state dict, without what serves training alone (``not_saved``, names of parts of the net)."""
        left = tuple(f"net.{part}." for part in getattr(self.net, "not_saved", ()))
        return {key: value for key, value in self.state_dict().items() if not key.startswith(left)}

    @property
    def notes(self) -> Mapping[str, Any]:
        """What the net says of itself in the config that is saved with it."""
        return getattr(self.net, "notes", {})

    def _padded(self, image: Tensor) -> Tensor:
        below, right = (-side % self.multiple for side in image.shape[-2:])
        return F.pad(image, (0, right, 0, below), mode="replicate") if below or right else image


def refuse_size(net: nn.Module, resolution: int) -> None:
    """Refuse to train at a size that would be padded, where the net is made of cells (``whole_cells`` says of which).

    Raises:
        InputError: `resolution` is no multiple of what the net needs.
    """
    if isinstance(net, AnySize) and (cells := getattr(net.net, "whole_cells", None)) and resolution % net.multiple:
        near = max(1, round(resolution / net.multiple)) * net.multiple
        raise InputError(f"--resolution {resolution}: is not a multiple of {net.multiple}, as {cells} ask; take {near}")
