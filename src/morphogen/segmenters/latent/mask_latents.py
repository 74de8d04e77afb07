"""Masks as latents of an image autoencoder: pictures of them, encoded to one deviation, and read back."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from morphogen.segmenters.latent.labels import colours, logits, picture
from morphogen.training.rng import normal


class MaskLatents(nn.Module):
    """A frozen autoencoder that holds masks.

    Attributes:
        scale: s; 1 / deviation of the latents, once `encoded_std` has been asked (`mask_autoencoder`).
        palette: (K, 3), the colour of every class.
        notes: What is to be known of it, among it how well it holds masks.
    """

    scale: Tensor
    palette: Tensor

    def __init__(self, n_classes: int, autoencoder: AutoencoderKL) -> None:
        super().__init__()
        self.autoencoder = autoencoder.requires_grad_(False)
        self.notes: dict[str, Any] = {}
        with torch.device("cpu"):
            self.register_buffer("scale", torch.tensor(float(autoencoder.config.scaling_factor)))
            self.register_buffer("palette", colours(n_classes), persistent=False)

    def encode_mask(self, mask: Tensor, seeds: Tensor | None = None) -> Tensor:
        """z0 = s E(picture of the mask): a posterior sample by `seeds`, else its mode.

        Args:
            mask: (B, H, W) int64 class ids.
            seeds: (B,) int64.

        Returns:
            (B, z, H / f, W / f).
        """
        posterior = self.autoencoder.encode(picture(mask, self.palette)).latent_dist
        z = posterior.mean
        if seeds is not None:
            z = z + posterior.std * normal(seeds.cpu(), z.shape[1:], "posterior").to(z)
        return self.scale * z

    def decode(self, z0: Tensor) -> Tensor:
        """(B, z, h, w) scaled latents -> (B, K, f h, f w) logits."""
        return logits(self.decoded(z0), self.palette)

    def decoded(self, z0: Tensor) -> Tensor:
        """The picture itself, (B, 3, f h, f w), not clipped."""
        made: Tensor = self.autoencoder.decode(z0 / self.scale).sample
        return made
