"""The structure loss of polyp segmenters: cross-entropy and IoU, both weighted towards the outline of the lesion.

Wei, Wang and Huang, "F3Net" (AAAI 2020, arXiv:1911.11445, equations 5 to 7), as Fan et al., "PraNet" (MICCAI 2020,
arXiv:2006.11392) use it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from morphogen.segmenters.binary import with_background

_WINDOW = 31
_GAIN = 5.0


def structure_loss(z: Tensor, mask: Tensor) -> Tensor:
    """Weighted cross-entropy plus weighted IoU, the mean over images.

    With m_k the mask of foreground class k and w_k = 1 + 5 |mean of m_k in a window of 31 x 31 px - m_k|, which is
    largest along its outline:

    * cross-entropy: sum(w c) / sum(w) over pixels, c = -log p(true class), w = max_k w_k
    * IoU: 1 - (sum(w_k p_k m_k) + 1) / (sum(w_k (p_k + m_k - p_k m_k)) + 1), the mean over k

    For one foreground class this is the published loss of a sigmoid map; the rest is its extension to more.

    Args:
        z: (B, K - 1, H, W) logits of the foreground classes beside a background of 0 (see `with_background`).
        mask: (B, H, W) int64 class ids.

    Returns:
        Scalar, 0 or more.
    """
    logits = with_background(z.float())
    truth = F.one_hot(mask, logits.shape[1]).movedim(-1, 1)[:, 1:].to(logits.dtype)
    # beyond the image all counts as background
    weight = 1 + _GAIN * (F.avg_pool2d(truth, _WINDOW, stride=1, padding=_WINDOW // 2) - truth).abs()
    pixel = weight.amax(dim=1)
    cross_entropy = (pixel * F.cross_entropy(logits, mask, reduction="none")).sum((1, 2)) / pixel.sum((1, 2))
    p = logits.softmax(dim=1)[:, 1:]
    both = (weight * p * truth).sum((2, 3))
    union = (weight * (p + truth)).sum((2, 3)) - both
    iou = (1 - (both + 1) / (union + 1)).mean(dim=1)
    return torch.mean(cross_entropy + iou)
