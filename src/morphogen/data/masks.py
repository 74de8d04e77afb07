"""Masks from files: integer label maps, read strictly. A value without a rule is an error, never a guess."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from morphogen.data.faults import FaultError
from morphogen.data.images import load_volume, open_image, slice_of
from morphogen.data.records import Record

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_CLASSES = 256
_LOWEST, _HIGHEST = -(2**15), 2**16 - 1


def raw_mask(path: Path, plane: tuple[int, int] | None = None) -> NDArray[np.int64]:
    """The values in a mask file, before any rule is applied.

    A palette of greys gives the greys, a coloured palette its indices; RGB and RGBA masks must be grey (or white with
    the shape in the alpha channel); 16 bits stay 16 bits. With `plane`, one slice of a NIfTI volume.

    Returns:
        (H, W) int64.

    Raises:
        InputError: Unreadable, or a colour picture, or not whole numbers.
    """
    if plane is not None:
        return _whole(slice_of(path, plane), path)
    with open_image(path) as image:
        if image.mode == "P":
            return _palette_values(image)
        array = np.array(image)
        if image.mode in ("LA", "La", "RGB", "RGBA", "RGBX"):
            return _grey_of(array, path)
        if array.ndim != 2 or (array.dtype.kind == "f" and not np.array_equal(array, np.trunc(array))):
            raise FaultError(path, f"is not a label map (mode {image.mode})", "save labels as whole grey values")
        return array.astype(np.int64)


def label_volume(path: Path) -> NDArray[np.int64]:
    """All labels of a NIfTI volume, (X, Y, Z) int64.

    Raises:
        InputError: Unreadable, or values that are not whole numbers.
    """
    return _whole(load_volume(path), path)


def _whole(values: NDArray[Any], path: Path) -> NDArray[np.int64]:
    if not np.isfinite(values).all():
        raise FaultError(path, "holds NaN or infinite values", "save labels as integers")
    if not np.array_equal(values, np.trunc(values)):
        raise FaultError(path, "holds values that are not whole numbers", "save labels as integers")
    labels: NDArray[np.int64] = values.astype(np.int64)
    return labels


def _palette_values(image: Image.Image) -> NDArray[np.int64]:
    index = np.array(image)
    colours = np.array(image.getpalette("RGB"), dtype=np.int64).reshape(-1, 3)
    used = np.unique(index)
    if used[-1] < len(colours) and (colours[used] == colours[used][:, :1]).all():
        return colours[index, 0]
    return index.astype(np.int64)


def _grey_of(array: NDArray[Any], path: Path) -> NDArray[np.int64]:
    colour, alpha = (array[..., :-1], array[..., -1]) if array.shape[-1] in (2, 4) else (array, None)
    if (colour != colour[..., :1]).any():
        raise FaultError(path, "is a colour picture, not a label map", "save one grey value per class")
    grey = colour[..., 0]
    if alpha is not None and grey.min() == grey.max() and alpha.min() != alpha.max():
        return alpha.astype(np.int64)
    return grey.astype(np.int64)


def value_counts(path: Path, plane: tuple[int, int] | None = None) -> dict[int, int]:
    """Pixels per raw value of a mask file (of a whole volume where the file is one and `plane` is None)."""
    if plane is None and path.name.lower().endswith((".png", ".bmp")):
        with open_image(path) as image:
            if image.mode == "L":  # the histogram of the decoder is several times faster than numpy
                return {value: n for value, n in enumerate(image.histogram()) if n}
    array = label_volume(path) if path.name.lower().endswith((".nii", ".nii.gz")) else raw_mask(path, plane)
    values, counts = np.unique(array, return_counts=True)
    return {int(v): int(n) for v, n in zip(values, counts, strict=True)}


def apply_rule(raw: NDArray[np.int64], mask_values: Mapping[int, int], path: Path) -> NDArray[np.int64]:
    """Raw values to label ids.

    Args:
        raw: (H, W) int64.
        mask_values: Raw value -> label id; values of 16-bit files, signed or not.
        path: Named in the error.

    Returns:
        (H, W) int64.

    Raises:
        InputError: A value has no rule.
    """
    if not raw.size:
        return raw
    low, high = (
        max(int(raw.min()), _LOWEST - 1),
        min(int(raw.max()), _HIGHEST + 1),
    )  # one cell more for what lies beyond
    table = np.full(high - low + 1, -1, dtype=np.int64)
    for value, label in mask_values.items():
        if max(low, _LOWEST) <= value <= min(high, _HIGHEST):
            table[value - low] = label
    labels: NDArray[np.int64] = table[(raw.clip(low, high) if raw.max() > high or raw.min() < low else raw) - low]
    if labels.min() < 0:
        rule = "state a label for every value with --mask-values"
        raise FaultError(path, f"holds the value {raw[labels < 0][0]}, for which no label was decided", rule)
    return labels


def load_mask(record: Record, mask_values: Mapping[int, int]) -> NDArray[np.int64]:
    """Label map of a record, at its native size.

    Args:
        record: A record with a mask.
        mask_values: Raw value -> label id (`Dataset.mask_values`).

    Returns:
        (H, W) int64 label ids.

    Raises:
        InputError: No mask, unreadable, or a value without a rule.
    """
    if record.mask is None:
        raise FaultError(record.image, "has no mask", "use the annotated records only")
    return apply_rule(raw_mask(record.mask, record.plane), mask_values, record.mask)


def resize_labels(labels: NDArray[Any], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Nearest-neighbour resize (pixel centres aligned) of a label map with at most 256 classes.

    Args:
        labels: (H, W) integer label ids in 0..255.
        size: (height, width) wanted.

    Returns:
        (height, width) uint8.
    """
    picture = Image.fromarray(labels.astype(np.uint8))
    return np.array(picture.resize((size[1], size[0]), Image.Resampling.NEAREST))
