"""The largest part of a frame that is free of something."""

from __future__ import annotations

import math

import numpy as np


def largest_region(free: np.ndarray, least: float) -> tuple[slice, slice] | None:
    """The largest box of the frame's shape without a pixel that is not free; the first of several from the top left.

    It has the aspect of the frame, so that resizing it distorts it as it does every other image.

    Args:
        free: (H, W) bool.
        least: Its smallest side, relative to the frame's.

    Returns:
        Rows and columns, or None where there is no such box.
    """
    height, width = free.shape
    taken = np.pad(np.cumsum(np.cumsum(~free, axis=0), axis=1), ((1, 0), (1, 0)))

    def corners(h: int) -> np.ndarray:
        w = max(1, round(h * width / height))
        return np.argwhere(taken[h:, w:] - taken[:-h, w:] - taken[h:, :-w] + taken[:-h, :-w] == 0)

    low, high = max(1, math.ceil(least * height)), height
    if not len(corners(low)):
        return None
    while low < high:  # a box of a free box is free
        middle = (low + high + 1) // 2
        low, high = (middle, high) if len(corners(middle)) else (low, middle - 1)
    row, column = (int(n) for n in corners(low)[0])
    return slice(row, row + low), slice(column, column + max(1, round(low * width / height)))
