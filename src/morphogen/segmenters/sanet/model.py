"""SANet (Wei et al., "Shallow Attention Network for Polyp Segmentation", MICCAI 2021, arXiv:2108.00882)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from morphogen.errors import InputError
from morphogen.segmenters.any_size import AnySize
from morphogen.segmenters.binary import with_background
from morphogen.segmenters.losses import cross_entropy
from morphogen.segmenters.pretrained import IMAGENET, NONE, check_encoder, load_encoder, weights_file
from morphogen.segmenters.sanet.correction import corrected
from morphogen.segmenters.sanet.losses import dice_loss
from morphogen.segmenters.sanet.res2net import CHANNELS, Res2Net

Size = Literal["50", "14"]
_BLOCKS: Mapping[str, tuple[int, ...]] = {"50": (3, 4, 6, 3), "14": (1, 1, 1, 1)}
# timm publishes the v1b weights of Res2Net's authors under this id
_HUB = "timm/res2net50d.in1k@e940e287c899660a0c2a187122a0d6de2b0af6c3"
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_WIDTH = 64


@dataclass(frozen=True)
class SANetConfig:
    """Architecture of SANet.

    Attributes:
        size: ``50`` is the published encoder, Res2Net-50 v1b (26w x 4s); ``14`` has one block a stage.
        weights: ``imagenet`` (the published weights of the encoder), ``none``, or a file, a folder or a hub id.

    Raises:
        InputError: There is no such size, or it has no published weights.
    """

    size: Size = "50"
    weights: str = IMAGENET

    def __post_init__(self) -> None:
        check_encoder("sanet", self.size, get_args(Size), self.weights)
        if self.size != "50" and self.weights == IMAGENET:
            raise InputError(f"sanet: size {self.size} has no published weights; add weights={NONE}")

    def resolved(self) -> SANetConfig:
        """The same with the published encoder by its hub id."""
        return replace(self, weights=_HUB) if self.weights == IMAGENET else self


class SANet(nn.Module):
    """Three encoder levels, reduced to 64 channels; each level is masked by the product of those above it."""

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: nn.Module, n_classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.linear3, self.linear4, self.linear5 = (_reduce(channels) for channels in CHANNELS[1:])
        self.predict = nn.Conv2d(3 * _WIDTH, n_classes - 1, 1)
        nn.init.kaiming_normal_(self.predict.weight, nonlinearity="relu")
        nn.init.zeros_(self.predict.bias)  # type: ignore[arg-type]
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1), persistent=False)

    def logits(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, K - 1, H, W) logits of the foreground classes, not corrected."""
        image = ((image * 0.5 + 0.5 - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        _, f3, f4, f5 = self.encoder(image)
        fused = shallow_attention(self.linear3(f3), self.linear4(f4), self.linear5(f5))
        return _resized(self.predict(fused), image)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, K, H, W) logits, corrected in evaluation."""
        z = self.logits(image)
        return with_background(z if self.training else corrected(z))

    def losses(self, image: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Cross-entropy and Dice of the logits before any correction.

        Args:
            image: (B, 3, H, W) in [-1, 1].
            mask: (B, H, W) int64 class ids.
        """
        logits = with_background(self.logits(image))
        return {"cross_entropy": cross_entropy(logits, mask), "dice": dice_loss(logits, mask)}


def shallow_attention(f3: Tensor, f4: Tensor, f5: Tensor) -> Tensor:
    """The shallow attention module: ``[f5, f4 f5, f3 f4 f5]`` at the size of f3.

    Deep features, which know where the lesion is, mask the background noise of the finer ones.

    Args:
        f3: (B, C, h, w), not negative, as the others.
        f4: (B, C, h / 2, w / 2).
        f5: (B, C, h / 4, w / 4).

    Returns:
        (B, 3 C, h, w).
    """
    f5, f4 = _resized(f5, f3), _resized(f4, f3)
    return torch.cat([f5, f4 * f5, f3 * f4 * f5], dim=1)


def _resized(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=True)


def _reduce(inputs: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, _WIDTH, 1)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
    return nn.Sequential(convolution, nn.BatchNorm2d(_WIDTH), nn.ReLU())


def build(n_classes: int, config: SANetConfig, pretrained: bool = True) -> nn.Module:
    """The network: (B, 3, H, W) in [-1, 1] -> (B, n_classes, H, W) logits, for any H and W.

    Args:
        n_classes: K, background included.
        config: Size, and where the encoder's weights are.
        pretrained: Load them; False where trained weights follow.

    Raises:
        InputError: The encoder's weights cannot be found or read.
    """
    encoder = Res2Net(_BLOCKS[config.size])
    if pretrained and config.weights != NONE:
        file = weights_file(config.resolved().weights)
        counters = [key for key in encoder.state_dict() if key.endswith("num_batches_tracked")]
        load_encoder(encoder, file, lambda key: None if key.startswith("fc.") else key, ignore=counters)
    return AnySize(SANet(encoder, n_classes), 1)
