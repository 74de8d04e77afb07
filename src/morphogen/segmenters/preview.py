"""Pictures of how a segmenter is doing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def write_preview(path: Path, images: NDArray[np.uint8], masks: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
    """One PNG: images above, the same with outlines below (reference green, prediction red, both yellow).

    Args:
        path: File to write.
        images: (N, 3, R, R) uint8.
        masks: (N, R, R) reference label maps.
        labels: (N, R, R) predicted label maps.
    """
    from PIL import Image
    from skimage.segmentation import find_boundaries

    columns = []
    for image, mask, predicted in zip(images.transpose(0, 2, 3, 1), masks, labels, strict=True):
        outlined = image.copy()
        lines = np.stack([find_boundaries(m.astype(np.int64), mode="inner") for m in (predicted, mask)], axis=-1)
        drawn = lines.any(axis=-1)
        outlined[drawn] = 0
        outlined[..., :2][drawn] = 255 * lines[drawn]
        columns.append(np.concatenate([image, outlined]))
    Image.fromarray(np.concatenate(columns, axis=1)).save(path)
