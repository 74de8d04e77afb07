"""SegFormer (Xie et al., NeurIPS 2021, arXiv:2105.15203)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

from torch import Tensor, nn
from torch.nn import functional as F

from morphogen.segmenters.any_size import AnySize
from morphogen.segmenters.losses import cross_entropy
from morphogen.segmenters.pretrained import IMAGENET, NONE, check_encoder
from morphogen.segmenters.pyramid import MIT, STRIDE, mix_transformer

Size = Literal["b0", "b1", "b2", "b3", "b4", "b5"]
_WIDTHS = {"b0": 256, "b1": 256, "b2": 768, "b3": 768, "b4": 768, "b5": 768}
_DROPOUT = 0.1


@dataclass(frozen=True)
class SegFormerConfig:
    """Architecture of SegFormer.

    Attributes:
        size: b0 (3.7 million parameters) to b5 (84.6 million).
        weights: ``imagenet`` for the published encoder, ``none`` for a random start, or a safetensors file, its folder
            or a hub id (owner/name@revision).
    """

    size: Size = "b2"
    weights: str = IMAGENET

    def __post_init__(self) -> None:
        check_encoder("segformer", self.size, get_args(Size), self.weights)

    def resolved(self) -> SegFormerConfig:
        """The same with the published encoder by its hub id."""
        return replace(self, weights=MIT[self.size].weights) if self.weights == IMAGENET else self


class SegFormer(nn.Module):
    """MiT, and a decoder that brings its four levels to one width, joins them and classifies (section 3.2)."""

    def __init__(self, size: str, n_classes: int, weights: str) -> None:
        """Builds encoder and decoder.

        Args:
            size: b0 to b5.
            n_classes: K, background included.
            weights: Of the encoder, see `SegFormerConfig`.

        Raises:
            InputError: The encoder's weights cannot be had.
        """
        from transformers import SegformerConfig
        from transformers.models.segformer.modeling_segformer import SegformerDecodeHead

        super().__init__()
        self.encoder = mix_transformer(size, weights)
        config = SegformerConfig(
            hidden_sizes=MIT[size].channels, decoder_hidden_size=_WIDTHS[size], num_labels=n_classes
        )
        self.head = SegformerDecodeHead(config)
        # the authors drop whole channels, transformers single numbers
        self.head.dropout = nn.Dropout2d(_DROPOUT)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1], H and W multiples of 32 -> (B, K, H, W) logits."""
        logits = self.head(self.encoder(image))
        return F.interpolate(logits, size=image.shape[-2:], mode="bilinear", align_corners=False)

    def losses(self, image: Tensor, mask: Tensor) -> Mapping[str, Tensor]:
        """Cross-entropy of all pixels at full resolution, as published.

        Args:
            image: (B, 3, H, W) in [-1, 1].
            mask: (B, H, W) int64 class ids.
        """
        return {"cross_entropy": cross_entropy(self(image), mask)}


def build(n_classes: int, config: SegFormerConfig, pretrained: bool = True) -> nn.Module:
    """The network of a config: (B, 3, H, W) in [-1, 1] -> (B, n_classes, H, W) logits, for any H and W.

    Args:
        n_classes: K, background included.
        config: Size, and the encoder's weights.
        pretrained: Load these; False where trained weights follow.

    Raises:
        InputError: The encoder's weights cannot be had.
    """
    return AnySize(SegFormer(config.size, n_classes, config.weights if pretrained else NONE), STRIDE)
