"""Hint images: what the ControlNet sees of a mask, and of a real image."""

from __future__ import annotations

import colorsys

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def palette(classes: int) -> NDArray[np.float32]:
    """(K, 3) colour of each label id in [0, 1]: black background, white for one class, else evenly spaced hues."""
    if classes == 2:
        return np.array([[0, 0, 0], [1, 1, 1]], dtype=np.float32)
    hues = [colorsys.hsv_to_rgb(k / (classes - 1), 1.0, 1.0) for k in range(classes - 1)]
    return np.array([(0.0, 0.0, 0.0), *hues], dtype=np.float32)


def mask_hint(masks: NDArray[np.integer], classes: int) -> Tensor:
    """(B, H, W) label ids to (B, 3, H, W) float32 in [0, 1]: binary masks replicated (published), else coloured."""
    return torch.from_numpy(palette(classes)[masks]).permute(0, 3, 1, 2).contiguous()


def image_hint(images: NDArray[np.uint8]) -> Tensor:
    """(B, 3, H, W) uint8 to float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).float() / 255


def hints_of(masks: NDArray[np.integer], classes: int, images: NDArray[np.uint8] | None) -> list[Tensor]:
    """The hint of B masks (B, H, W), and that of their real images (B, 3, H, W) where there are any."""
    return [mask_hint(masks, classes), *([] if images is None else [image_hint(images)])]
