"""The two trained networks as one that predicts: the convolutional one, the diffusion one, or the mean of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from morphogen.errors import InputError
from morphogen.segmenters.diffcl.methods.diff_cl import denoised
from morphogen.segmenters.diffcl.vnet import VNet, build
from morphogen.segmenters.diffcl.windows import over_windows, with_noise

Which = Literal["cs", "ds", "mean"]


class TwoNets(nn.Module):
    """``cs``, and ``ds`` where the method has one."""

    def __init__(self, cs: nn.Module, ds: VNet | None, n_classes: int, signal_scale: float) -> None:
        super().__init__()
        self.cs, self.ds = cs, ds
        self.n_classes, self.signal_scale = n_classes, signal_scale

    def refuse(self, which: str) -> None:
        """Refuse a network that is not there.

        Raises:
            InputError: It is not.
        """
        if which not in get_args(Which):
            raise InputError(f"--network {which}: choose {', '.join(get_args(Which))}")
        if which != "cs" and self.ds is None:
            raise InputError(f"--network {which}: this run has no diffusion network; leave it out")

    @torch.no_grad()
    def probabilities(
        self,
        image: Tensor,
        patch: Sequence[int],
        which: Which = "cs",
        steps: int = 10,
        seed: int = 0,
        overlap: float | Sequence[float] = 0.5,
        batch_size: int = 4,
    ) -> Tensor:
        """Class probabilities of whole images or volumes of one size.

        Args:
            image: (B, C, *S), prepared.
            patch: Sides of the windows.
            which: Network.
            steps: DDIM steps of the diffusion network.
            seed: Of its start noise.
            overlap: Of the windows, in [0, 1), along all axes or along each.
            batch_size: Windows at once.

        Returns:
            (B, K, *S) float32.

        Raises:
            InputError: The network is not there.
        """
        self.refuse(which)
        channels = image.shape[1]

        def look(windows: Tensor) -> Tensor:
            picture, noise = windows[:, :channels], windows[:, channels:]
            found = []
            if which != "ds":
                found.append(self.cs(picture).float().softmax(dim=1))
            if which != "cs":
                found.append(denoised(self.ds_net, picture, noise, steps, self.signal_scale))
            return torch.stack(found).mean(dim=0)

        seen = image if which == "cs" else with_noise(image, self.n_classes, seed)
        return over_windows(look, seen, patch, overlap, batch_size)

    @property
    def ds_net(self) -> VNet:
        """The diffusion network, which is there."""
        assert self.ds is not None
        return self.ds


def rebuild(config: Mapping[str, Any]) -> TwoNets:
    """The networks that a config file describes, with random weights."""
    shapes = config["networks"]
    ds = build(shapes["ds"]) if shapes.get("ds") else None
    return TwoNets(build(shapes["cs"]), ds, len(config["classes"]), config["signal_scale"])
