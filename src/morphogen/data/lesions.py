"""Lesions in close-up: what is compared of images that are equal around the lesion by design."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from morphogen.data.pairs import Pairs

if TYPE_CHECKING:
    from numpy.typing import NDArray


def lesion(image: NDArray[np.uint8], mask: NDArray[np.integer]) -> NDArray[np.uint8]:
    """The lesion in a square of twice its size, enlarged to the full side; the image itself where there is none.

    Args:
        image: (3, R, R) uint8.
        mask: (R, R) label ids.

    Returns:
        (3, R, R) uint8.
    """
    side = int(image.shape[-1])
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return image
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    size = min(side, 2 * max(bottom - top, right - left))
    y, x = (float(np.clip((low + high - size) / 2, 0, side - size)) for low, high in ((top, bottom), (left, right)))
    picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    crop = picture.resize((side, side), Image.Resampling.BICUBIC, box=(x, y, x + size, y + size))
    return np.asarray(crop).transpose(2, 0, 1)


def lesions(pairs: Pairs) -> NDArray[np.uint8]:
    """(N, 3, R, R): the `lesion` of every image."""
    return np.stack([lesion(*pairs[i]) for i in range(len(pairs))])
