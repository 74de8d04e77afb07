"""The probability correction strategy: each side of the boundary is weighted by how rare it is.

Wei et al., SANet (MICCAI 2021, arXiv:2108.00882): a net that was trained on small lesions among much background is
timid about the lesion. In use, not in training, positive logits are divided by the part of the image that is positive,
negative ones by the part that is negative.
"""

from __future__ import annotations

import torch
from torch import Tensor


def corrected(z: Tensor) -> Tensor:
    """Logits whose rarer side is made surer; no label changes.

    For one foreground class this is the published rule. For more, a pixel counts as positive where any class is, so
    that all classes of an image are scaled alike and none is preferred to another.

    Args:
        z: (B, K - 1, H, W) logits of the foreground classes, the background's being 0.

    Returns:
        The same shape.
    """
    top = z.amax(dim=1, keepdim=True)
    one = 1 / (z.shape[-1] * z.shape[-2])  # where a side is empty, nothing is divided by it
    positive, negative = (part.float().mean((2, 3), keepdim=True).clamp(min=one) for part in (top > 0, top < 0))
    return torch.where(z > 0, z / positive, z / negative)
