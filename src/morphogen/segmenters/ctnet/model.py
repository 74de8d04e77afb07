"""CTNet (Xiao et al., "CTNet: Contrastive Transformer Network for Polyp Segmentation", IEEE TCYB 2024)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from torch import Tensor, nn
from torch.nn import functional as F

from morphogen.segmenters.any_size import AnySize
from morphogen.segmenters.binary import with_background
from morphogen.segmenters.ctnet.contrast import pixel_contrast
from morphogen.segmenters.ctnet.modules import (
    CollectionInformation,
    ProjectionHead,
    SelfMultiscaleInteraction,
    conv_norm,
    up,
)
from morphogen.segmenters.pretrained import IMAGENET, NONE, check_encoder
from morphogen.segmenters.pyramid import MIT, STRIDE, mix_transformer
from morphogen.segmenters.structure import structure_loss

Size = Literal["b0", "b1", "b2", "b3", "b4", "b5"]
_WIDTH = 32
_CONTRAST_WEIGHT = 0.1


@dataclass(frozen=True)
class CTNetConfig:
    """Architecture of CTNet.

    Attributes:
        size: Of the encoder MiT: ``b0`` to ``b5``; ``b3`` is the published one.
        weights: ``imagenet`` (the published weights of the encoder), ``none``, or a file, a folder or a hub id.

    Raises:
        InputError: There is no such size.
    """

    size: Size = "b3"
    weights: str = IMAGENET

    def __post_init__(self) -> None:
        check_encoder("ctnet", self.size, get_args(Size), self.weights)

    def resolved(self) -> CTNetConfig:
        """The same with the published encoder by its hub id."""
        return replace(self, weights=MIT[self.size].weights) if self.weights == IMAGENET else self


class CTNet(nn.Module):
    """Four encoder levels, reduced to 32 channels; SMIM on three of them, CIM joins these, the finest is added."""

    def __init__(self, encoder: nn.Module, channels: tuple[int, int, int, int], n_classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.reduce = nn.ModuleList(conv_norm(inputs, _WIDTH, 1) for inputs in channels)
        self.smim = SelfMultiscaleInteraction(_WIDTH)
        self.cim = CollectionInformation(_WIDTH)
        self.up = up(_WIDTH)
        self.predict = nn.Sequential(conv_norm(_WIDTH, _WIDTH, 3), nn.Conv2d(_WIDTH, n_classes - 1, 1))
        self.project = ProjectionHead(_WIDTH)

    def _levels(self, image: Tensor) -> list[Tensor]:
        """Four (B, 32, H / s, W / s) for s = 4, 8, 16, 32."""
        return [reduce(level) for reduce, level in zip(self.reduce, self.encoder(image), strict=True)]

    def _decoded(self, levels: list[Tensor]) -> Tensor:
        """(B, K - 1, H, W) logits of the foreground classes."""
        finest, *rest = levels
        low, middle, high = (self.smim(level) for level in rest)
        z = self.predict(finest + self.up(self.cim(high, middle, low)))
        return F.interpolate(z, scale_factor=4, mode="bilinear", align_corners=False)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1], H and W multiples of 32 -> (B, K, H, W) logits."""
        return with_background(self._decoded(self._levels(image)))

    def losses(self, image: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """The structure loss and a tenth of the pixel contrast.

        Args:
            image: (B, 3, H, W) in [-1, 1], H and W multiples of 32.
            mask: (B, H, W) int64 class ids.
        """
        levels = self._levels(image)
        z, embedding = self._decoded(levels), self.project(levels[-1])
        embedding = F.interpolate(embedding, size=mask.shape[-2:], mode="bilinear", align_corners=True)
        predicted = with_background(z).argmax(dim=1)
        return {
            "structure": structure_loss(z, mask),
            "contrast": _CONTRAST_WEIGHT * pixel_contrast(embedding, mask, predicted),
        }


def build(n_classes: int, config: CTNetConfig, pretrained: bool = True) -> nn.Module:
    """The network: (B, 3, H, W) in [-1, 1] -> (B, n_classes, H, W) logits, for any H and W.

    Args:
        n_classes: K, background included.
        config: Size, and where the encoder's weights are.
        pretrained: Load them; False where trained weights follow.

    Raises:
        InputError: The encoder's weights cannot be found or read.
    """
    encoder = mix_transformer(config.size, config.weights if pretrained else NONE)
    return AnySize(CTNet(encoder, MIT[config.size].channels, n_classes), STRIDE)
