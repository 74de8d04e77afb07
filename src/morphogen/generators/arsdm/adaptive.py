"""ArSDM's adaptive loss: the smaller of lesion and background weighs more (Du et al., MICCAI 2023, arXiv 2309.01111).

With M the lesion's mask and r its share of the image, the weight of a pixel is

    W = (1 - r) M + r (1 - M)

so that lesion and background weigh the same, r (1 - r) each, whatever their sizes. The loss is the mean of
W |eps - eps_theta| (L1, as in the published configuration).
"""

from __future__ import annotations

import torch
from torch import Tensor

EVEN = 0.5
"""Weight of every pixel where there is no lesion, or nothing else: that of r = 1/2. The equation has 0 there, by which
such an image would teach nothing."""


def adaptive_weights(lesion: Tensor) -> Tensor:
    """W, the same sizes as `lesion`.

    Args:
        lesion: (B, 1, h, w) in [0, 1], the share of each cell that is lesion. As W is linear in M, a cell's weight is
            the mean over its pixels.
    """
    r = lesion.mean(dim=(1, 2, 3), keepdim=True)
    weights = (1 - r) * lesion + r * (1 - lesion)
    return torch.where((r == 0) | (r == 1), torch.full_like(weights, EVEN), weights)


def noise_loss(eps: Tensor, predicted: Tensor, lesion: Tensor | None) -> Tensor:
    """Mean of W |eps - eps_theta|, or of |eps - eps_theta| where `lesion` is None.

    Args:
        eps: (B, C, h, w) noise.
        predicted: (B, C, h, w) as the U-Net foretells it.
        lesion: (B, 1, h, w) as of `adaptive_weights`.
    """
    error = (eps - predicted).abs()
    return (error if lesion is None else adaptive_weights(lesion) * error).mean()
