"""Colour exchange: an image keeps its content and takes the colours of another one.

Wei et al., "Shallow Attention Network for Polyp Segmentation" (MICCAI 2021, arXiv:2108.00882), after Reinhard et al.,
"Color Transfer between Images" (2001): in CIE Lab, each channel gets the mean and the standard deviation of the other
image's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_FLAT = 1e-6
"""Below this standard deviation a channel is flat: nothing in it can be stretched."""


def exchange_colour(image: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`image` with the mean and the standard deviation, per channel of CIE Lab, of `other`.

    Args:
        image: (3, R, R) RGB.
        other: (3, R', R') RGB; its content does not matter, nor its size.

    Returns:
        (3, R, R) RGB. Colours outside of sRGB are clipped.
    """
    from skimage.color import lab2rgb

    own, mean, std = _lab(image)
    _, other_mean, other_std = _lab(other)
    lab = (own - mean) / np.maximum(std, _FLAT) * other_std + other_mean
    lab[..., 0] = lab[..., 0].clip(0, 100)
    # beyond this b, the CIE's Z would be negative
    lab[..., 2] = np.minimum(lab[..., 2], 200 * (lab[..., 0] + 16) / 116)
    rgb = np.rint(lab2rgb(lab) * 255).astype(np.uint8)
    return np.ascontiguousarray(rgb.transpose(2, 0, 1))


def _lab(image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """(H, W, 3) in CIE Lab (D65), and the mean and standard deviation of its channels."""
    from skimage.color import rgb2lab

    # 32 bits: twice as fast, and a hundredth of a grey level off at most
    lab: NDArray[np.float32] = rgb2lab((image.transpose(1, 2, 0) / 255).astype(np.float32))
    wide = lab.reshape(-1, 3).astype(np.float64)
    return lab, wide.mean(axis=0).astype(np.float32), wide.std(axis=0).astype(np.float32)
