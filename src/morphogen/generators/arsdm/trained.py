"""The networks of ArSDM over a foundation, and what of them trains."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from morphogen.foundation.halves import DecoderHalf
from morphogen.foundation.model import Foundation
from morphogen.generators.arsdm.config import ArSDMConfig
from morphogen.generators.arsdm.spade import SpadeLayers
from morphogen.generators.arsdm.step import Networks


def made_networks(foundation: Foundation, classes: int, width: int) -> Networks:
    """The foundation's U-Net, hung with SPADE layers that change nothing yet."""
    spade = SpadeLayers(foundation.unet, classes, width).to(foundation.device)
    return Networks(foundation, spade, DecoderHalf(foundation.unet), classes)


def trained_modules(nets: Networks, config: ArSDMConfig) -> nn.ModuleDict:
    """The modules that a checkpoint holds, with gradients switched on.

    `tuning` full: the whole U-Net and the SPADE layers, as published. decoder: the layers, and the blocks that they
    hang in; the frozen encoder then keeps no activations, since nothing in front of it needs a gradient.
    """
    unet = nets.foundation.unet
    whole = {"unet": unet} if config.tuning == "full" else {"mid": unet.mid_block, "decoder": nets.decoder}
    modules = nn.ModuleDict({"spade": nets.spade, **whole}).requires_grad_(True)
    if config.mixed_precision != "no":  # where half-precision convolutions are faster in this layout
        hung: tuple[Any, ...] = (unet, nets.spade)
        for module in hung:
            module.to(memory_format=torch.channels_last)
    unet.checkpointing = nets.decoder.checkpointing = config.gradient_checkpointing
    return modules
