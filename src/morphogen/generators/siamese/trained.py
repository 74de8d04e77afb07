"""What of the networks trains: everything that the paper trains, the ControlNet alone, or low-rank updates."""

from __future__ import annotations

import torch
from torch import nn

from morphogen.foundation.halves import DecoderHalf
from morphogen.foundation.lora import add_lora
from morphogen.foundation.model import Foundation
from morphogen.generators.siamese.config import SiameseConfig
from morphogen.generators.siamese.control import HintedControlNet
from morphogen.generators.siamese.step import Networks

LORA_TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2")
"""Attention projections and the convolutions of residual blocks, by the ends of their names."""


def trained_networks(
    foundation: Foundation, controlnet: HintedControlNet, config: SiameseConfig
) -> tuple[Networks, nn.ModuleDict]:
    """The networks with gradients switched on where training changes them, and the modules that a checkpoint holds.

    `tuning` full: the ControlNet and the U-Net's decoder, as published. locked: the ControlNet alone. lora: low-rank
    updates (Hu et al. 2022) of the ControlNet's trunk and of the decoder; hint encoder and zero-convolutions whole.
    """
    nets = Networks(foundation, controlnet, DecoderHalf(foundation.unet))
    modules = nn.ModuleDict({"controlnet": controlnet})
    if config.tuning != "locked":
        modules["decoder"] = nets.decoder
    modules.requires_grad_(True)
    if config.tuning == "lora":
        for module in modules.values():
            add_lora(module, LORA_TARGETS, config.lora_rank, config.lora_rank)
        for part in ("controlnet_cond_embedding", "controlnet_down_blocks", "controlnet_mid_block"):
            getattr(controlnet, part).requires_grad_(True)
    if config.mixed_precision != "no":  # where half-precision convolutions are faster in this layout
        for module in (foundation.unet, controlnet):
            module.to(memory_format=torch.channels_last)
    controlnet.checkpointing = nets.decoder.checkpointing = config.gradient_checkpointing
    return nets, modules
