"""What a picture is worth by itself: sharpness, clipping, colour, glare; and whether it can be painted into."""

from __future__ import annotations

from typing import Any

import numpy as np

from morphogen.data.field_of_view import at_working_size, field_of_view

BRIGHT, DARK = 255, 0
LEAST_SHARPNESS = 6.0
"""Frames of four public sets, at most 512 px wide, have 7 and more; blurred by 2 px mostly less than 4."""
MOST_GLARE = 0.05
LEAST_FIELD = 0.3
"""Share of the frame that must be lit."""
_GLARING = 240
"""Grey level that all channels of a highlight reach."""


def quality(image: np.ndarray, field: np.ndarray | None = None) -> dict[str, Any]:
    """Whether a frame is fit to be painted into, measured in its field of view at `WORKING_SIDE`.

    Args:
        image: (H, W, 3) uint8.
        field: (H, W) bool, its field of view where it is known already.

    Returns:
        ``field`` (share of the frame that is lit), ``sharpness`` (`sharpness`), ``glare`` (share of the lit part whose
        channels all reach 240) and ``reasons``: why not to take it (``little field of view``, ``blurred``, ``glare``).
    """
    from scipy.ndimage import binary_erosion

    small = at_working_size(image)
    inside = field_of_view(small) if field is None or field.shape != small.shape[:2] else field
    share = float(np.mean(inside))
    # The border of the field is an edge, and its pixels are half dark.
    inner = binary_erosion(inside, iterations=1 + max(small.shape) // 100)
    if share < LEAST_FIELD or not inner.any():
        return {"field": share, "sharpness": 0.0, "glare": 0.0, "reasons": ["little field of view"]}
    sharp, glare = sharpness(small, inner), float((small.min(axis=2) >= _GLARING)[inner].mean())
    found = {"blurred": sharp < LEAST_SHARPNESS, "glare": glare > MOST_GLARE}
    return {"field": share, "sharpness": sharp, "glare": glare, "reasons": [r for r, holds in found.items() if holds]}


def sharpness(image: np.ndarray, where: np.ndarray | None = None) -> float:
    """Variance of the Laplacian of the grey image (Pech-Pacheco et al., ICPR 2000); low where an image is blurred.

    Args:
        image: (H, W, 3) uint8.
        where: (H, W) bool, the part to measure, with a pixel in it; all of it by default.
    """
    from scipy.ndimage import laplace

    grey = image.astype(np.float64) @ (0.299, 0.587, 0.114)
    edges = laplace(grey, mode="reflect")
    return float((edges if where is None else edges[where]).var())


def clipped(image: np.ndarray) -> float:
    """Share of pixels of an (H, W, 3) uint8 image with some channel at 255, or all at 0."""
    return float(((image >= BRIGHT).any(axis=2) | (image <= DARK).all(axis=2)).mean())


def colourfulness(image: np.ndarray) -> float:
    """How far an (H, W, 3) uint8 image is from grey, in grey levels: M of Hasler and Süsstrunk, 2003."""
    r, g, b = np.moveaxis(image.astype(np.float64), 2, 0)
    rg, yb = r - g, (r + g) / 2 - b
    return float(np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean()))
