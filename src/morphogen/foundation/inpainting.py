"""Denoisers that paint into a hole: what they read, and how a text-to-image one is widened to read it.

The input channels are, in the order of Stable Diffusion's inpainting models: the noisy latent (C), the hole (1; 1 is to
be painted), and the latent of the image with the hole blanked (C).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from torch.nn import functional as F

from morphogen.foundation.model import Foundation


def widen(foundation: Foundation) -> Foundation:
    """The same foundation with a U-Net that reads 2 C + 1 channels; the C + 1 new ones have weight zero.

    Before it is trained it gives what the old one gave, whatever the new channels hold (SDXL's inpainting model and
    Brooks et al. 2023, section 3.2, start in this way). One that reads them already is returned as it is.
    """
    if foundation.inpaints:
        return foundation
    foundation.refuse_other_inputs()
    old = foundation.unet
    channels = 2 * int(old.config.in_channels) + 1
    narrow = old.conv_in.weight.detach()
    wide = narrow.new_zeros(narrow.shape[0], channels, *narrow.shape[2:])
    wide[:, : narrow.shape[1]] = narrow
    unet = rebuilt(old, {"conv_in.weight": wide}, in_channels=channels)
    return replace(foundation, unet=unet, folder=None)


def rebuilt(unet: UNet2DConditionModel, changed: Mapping[str, Tensor], **config: int) -> UNet2DConditionModel:
    """A U-Net of another config, frozen: weights that are not `changed` are those of `unet`, in place and not copied.

    Args:
        unet: The old one.
        changed: New weights, by name.
        **config: What changes of its config.
    """
    said = {name: value for name, value in unet.config.items() if name != "_use_default_values"}  # which would win
    with torch.device("meta"):
        new: UNet2DConditionModel = UNet2DConditionModel.from_config({**said, **config})
    new.load_state_dict({**unet.state_dict(), **changed}, assign=True)
    return new.eval().requires_grad_(False)


def blanked(x: Tensor, hole: Tensor) -> Tensor:
    """(B, 3, H, W) images in [-1, 1] with the hole (B, 1, H, W) in {0, 1} at 0, mid-grey."""
    return x * (1 - hole)


def to_latent(hole: Tensor, factor: int) -> Tensor:
    """(B, 1, H, W) hole to (B, 1, H / factor, W / factor), nearest neighbour, as diffusers' pipelines do."""
    return F.interpolate(hole, size=(hole.shape[2] // factor, hole.shape[3] // factor))


@torch.no_grad()
def around(foundation: Foundation, x: Tensor, hole: Tensor) -> Tensor:
    """(B, C + 1, h, w): what is told of the image around the hole, hole and blanked image's latent.

    Args:
        foundation: Encodes; by the mean of its posterior, in single precision whatever the autocast.
        x: (B, 3, H, W) images in [-1, 1].
        hole: (B, 1, H, W) in {0, 1}.
    """
    with torch.autocast(x.device.type, enabled=False):
        z = foundation.encode(blanked(x.float(), hole.float()))
    return torch.cat([to_latent(hole, foundation.factor).to(z), z], dim=1)


@torch.no_grad()
def unseen(foundation: Foundation, n: int) -> Tensor:
    """(n, C + 1, h, w): as `around`, of a hole that covers the whole image; (n, 0, h, w) where none is read."""
    side, device = foundation.resolution, foundation.device
    if not foundation.inpaints:
        return torch.zeros(n, 0, *foundation.latent_shape[1:], device=device)
    hole = torch.ones(1, 1, side, side, device=device)
    return around(foundation, hole.expand(1, 3, side, side), hole).expand(n, -1, -1, -1)
