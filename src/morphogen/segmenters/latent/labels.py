"""Label maps as pictures that an image autoencoder can hold, and back.

Every class has a colour in [-1, 1]^3. For two classes these are black and white, as published. For K classes they are
points of the smallest grid of n^3 >= K evenly spaced points, taken from the corner (-1, -1, -1) on, each as far as
possible from those taken before (of equally far ones the first in the order of the grid).
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from morphogen.errors import InputError

MAX_CLASSES = 256
_GAP = 16.0
"""Difference of the logits of a class and its nearest neighbour where the picture has the class's very colour."""
_CERTAIN = 1e-6
"""Probabilities are kept this far from 0 and 1, so that logits are finite."""


@lru_cache
def _points(n_classes: int) -> tuple[tuple[float, float, float], ...]:
    with torch.device("cpu"):  # wherever a network is being built, its colours are numbers
        side = next(n for n in range(2, MAX_CLASSES) if n**3 >= n_classes)
        levels = torch.linspace(-1, 1, side, dtype=torch.float64)
        grid = torch.cartesian_prod(levels, levels, levels)
        chosen = [0]
        nearest = torch.full((len(grid),), torch.inf, dtype=torch.float64)
        while len(chosen) < n_classes:
            nearest = torch.minimum(nearest, (grid - grid[chosen[-1]]).square().sum(dim=1))
            chosen.append(int((nearest >= nearest.max() - 1e-9).nonzero()[0]))
    return tuple((float(r), float(g), float(b)) for r, g, b in grid[chosen])


def colours(n_classes: int) -> Tensor:
    """(K, 3) float32 in [-1, 1]: the colour of every class.

    Raises:
        InputError: There are more classes than colours.
    """
    if not 2 <= n_classes <= MAX_CLASSES:
        raise InputError(
            f"latent: {n_classes} classes; it has colours for 2 to {MAX_CLASSES}, so join some of them, or take unet"
        )
    return torch.tensor(_points(n_classes))


def picture(mask: Tensor, palette: Tensor) -> Tensor:
    """(B, H, W) int64 class ids -> (B, 3, H, W) in [-1, 1], every pixel in the colour of its class."""
    return palette[mask].movedim(-1, 1)


def distances(decoded: Tensor, palette: Tensor) -> Tensor:
    """Logits by distance: -s |D - colour_k|^2, s such that at a class's own colour the next class is `_GAP` below.

    Args:
        decoded: (B, 3, H, W), not clipped.
        palette: (K, 3).

    Returns:
        (B, K, H, W), less the term that all classes share.
    """
    nearest = torch.pdist(palette.float()).min().square()
    # |D|^2 is the same for all k
    norms = palette.square().sum(dim=1).view(1, -1, 1, 1)
    return _GAP / nearest * (2 * F.conv2d(decoded, palette[:, :, None, None]) - norms)


def logits(decoded: Tensor, palette: Tensor) -> Tensor:
    """Logits of a decoded picture.

    For two classes their softmax is (1 - y, y), y = mean over channels of clip((D + 1) / 2, 0, 1), as published: the
    class is 1 where y > 0.5. For more they are `distances`.

    Args:
        decoded: (B, 3, H, W).
        palette: (K, 3).

    Returns:
        (B, K, H, W) float32, finite.
    """
    if len(palette) > 2:
        return distances(decoded.float(), palette)
    y = ((decoded.float() + 1) / 2).clamp(0, 1).mean(dim=1, keepdim=True)
    z = torch.logit(y, eps=_CERTAIN)
    return torch.cat([torch.zeros_like(z), z], dim=1)
