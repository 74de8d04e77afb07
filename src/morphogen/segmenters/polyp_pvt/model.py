"""Polyp-PVT (Dong et al., "Polyp-PVT: Polyp Segmentation with Pyramid Vision Transformers", arXiv:2108.06932)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

from torch import Tensor, nn
from torch.nn import functional as F

from morphogen.segmenters.any_size import AnySize
from morphogen.segmenters.binary import with_background
from morphogen.segmenters.polyp_pvt.modules import (
    WIDTH,
    CamouflageIdentification,
    CascadedFusion,
    ConvNorm,
    SimilarityAggregation,
)
from morphogen.segmenters.pretrained import IMAGENET, NONE, check_encoder
from morphogen.segmenters.pyramid import PVT_V2, STRIDE, pyramid_transformer
from morphogen.segmenters.structure import structure_loss

Size = Literal["b0", "b2"]
_DECODED = 8
"""Stride at which the decoder works."""


@dataclass(frozen=True)
class PolypPVTConfig:
    """Architecture of Polyp-PVT.

    Attributes:
        size: Of the encoder PVTv2: b2 as published, b0 where little is at hand.
        weights: ``imagenet`` for the published encoder, ``none`` for a random start, or a safetensors file, its folder
            or a hub id (owner/name@revision).
    """

    size: Size = "b2"
    weights: str = IMAGENET

    def __post_init__(self) -> None:
        check_encoder("polyp-pvt", self.size, get_args(Size), self.weights)

    def resolved(self) -> PolypPVTConfig:
        """The same with the published encoder by its hub id."""
        return replace(self, weights=PVT_V2[self.size].weights) if self.weights == IMAGENET else self


class PolypPVT(nn.Module):
    """PVTv2; CFM joins the three coarse levels, CIM reads the finest one, SAM brings the two together."""

    def __init__(self, size: str, n_classes: int, weights: str) -> None:
        """Builds encoder and decoder.

        Args:
            size: b0 or b2.
            n_classes: K, background included.
            weights: Of the encoder, see `PolypPVTConfig`.

        Raises:
            InputError: The encoder's weights cannot be had.
        """
        super().__init__()
        self.encoder = pyramid_transformer(size, weights)
        finest, *coarse = PVT_V2[size].channels
        self.narrow = nn.ModuleList(ConvNorm(channels, WIDTH, 1) for channels in coarse)
        self.cfm = CascadedFusion()
        self.cim = CamouflageIdentification(finest)
        self.narrow_cim = ConvNorm(finest, WIDTH, 1)
        self.sam = SimilarityAggregation()
        self.out_cfm = nn.Conv2d(WIDTH, n_classes - 1, 1)
        self.out_sam = nn.Conv2d(WIDTH, n_classes - 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1], H and W multiples of 32 -> (B, K, H, W) logits."""
        first, second = self.predictions(image)
        return with_background(first + second)

    def losses(self, image: Tensor, mask: Tensor) -> Mapping[str, Tensor]:
        """The structure loss of either prediction.

        Args:
            image: (B, 3, H, W) in [-1, 1], H and W multiples of 32.
            mask: (B, H, W) int64 class ids.
        """
        first, second = self.predictions(image)
        return {"cfm": structure_loss(first, mask), "sam": structure_loss(second, mask)}

    def predictions(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) in [-1, 1] -> two (B, K - 1, H, W): logits of the foreground classes from CFM and from SAM."""
        finest, *coarse = self.encoder(image)
        second, third, fourth = (narrow(level) for narrow, level in zip(self.narrow, coarse, strict=True))
        fused = self.cfm(fourth, third, second)
        details = self.narrow_cim(self.cim(finest))
        details = F.interpolate(details, size=fused.shape[-2:], mode="bilinear", align_corners=True)
        joined = self.sam(fused, details)
        return _enlarged(self.out_cfm(fused)), _enlarged(self.out_sam(joined))


def _enlarged(z: Tensor) -> Tensor:
    return F.interpolate(z, scale_factor=float(_DECODED), mode="bilinear", align_corners=False)


def build(n_classes: int, config: PolypPVTConfig, pretrained: bool = True) -> nn.Module:
    """The network of a config: (B, 3, H, W) in [-1, 1] -> (B, n_classes, H, W) logits, for any H and W.

    Args:
        n_classes: K, background included.
        config: Size, and the encoder's weights.
        pretrained: Load these; False where trained weights follow.

    Raises:
        InputError: The encoder's weights cannot be had.
    """
    return AnySize(PolypPVT(config.size, n_classes, config.weights if pretrained else NONE), STRIDE)
