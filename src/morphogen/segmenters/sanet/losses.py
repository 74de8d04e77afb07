"""SANet's Dice loss (Wei et al., MICCAI 2021), which is added to cross-entropy."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def dice_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """``1 - 2 sum(p g) / (sum(p) + sum(g) + 1)`` for each image and foreground class, then the mean.

    The 1 stands in the denominator alone, unlike in `morphogen.segmenters.losses.soft_dice_loss`: a class that an image
    lacks costs 1, whatever is predicted.

    Args:
        logits: (B, K, H, W).
        mask: (B, H, W) int64 class ids.
    """
    p = logits.float().softmax(dim=1)[:, 1:]
    truth = F.one_hot(mask, logits.shape[1]).movedim(-1, 1)[:, 1:].to(p.dtype)
    both, total = (p * truth).sum((2, 3)), (p + truth).sum((2, 3))
    return (1 - 2 * both / (total + 1)).mean()
