"""A convolutional decoder on the features of a frozen foundation: its autoencoder's encoder and its U-Net's.

After Baranchuk et al., "Label-Efficient Semantic Segmentation with Diffusion Models" (ICLR 2022), who read the features
of a denoiser at small noise; here with the empty prompt, and no noise is added, so that an image has one answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from morphogen.errors import InputError
from morphogen.segmenters.any_size import AnySize
from morphogen.training.checkpoint import sha256

if TYPE_CHECKING:
    from morphogen.foundation.model import Foundation

_WIDTH = 64


@dataclass(frozen=True)
class FeaturesConfig:
    """Which features.

    Attributes:
        foundation: tiny, sd15, a diffusers folder, or a hub id. It is needed again wherever the segmenter is loaded.
        t: Timestep that the U-Net is told.
        weights: Hash of the foundation's weights; found by itself, and kept with a trained decoder.
    """

    foundation: str = "tiny"
    t: int = 20
    weights: str = ""

    def resolved(self) -> FeaturesConfig:
        """The same with a folder's whole path, and with the hash of its weights.

        Raises:
            InputError: There is no such foundation, or its weights are not those of the hash.
        """
        from morphogen.foundation.model import find_folder

        folder = find_folder(self.foundation)
        found = weights_hash(folder)
        if self.weights not in ("", found):
            raise InputError(
                f"{self.foundation}: its weights are not those that this decoder was trained on; "
                "put the old ones back, or train the decoder again"
            )
        # a relative path would name another folder, or a hub id, wherever the run is loaded from elsewhere
        named = self.foundation == "tiny" or not Path(self.foundation).is_dir()
        return replace(self, foundation=self.foundation if named else str(folder.absolute()), weights=found)


def weights_hash(folder: Path) -> str:
    """Sixteen hex digits of the weights that features come from: autoencoder, denoiser and text encoders."""
    files = sorted(f for part in ("vae", "unet", "text_encoder*") for f in folder.glob(f"{part}/*model.safetensors"))
    lines = "".join(f"{file.relative_to(folder)} {sha256(file)}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


class FrozenFeatures:
    """Maps an image to the foundation's features. Not a module: its weights are neither trained nor saved again."""

    def __init__(self, foundation: Foundation, t: int) -> None:
        self.foundation = foundation
        self.t = t
        self.prompt = foundation.conditioning([""])

    @property
    def multiple(self) -> int:
        """Height and width must be multiples of this; the coarsest level is then 2 x 2, which group norms accept."""
        return self.foundation.factor * 2 ** len(self.foundation.unet.config.block_out_channels)

    @torch.no_grad()
    def __call__(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [-1, 1] -> one (B, C, h, w) for every size that occurs, the finest first."""
        from morphogen.foundation.halves import encode

        if self.foundation.device != image.device:
            self.foundation.to(image.device)
            self.prompt = self.prompt.to(image.device)
        seen, z = self._autoencoder(image)
        t = torch.full((len(image),), self.t, device=image.device)
        prompt = self.prompt.rows(torch.zeros(len(image), dtype=torch.long, device=image.device))
        found = encode(self.foundation.unet, z, t, prompt)
        sizes: dict[int, list[Tensor]] = {}
        for feature in (*seen, *found.skips, found.mid):
            sizes.setdefault(feature.shape[-1], []).append(feature)
        return [torch.cat(sizes[size], dim=1) for size in sorted(sizes, reverse=True)]

    def _autoencoder(self, image: Tensor) -> tuple[list[Tensor], Tensor]:
        """Outputs of the encoder's stages, and the scaled mean latent, which is `Foundation.encode`."""
        vae = self.foundation.vae
        h = vae.encoder.conv_in(image)
        seen = [h]
        for block in vae.encoder.down_blocks:
            h = block(h)
            seen.append(h)
        h = vae.encoder.conv_out(vae.encoder.conv_act(vae.encoder.conv_norm_out(vae.encoder.mid_block(h))))
        mean = (h if vae.quant_conv is None else vae.quant_conv(h)).chunk(2, dim=1)[0]
        shift = float(vae.config.get("shift_factor") or 0.0)
        return seen, (mean - shift) * vae.config.scaling_factor


class FeatureDecoder(nn.Module):
    """Brings all levels to one width, then joins them from the coarsest to the finest."""

    def __init__(self, features: FrozenFeatures, channels: Sequence[int], n_classes: int) -> None:
        super().__init__()
        self.features = features
        self.inputs = nn.ModuleList(_block(c, _WIDTH, 1) for c in channels)
        self.joins = nn.ModuleList(_block(2 * _WIDTH, _WIDTH, 3) for _ in channels[1:])
        self.head = nn.Conv2d(_WIDTH, n_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1], H and W multiples of `FrozenFeatures.multiple` -> (B, K, H, W) logits."""
        *finer, x = (bring(level) for bring, level in zip(self.inputs, self.features(image), strict=True))
        for join, level in zip(self.joins, reversed(finer), strict=True):
            x = join(torch.cat([F.interpolate(x, size=level.shape[-2:], mode="nearest"), level], dim=1))
        return self.head(x)


def _block(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """Features of a frozen net have any scale, so they are normalised first."""
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(nn.BatchNorm2d(inputs), convolution, nn.BatchNorm2d(outputs), nn.ReLU())


def build(n_classes: int, config: FeaturesConfig, pretrained: bool = True) -> nn.Module:
    """The decoder on a foundation: (B, 3, H, W) in [-1, 1] -> (B, n_classes, H, W) logits, for any H and W.

    Args:
        n_classes: K, background included.
        config: Which features.
        pretrained: Of no consequence: the foundation is loaded in any case, the decoder starts at random.

    Raises:
        InputError: There is no such foundation.
    """
    from morphogen.foundation.model import Foundation

    features = FrozenFeatures(Foundation.load(config.foundation), config.t)
    side = features.multiple
    channels = [level.shape[1] for level in features(torch.zeros(1, 3, side, side))]
    return AnySize(FeatureDecoder(features, channels, n_classes), side)
