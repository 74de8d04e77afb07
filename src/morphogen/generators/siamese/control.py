"""The ControlNet: a trainable copy of the U-Net's encoder that adds residuals to its skips."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

from diffusers import ControlNetModel
from torch import Tensor

from morphogen.foundation.conditioning import Conditioning
from morphogen.foundation.halves import encode
from morphogen.foundation.model import Foundation
from morphogen.generators.siamese.hints import DenseHint

PLAIN_CHANNELS = (16, 32, 96, 256)
"""Channels of ControlNet's own hint encoder, one halving after each but the last (1,086,480 parameters at SD 1.5)."""


class Residuals(NamedTuple):
    """What a ControlNet adds: one tensor per skip of the U-Net's encoder, and one for its middle block."""

    skips: tuple[Tensor, ...]
    mid: Tensor

    def rows(self, index: Any) -> Residuals:
        return Residuals(tuple(skip[index] for skip in self.skips), self.mid[index])

    def detach(self) -> Residuals:
        return Residuals(tuple(skip.detach() for skip in self.skips), self.mid.detach())


def mix(c_i: Residuals, c_m: Residuals, w_i: float) -> Residuals:
    """c_mix,l = w_i c_i,l + sg[c_m,l] for every layer l (Siamese-Diffusion, Eq. 5 with w_m = 1)."""
    c_m = c_m.detach()
    skips = tuple(w_i * image + mask for image, mask in zip(c_i.skips, c_m.skips, strict=True))
    return Residuals(skips, w_i * c_i.mid + c_m.mid)


def summed(parts: Sequence[Residuals]) -> Residuals:
    """The sum of several residuals, layer by layer, gradients going to each: c_i + c_m of mask and image."""
    skips = tuple(functools.reduce(operator.add, layers) for layers in zip(*(c.skips for c in parts), strict=True))
    return Residuals(skips, functools.reduce(operator.add, (c.mid for c in parts)))


class HintedControlNet(ControlNetModel):
    """diffusers' ControlNet with a choice of hint encoder; with the plain hint it *is* diffusers' ControlNet.

    Args:
        hint: ``dense`` (Dense Hint Input) or ``plain``.
        hint_width: Channels of the dense hint's first stage.
        kwargs: As diffusers' ControlNetModel.
    """

    checkpointing = False
    """Whether the activations inside its blocks are computed again for the gradient, rather than kept (`encode`)."""

    def __init__(self, hint: str = "plain", hint_width: int = 16, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.register_to_config(hint=hint, hint_width=hint_width)
        if hint == "dense":
            merges = len(self.config.conditioning_embedding_out_channels) - 1
            self.controlnet_cond_embedding = DenseHint(
                self.config.block_out_channels[0], merges, hint_width, self.config.conditioning_channels
            )

    @staticmethod
    def _get_init_keys(input_class: type) -> set[str]:
        # diffusers reads the signature to know which config entries to pass back on loading.
        return ControlNetModel._get_init_keys(ControlNetModel) | {"hint", "hint_width"}

    @classmethod
    def for_foundation(cls, foundation: Foundation, hint: str, hint_width: int = 16) -> HintedControlNet:
        """A ControlNet whose trunk is a copy of the foundation's encoder, and whose output is zero."""
        levels = int(math.log2(foundation.factor)) + 1
        channels = (PLAIN_CHANNELS + PLAIN_CHANNELS[-1:] * levels)[:levels]
        stock = ControlNetModel.from_unet(foundation.unet, conditioning_embedding_out_channels=channels)
        config = {k: v for k, v in stock.config.items() if not k.startswith("_")}
        made = cls(hint=hint, hint_width=hint_width, **config)
        trunk = {k: v for k, v in stock.state_dict().items() if not k.startswith("controlnet_cond_embedding")}
        made.load_state_dict(trunk, strict=False)
        return made.to(foundation.device)

    def embed(self, hint: Tensor) -> Tensor:
        """Hint images (B, 3, H, W) in [0, 1] to (B, C_0, H/f, W/f)."""
        return self.controlnet_cond_embedding(hint)

    def residuals(self, z_t: Tensor, t: Tensor, cond: Conditioning, embedded: Tensor) -> Residuals:
        """c = CN(z_t, hint, t, text) from an embedded hint, so that sampling embeds it once.

        Args:
            z_t: (B, C, h, w) noisy latents.
            t: (B,) int64 timesteps.
            cond: Conditioning of B rows, or of n B: several texts for each latent, as `encode` takes them.
            embedded: (B, C_0, h, w) from `embed`.
        """
        features = encode(self, z_t, t, cond, embedded)
        skips: Sequence[Tensor] = features.skips
        zero = zip(self.controlnet_down_blocks, skips, strict=True)
        return Residuals(tuple(conv(skip) for conv, skip in zero), self.controlnet_mid_block(features.mid))
