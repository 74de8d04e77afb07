"""The images of a folder as pictures of one size, for everything that compares sets of images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from morphogen.data.faults import Fault, FaultError, stop
from morphogen.data.folders import NO_MASK
from morphogen.data.images import load_image, load_rgb
from morphogen.data.readers import scan
from morphogen.data.records import Record

Size = tuple[int, int]


def find_pictures(folder: Path) -> list[Record]:
    """Records of a folder in any layout, ordered by id; masks are not looked into, nor missed.

    Raises:
        InputError: The folder is missing or empty, or a file is at fault.
    """
    return scan(folder, sink=_stop)


def picture(record: Record, size: Size | None = None) -> np.ndarray:
    """(H, W, 3) uint8, at `size` (height, width; plain antialiased resize) or as it is.

    Raises:
        InputError: The file cannot be read, or holds NaN.
    """
    pixels = load_image(record)
    if pixels.dtype == np.float32 and not np.isfinite(pixels).all():
        raise FaultError(record.image, "holds NaN or infinite values", "replace them by numbers")
    image = load_rgb(record)
    if size is None or image.shape[:2] == size:
        return image
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.LANCZOS))


def pictures(records: list[Record], size: Size | None = None) -> Iterator[np.ndarray]:
    """`picture` of every record, one at a time."""
    return (picture(record, size) for record in records)


def _stop(fault: Fault) -> None:
    if not fault.fault.startswith(NO_MASK):
        stop(fault)
