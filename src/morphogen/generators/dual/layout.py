"""Two latents as one: in its channels (joint) or side by side (canvas); and the U-Net that reads and writes both.

B4 of the mechanisms: the joint latent has the image in the first C channels and the mask in the others, at one noise
level. In the widened first layer the mask's weights are zero (as in SDSeg and SDXL's inpainting model), so that before
any training the image half is what the foundation foretells, whatever the mask half holds; in the widened last layer
both halves are copies.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from morphogen.errors import InputError
from morphogen.foundation.inpainting import rebuilt
from morphogen.foundation.model import Foundation

CHANNELS = 4
"""Of one latent."""
_AXIS = {"joint": 1, "canvas": 3}


def join(image: Tensor, mask: Tensor, layout: str) -> Tensor:
    """(B, C, h, w) twice -> (B, 2 C, h, w) for ``joint``, (B, C, h, 2 w) for ``canvas``."""
    return torch.cat([image, mask], dim=_AXIS[layout])


def split(both: Tensor, layout: str) -> tuple[Tensor, Tensor]:
    """What `join` joined: image and mask."""
    image, mask = both.chunk(2, dim=_AXIS[layout])
    return image, mask


def refuse_other_width(foundation: Foundation) -> None:
    """Refuse a foundation whose latents have another width, or whose U-Net reads or writes more than a latent.

    Raises:
        InputError: It is one.
    """
    unet, latent = foundation.unet.config, int(foundation.vae.config.latent_channels)
    remedy = "give a text-to-image foundation of the layout of Stable Diffusion 1, 2 or XL"
    if latent != CHANNELS:
        raise InputError(f"{foundation.source}: its latents have {latent} channels, and dual joins two of 4; {remedy}")
    if (unet.in_channels, unet.out_channels) != (CHANNELS, CHANNELS):
        kind = ", as one for inpainting does" if foundation.inpaints else ""
        raise InputError(
            f"{foundation.source}: its U-Net reads {unet.in_channels} channels and gives {unet.out_channels}, not the "
            f"4 of a latent{kind}; {remedy}"
        )


def widened(foundation: Foundation) -> Foundation:
    """The same foundation with a U-Net of 2 C channels in and out; its image half gives what the old one gave.

    Raises:
        InputError: As `refuse_other_width`.
    """
    refuse_other_width(foundation)
    old = foundation.unet
    first, last, bias = (p.detach() for p in (old.conv_in.weight, old.conv_out.weight, old.conv_out.bias))
    changed = {
        "conv_in.weight": torch.cat([first, torch.zeros_like(first)], dim=1),
        "conv_out.weight": torch.cat([last, last]),
        "conv_out.bias": torch.cat([bias, bias]),
    }
    unet = rebuilt(old, changed, in_channels=2 * CHANNELS, out_channels=2 * CHANNELS)
    return replace(foundation, unet=unet, folder=None)
