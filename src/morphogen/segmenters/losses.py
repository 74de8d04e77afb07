"""What a segmenter learns from: its own losses where it was published with some, else cross-entropy plus soft Dice.

All are means over rows, so that any split of a batch adds up.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from morphogen.segmenters.any_size import AnySize

_SMOOTH = 1.0


def losses_of(net: nn.Module, image: Tensor, mask: Tensor, seeds: Tensor) -> Mapping[str, Tensor]:
    """The losses of a batch by name; their sum is minimised.

    Args:
        net: As `morphogen.segmenters.build` makes it.
        image: (B, 3, H, W) in [-1, 1].
        mask: (B, H, W) int64 class ids.
        seeds: (B,) int64, of what is random about a row; nets whose losses draw nothing leave it aside.
    """
    if isinstance(net, AnySize) and net.has_losses:
        return net.losses(image, mask, seeds)
    logits = net(image)
    return {"cross_entropy": cross_entropy(logits, mask), "dice": soft_dice_loss(logits, mask)}


def cross_entropy(logits: Tensor, mask: Tensor, where: Tensor | None = None) -> Tensor:
    """Mean over all pixels of -log p(true class).

    Args:
        logits: (B, K, *S), S of two or three axes.
        mask: (B, *S) int64 class ids.
        where: (B, *S) bool, the pixels that count: the mean of each row is over its own, 0 where it has none. All by
            default.
    """
    if where is None:
        return F.cross_entropy(logits.float(), mask)
    each = F.cross_entropy(logits.float(), mask, reduction="none")
    counted = where.flatten(1).sum(dim=1)
    return ((each * where).flatten(1).sum(dim=1) / counted.clamp(min=1)).mean()


def soft_dice_loss(logits: Tensor, mask: Tensor, where: Tensor | None = None) -> Tensor:
    """One minus the soft Dice of Milletari et al. (V-Net, 2016; sums instead of squares), of every foreground class.

    ``1 - (2 sum(p g) + 1) / (sum(p) + sum(g) + 1)`` for each image and class, then the mean: an image without the class
    asks for an empty prediction.

    Args:
        logits: (B, K, *S), S of two or three axes.
        mask: (B, *S) int64 class ids.
        where: (B, *S) bool, the pixels that count; all by default.
    """
    probabilities = logits.float().softmax(dim=1)[:, 1:].flatten(2)
    truth = F.one_hot(mask.flatten(1), logits.shape[1]).movedim(-1, 1)[:, 1:].to(probabilities.dtype)
    if where is not None:
        counted = where.flatten(1)[:, None]
        probabilities, truth = probabilities * counted, truth * counted
    both = (probabilities * truth).sum(dim=2)
    total = probabilities.sum(dim=2) + truth.sum(dim=2)
    return (1 - (2 * both + _SMOOTH) / (total + _SMOOTH)).mean()
