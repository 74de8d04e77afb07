"""Whole volumes from files: NIfTI, and HDF5 as of `hdf5.py`, which says nothing of voxel sizes and directions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from morphogen.data.faults import FaultError
from morphogen.data.images import is_volume, load_volume, volume_shape
from morphogen.data.masks import apply_rule
from morphogen.data.records import Record
from morphogen.data.volumes.hdf5 import IMAGE_KEY, LABEL_KEY, array_shape, is_h5, read_array

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MIN_DETERMINANT = 1e-12
_SAME_GRID = 0.01
"""By how much of a voxel two headers may differ in its size or direction: rounding of the tools that wrote them."""


@dataclass(frozen=True)
class Volume:
    """One case as its files state it.

    Attributes:
        image: (C, X, Y, Z) float32, finite.
        spacing: Size of a voxel along X, Y and Z in mm, or None where the file has none (HDF5).
        affine: (4, 4) float64 from voxel indices to mm (NIfTI's RAS+), or None where the file has none.
    """

    image: NDArray[np.float32]
    spacing: tuple[float, float, float] | None
    affine: NDArray[np.float64] | None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(X, Y, Z) in voxels."""
        x, y, z = self.image.shape[1:]
        return x, y, z


def is_volume_file(path: Path) -> bool:
    """Whether the name is that of a file which holds a whole volume; hidden files are not."""
    return not path.name.startswith(".") and (is_volume(path) or is_h5(path))


def read_volume(record: Record) -> Volume:
    """All channels of a case.

    Args:
        record: A record whose `image` is a NIfTI or HDF5 file; its further channels are in `channels`.

    Returns:
        The volume; its axes are in the order that `record.axes` asks for.

    Raises:
        InputError: A file is missing, damaged, not 3D, holds NaN or infinite values, or the channels have other grids.
    """
    files = (record.image, *record.channels)
    arrays = [_in_order(_finite(_raw(file, IMAGE_KEY), file), record.axes) for file in files]
    for file, array in zip(files, arrays, strict=True):
        if array.shape != arrays[0].shape:
            fault = f"has the shape {array.shape}, the first channel {arrays[0].shape}"
            raise FaultError(file, fault, "resample one of the two, or take the matching file")
        _refuse_other_grid(file, record.image, "the first channel")
    spacing, affine = _geometry(record.image, record.axes)
    return Volume(np.stack(arrays), spacing, affine)


def read_label(record: Record, mask_values: Mapping[int, int]) -> NDArray[np.int64]:
    """Label map of a case, on the grid of its image.

    Args:
        record: A record with a mask; its axes are put in the order that `record.axes` asks for.
        mask_values: Raw value -> label id (`Dataset.mask_values`).

    Returns:
        (X, Y, Z) int64 label ids.

    Raises:
        InputError: No mask, unreadable, values that are no whole numbers, or a value without a rule.
    """
    if record.mask is None:
        raise FaultError(record.image, "has no label", "use the labelled volumes only")
    return _in_order(apply_rule(raw_label(record.mask), mask_values, record.mask), record.axes)


def raw_label(path: Path) -> NDArray[np.int64]:
    """The values of a label file before any rule is applied, in the order of the file's axes.

    Returns:
        (X, Y, Z) int64.

    Raises:
        InputError: Unreadable, or values that are no whole numbers.
    """
    values = _raw(path, LABEL_KEY)
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise FaultError(path, "holds NaN or infinite labels", "save labels as integers")
        if not np.array_equal(values, np.trunc(values)):
            raise FaultError(path, "holds labels that are not whole numbers", "save labels as integers")
    return values.astype(np.int64)


def shape_of(path: Path, key: str = IMAGE_KEY) -> tuple[int, int, int]:
    """Shape of a volume, from its header alone; `key` is read of HDF5 files only.

    Raises:
        InputError: Unreadable, not 3D (axes of length 1 before or after the three aside), or too large.
    """
    return array_shape(path, key) if is_h5(path) else volume_shape(path)


def refuse_other_geometry(record: Record) -> None:
    """Refuse a label that does not lie on the grid of its image (headers only).

    Raises:
        InputError: Shape, direction of the axes or voxel size differ.
    """
    if record.mask is None:
        return
    image, label = shape_of(record.image), shape_of(record.mask, LABEL_KEY)
    if image != label:
        fault = f"its label has the shape {label}, the image {image}" if record.mask == record.image else None
        fault = fault or f"has the shape {label}, its image {image}"
        raise FaultError(record.mask, fault, "resample one of the two, or take the matching file")
    _refuse_other_grid(record.mask, record.image, "its image")


def _raw(path: Path, key: str) -> NDArray[Any]:
    """(X, Y, Z) values of a file, of any real type, in the order of its axes."""
    if is_h5(path):
        return read_array(path, key)
    try:
        return load_volume(path)
    except (TypeError, ValueError) as error:  # colours are stored as records of three bytes
        raise FaultError(path, "does not hold one number a voxel", "save one grey volume per file") from error


def _finite(values: NDArray[Any], path: Path) -> NDArray[np.float32]:
    """As float32; NaN and infinities are refused, since a convolution spreads one over a whole patch."""
    kept: NDArray[np.float32] = values.astype(np.float32)
    bad = kept.size - int(np.isfinite(kept).sum())
    if bad:
        plural = "s" if bad > 1 else ""
        fault = f"holds NaN or infinite values in {bad} voxel{plural}"
        raise FaultError(path, fault, "replace them, e.g. by the value of air, or leave the volume out")
    return kept


def _in_order(values: NDArray[Any], axes: tuple[int, int, int] | None) -> NDArray[Any]:
    return values if axes is None else np.ascontiguousarray(values.transpose(axes))


def _affine(path: Path) -> NDArray[np.float64] | None:
    """From voxels to mm. A unit other than mm in the header is not looked at, as by most readers."""
    if is_h5(path):
        return None
    import nibabel

    header: Any = nibabel.load(path)
    affine: NDArray[np.float64] = np.asarray(header.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < _MIN_DETERMINANT:
        raise FaultError(path, "has a header without valid voxel sizes", "write it again with its affine")
    return affine


def _geometry(
    path: Path, axes: tuple[int, int, int] | None
) -> tuple[tuple[float, float, float] | None, NDArray[np.float64] | None]:
    affine = _affine(path)
    if affine is None:
        return None, None
    if axes is not None:
        affine = affine[:, [*axes, 3]]
    x, y, z = np.linalg.norm(affine[:3, :3], axis=0)
    return (float(x), float(y), float(z)), affine


def _refuse_other_grid(file: Path, first: Path, what: str) -> None:
    """Directions and sizes of voxels must agree; origins may not, since many tools lose them."""
    ours, theirs = _affine(file), _affine(first)
    if ours is None or theirs is None or file == first:
        return
    if np.abs(ours - theirs)[:3, :3].max() <= _SAME_GRID * np.abs(theirs[:3, :3]).max():
        return
    raise FaultError(file, f"has other voxel sizes or directions than {what}", "resample one of the two onto the other")
