"""Networks that were published for lesion and background alone, with any number of classes.

They emit one map z of the lesion and read it by a sigmoid. Here they emit K - 1 maps, one for each foreground class,
beside which the background's logit is 0: for K = 2 the softmax over (0, z) is the published sigmoid(z).
"""

from __future__ import annotations

import torch
from torch import Tensor


def with_background(z: Tensor) -> Tensor:
    """(B, K - 1, H, W) logits of the foreground classes -> (B, K, H, W), the background's being 0."""
    return torch.cat([torch.zeros_like(z[:, :1]), z], dim=1)
