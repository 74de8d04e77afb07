"""SPADE: a mask scales and shifts the normalised activations of a U-Net's middle block and decoder.

h' = norm(h) (1 + gamma(m)) + beta(m), gamma and beta maps made of the mask m by convolutions: the spatially adaptive
normalisation of Park et al. (CVPR 2019, arXiv 1903.07291), in front of both convolutions of every residual block behind
the encoder; the encoder sees the noisy latent alone. So has it the conditional denoising network of Wang et al.
(Semantic Image Synthesis via Diffusion Models, 2022, arXiv 2207.00050), which ArSDM takes.

Here norm is the foundation's own, with its trained scale and shift, and gamma and beta begin at zero: the U-Net begins
as the foundation's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional as F

from morphogen.generators.siamese.hints import conv3x3, zero_conv3x3


class Spade(nn.Module):
    """gamma and beta of one normalisation layer, of a hidden layer that they share.

    Args:
        channels: Of the activations.
        classes: K, background included.
        width: Channels of the hidden layer.
    """

    def __init__(self, channels: int, classes: int, width: int) -> None:
        super().__init__()
        self.shared = conv3x3(classes, width)
        self.gamma, self.beta = zero_conv3x3(width, channels), zero_conv3x3(width, channels)

    def forward(self, h: Tensor, maps: Tensor) -> Tensor:
        """h (1 + gamma(m)) + beta(m).

        Args:
            h: (B, C, h, w) normalised activations.
            maps: (B, K, h, w) share of each class in each cell.
        """
        hidden = F.relu(self.shared(maps))
        return h * (1 + self.gamma(hidden)) + self.beta(hidden)


class SpadeLayers(nn.Module):
    """The SPADE layers of one U-Net, hung behind its normalisation layers; the U-Net itself stays a plain one.

    Args:
        unet: Its middle block and decoder are hung with layers, which act from the first `given` on.
        classes: K, background included.
        width: Channels of the hidden layers.
    """

    def __init__(self, unet: UNet2DConditionModel, classes: int, width: int) -> None:
        super().__init__()
        norms = norms_of(unet)
        self.layers = nn.ModuleDict({name: Spade(norm.num_channels, classes, width) for name, norm in norms.items()})
        self._maps: Tensor | None = None
        self._sized: dict[Sequence[int], Tensor] = {}
        for name, norm in norms.items():
            norm.register_forward_hook(self._behind(self.layers[name]))

    def given(self, maps: Tensor | None) -> None:
        """State the masks of the calls that follow.

        They stay until others are given: where activations are computed again for the gradient, that is done with them.

        Args:
            maps: (B, K, H, W) as of `class_maps`, a row for each row of the U-Net's call; None: the layers rest.
        """
        self._maps, self._sized = maps, {}

    def _behind(self, layer: nn.Module) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def modulated(norm: nn.Module, inputs: tuple[Tensor, ...], h: Tensor) -> Tensor:
            if self._maps is None:
                return h
            size = tuple(h.shape[-2:])
            if size not in self._sized:
                self._sized[size] = shares(self._maps, size)
            made: Tensor = layer(h, self._sized[size])
            return made

        return modulated


def norms_of(unet: UNet2DConditionModel) -> Mapping[str, nn.GroupNorm]:
    """The normalisation layers of the residual blocks behind the encoder, by names without dots."""
    blocks = {"mid": unet.mid_block, **{f"up-{i}": block for i, block in enumerate(unet.up_blocks)}}
    return {
        f"{name}-{j}-{norm}": getattr(resnet, norm)
        for name, block in blocks.items()
        for j, resnet in enumerate(block.resnets)
        for norm in ("norm1", "norm2")
    }


def class_maps(masks: Tensor, classes: int) -> Tensor:
    """(B, H, W) int64 label ids to (B, K, H, W) float32, one-hot; zeros everywhere stand for no mask (SDM, 3.3)."""
    return F.one_hot(masks, classes).movedim(-1, 1).float()


def shares(maps: Tensor, size: Sequence[int]) -> Tensor:
    """(B, K, H, W) one-hot maps to (B, K, h, w): the share of each class in each cell of a coarser grid."""
    return F.interpolate(maps, size=tuple(size), mode="area")


def without_masks(maps: Tensor, rows: Tensor) -> Tensor:
    """The maps, zero in the `rows` (B,) bool that shall be painted without a mask."""
    return torch.where(rows.view(-1, 1, 1, 1), torch.zeros_like(maps), maps)
