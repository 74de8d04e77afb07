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


def cross_entropy(logits: Tensor, mask: Tensor) -> Tensor:
    """Mean over all pixels of -log p(true class).

    Args:
        logits: (B, K, H, W).
        mask: (B, H, W) int64 class ids.
    """
    return F.cross_entropy(logits.float(), mask)


def soft_dice_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """One minus the soft Dice of Milletari et al. (V-Net, 2016; sums instead of squares), of every foreground class.

    ``1 - (2 sum(p g) + 1) / (sum(p) + sum(g) + 1)`` for each image and class, then the mean: an image without the class
    asks for an empty prediction.

    Args:
        logits: (B, K, H, W).
        mask: (B, H, W) int64 class ids.
    """
    probabilities = logits.float().softmax(dim=1)[:, 1:]
    truth = F.one_hot(mask, logits.shape[1]).movedim(-1, 1)[:, 1:].to(probabilities.dtype)
    both = (probabilities * truth).sum(dim=(2, 3))
    total = probabilities.sum(dim=(2, 3)) + truth.sum(dim=(2, 3))
    return (1 - (2 * both + _SMOOTH) / (total + _SMOOTH)).mean()
