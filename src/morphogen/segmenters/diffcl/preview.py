"""Pictures of segmented volumes: three orthogonal slices with outlines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_GAP = 4
_SHOWN = 192
"""Smallest longer side of a row, in px: small slices are shown larger."""


def write_preview(
    path: Path, images: Sequence[NDArray[np.float32]], labels: Sequence[NDArray[np.uint8]], made: Sequence[NDArray]
) -> None:
    """One PNG, a row an image: its slices plain, then outlined (reference green, prediction red, both yellow).

    Volumes are cut along each axis through the middle of the reference, or of the volume where that is empty.

    Args:
        path: File to write.
        images: Each (C, *S); the first channel is shown, of pictures with three all of them.
        labels: Reference label maps (*S).
        made: Predicted label maps (*S).
    """
    from PIL import Image

    rows = [_row(*three) for three in zip(images, labels, made, strict=True)]
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, _GAP), (0, width - row.shape[1]), (0, 0))) for row in rows]
    Image.fromarray(np.concatenate(padded)).save(path)


def outlined(grey: NDArray[np.uint8], reference: NDArray, predicted: NDArray) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 with the outlines of two label maps (H, W)."""
    from skimage.segmentation import find_boundaries

    picture = grey.copy()
    lines = np.stack([find_boundaries(m.astype(np.int64), mode="inner") for m in (predicted, reference)], axis=-1)
    drawn = lines.any(axis=-1)
    picture[drawn] = 0
    picture[..., :2][drawn] = 255 * lines[drawn]
    return picture


def _row(image: NDArray[np.float32], label: NDArray, made: NDArray) -> NDArray[np.uint8]:
    if label.ndim == 2:
        cuts = [(_colour(image), label, made)]
    else:
        centre = _centre(label)
        cuts = [
            (_colour(np.take(image[:1], i, axis=axis + 1)), label.take(i, axis=axis), made.take(i, axis=axis))
            for axis, i in reversed(list(enumerate(centre)))
        ]
    times = max(1, -(-_SHOWN // max(max(cut[1].shape) for cut in cuts)))
    cuts = [(_larger(a, times), _larger(b, times), _larger(c, times)) for a, b, c in cuts]
    pictures = [picture for grey, *_ in cuts for picture in (grey,)] + [outlined(*cut) for cut in cuts]
    height = max(picture.shape[0] for picture in pictures)
    return np.concatenate([np.pad(p, ((0, height - p.shape[0]), (0, _GAP), (0, 0))) for p in pictures], axis=1)


def _centre(label: NDArray) -> list[int]:
    inside = np.argwhere(label > 0)
    return [int(m) for m in (inside.mean(axis=0).round() if len(inside) else np.array(label.shape) // 2)]


def _colour(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(C, H, W) -> (H, W, 3) uint8, stretched between its first and last percent."""
    low, high = np.percentile(image, (1, 99))
    levels = (255 * ((image - low) / max(high - low, 1e-6)).clip(0, 1)).astype(np.uint8)
    shown = levels if len(levels) == 3 else np.repeat(levels[:1], 3, axis=0)
    return np.ascontiguousarray(shown.transpose(1, 2, 0))


def _larger(values: NDArray, times: int) -> NDArray:
    return values.repeat(times, axis=0).repeat(times, axis=1)
