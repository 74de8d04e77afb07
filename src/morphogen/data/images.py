"""Images from files, which are hostile until proven otherwise.

Only PNG, JPEG, TIFF and BMP are opened (and NIfTI, through nibabel); the size in the header is checked before anything
is decompressed. EXIF rotation: pixels are taken as stored, unless only the rotated picture fits the mask's size;
`check` reports every rotated file, because annotation tools differ in what they did with it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from morphogen.data.faults import FaultError
from morphogen.data.records import Record

if TYPE_CHECKING:
    from numpy.typing import NDArray

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
VOLUME_SUFFIXES = (".nii", ".nii.gz")
MAX_PIXELS = 80_000_000
MAX_VOXELS = 600_000_000
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
_EXIF_ORIENTATION = 0x0112
_PNG_TRUECOLOUR = ("RGB", "RGBA", "P", "CMYK", "YCbCr", "LAB", "HSV", "RGBX", "PA")


def is_image(path: Path) -> bool:
    """Whether the name is that of a readable image or volume; hidden files are not."""
    return not path.name.startswith(".") and path.name.lower().endswith((*SUFFIXES, *VOLUME_SUFFIXES))


def is_volume(path: Path) -> bool:
    """Whether the name is that of a NIfTI file."""
    return path.name.lower().endswith(VOLUME_SUFFIXES)


def stem(path: Path) -> str:
    """File name without its suffix; ``.nii.gz`` counts as one."""
    return path.name[: -len(".nii.gz")] if path.name.lower().endswith(".nii.gz") else path.stem


@contextmanager
def open_image(path: Path) -> Iterator[Image.Image]:
    """Open a 2D image with its header checked; what goes wrong, also while its pixels are read, becomes one line.

    Raises:
        InputError: Missing, not one of the formats, too large, truncated or otherwise undecodable.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # remarks on damaged tags; what matters becomes an error
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise Image.DecompressionBombError
                yield image
    except FaultError:
        raise
    except FileNotFoundError:
        raise FaultError(path, "does not exist", "restore the file or remove its record") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        fault = f"its header announces more than {MAX_PIXELS / 1e6:.0f} million pixels"
        raise FaultError(path, fault, "crop or downsample it, or remove the file") from None
    except UnidentifiedImageError:
        raise FaultError(path, "is not a PNG, JPEG, TIFF or BMP image", "convert or remove it") from None
    except Exception as error:  # decoders of broken files raise nearly every type there is
        detail = " ".join(str(error).split()) or type(error).__name__
        raise FaultError(path, f"cannot be decoded ({detail})", "replace or remove the file") from error


def volume_shape(path: Path) -> tuple[int, int, int]:
    """Shape of a NIfTI volume, from its header.

    Raises:
        InputError: Not NIfTI, not 3D (a trailing axis of length 1 aside), or too large.
    """
    shape = tuple(int(n) for n in _nifti(path).shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) == 2:
        shape = (*shape, 1)
    if len(shape) != 3:
        raise FaultError(path, f"has {len(shape)} axes", "give one 3D volume per file")
    if shape[0] * shape[1] * shape[2] > MAX_VOXELS:
        raise FaultError(path, f"announces more than {MAX_VOXELS / 1e6:.0f} million voxels", "crop or downsample it")
    return shape[0], shape[1], shape[2]


def _nifti(path: Path) -> Any:
    import nibabel

    try:
        return nibabel.load(path)
    except FileNotFoundError:
        raise FaultError(path, "does not exist", "restore the file or remove its record") from None
    except Exception as error:  # nibabel raises zlib, struct and its own errors alike
        raise FaultError(path, "is not a readable NIfTI file", "replace or remove the file") from error


def load_volume(path: Path) -> NDArray[Any]:
    """The whole volume, (X, Y, Z), scaled by the header's slope; uint8, uint16 or float32 (labels: see `masks`)."""
    return _load_volume(path, path.stat().st_mtime_ns if path.exists() else 0)


@lru_cache(maxsize=2)  # records are ordered by id, so the slices of one volume are asked for in a row
def _load_volume(path: Path, _mtime: int) -> NDArray[Any]:
    shape = volume_shape(path)
    try:
        array = np.asanyarray(_nifti(path).dataobj).reshape(shape)
    except Exception as error:  # truncated gzip streams raise zlib.error, EOFError, OSError or ValueError
        raise FaultError(path, "is truncated or damaged", "replace or remove the file") from error
    kept: NDArray[Any] = array if array.dtype in (np.uint8, np.uint16) else array.astype(np.float32)
    kept.flags.writeable = False
    return kept


def slice_of(path: Path, plane: tuple[int, int]) -> NDArray[Any]:
    """Slice ``plane = (axis, index)`` of a volume, in the order of the file's axes (no transposition)."""
    axis, index = plane
    volume = load_volume(path)
    return np.asarray(np.take(volume, index, axis=axis))


def image_size(path: Path, plane: tuple[int, int] | None = None) -> tuple[int, int]:
    """(height, width) as stored, from the header alone.

    Raises:
        InputError: The header cannot be read or announces too many pixels.
    """
    if plane is not None:
        shape = volume_shape(path)
        height, width = (n for axis, n in enumerate(shape) if axis != plane[0])
        return height, width
    with open_image(path) as image:
        return image.height, image.width


def exif_orientation(path: Path) -> int:
    """EXIF orientation tag of a 2D image; 1 where there is none."""
    with open_image(path) as image:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))


def fits(record: Record) -> bool:
    """Whether image and mask have one size, as stored or with the image turned as its EXIF tag says (headers only)."""
    if record.mask is None:
        return True
    height, width = image_size(record.image, record.plane)
    mask_size = image_size(record.mask, record.plane)
    return mask_size == (height, width) or (
        record.plane is None and mask_size == (width, height) and exif_orientation(record.image) >= 5
    )


def load_image(record: Record) -> NDArray[Any]:
    """Pixels of a record's image.

    Palette, CMYK and RGBA become RGB (alpha is dropped), bilevel becomes 0/255. Pillow reads 16 bits per channel of an
    RGB file as 8. A slice of a volume comes in the order of the file's axes.

    Returns:
        (H, W) or (H, W, 3), uint8, uint16 or float32.

    Raises:
        InputError: The file is missing, not an image, too large, truncated, or has several pages.
    """
    if record.plane is not None:
        return slice_of(record.image, record.plane)
    mask_size = None if record.mask is None else image_size(record.mask)
    with open_image(record.image) as image:
        turn = (
            mask_size is not None
            and mask_size != (image.height, image.width)
            and mask_size == (image.width, image.height)
            and image.getexif().get(_EXIF_ORIENTATION, 1) >= 5
        )
        return _pixels(ImageOps.exif_transpose(image) if turn else image, record.image)


def _pixels(image: Image.Image, path: Path) -> NDArray[Any]:
    if image.format == "TIFF" and getattr(image, "n_frames", 1) > 1:
        raise FaultError(path, "has several pages", "save one page per file")
    if image.mode in _PNG_TRUECOLOUR:
        return np.array(image.convert("RGB"))
    if image.mode in ("1", "L", "LA", "La"):
        return np.array(image.convert("L"))
    array = np.array(image)
    if array.dtype.kind in "iu" and array.min() >= 0 and array.max() <= 65535:
        return array.astype(np.uint16)
    return array.astype(np.float32)


def to_rgb_uint8(array: NDArray[Any], window: tuple[float, float] | None = None) -> NDArray[np.uint8]:
    """8-bit RGB from any image.

    8-bit values stay as they are. Others are mapped linearly from `window` to [0, 255] and clipped; the default window
    is this image's own 0.5th to 99.5th percentile, so 12 bits stored in 16 do not turn black. NaN counts as the lower
    end.

    Args:
        array: (H, W) or (H, W, 3), uint8, uint16 or float32.
        window: (low, high) in the image's own units.

    Returns:
        (H, W, 3) uint8.
    """
    if array.dtype != np.uint8:
        values = array.astype(np.float64)
        low, high = window or _window(values)
        values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
        array = np.round((values - low) / max(high - low, 1e-12) * 255).clip(0, 255).astype(np.uint8)
    return np.repeat(array[..., None], 3, axis=2) if array.ndim == 2 else np.ascontiguousarray(array)


def load_rgb(record: Record) -> NDArray[np.uint8]:
    """A record's image as 8-bit RGB. All slices of a volume share one window, its 0.5th to 99.5th percentile.

    Returns:
        (H, W, 3) uint8.

    Raises:
        InputError: The image cannot be read.
    """
    return to_rgb_uint8(load_image(record), None if record.plane is None else _volume_window(record.image))


@lru_cache(maxsize=64)
def _volume_window(path: Path) -> tuple[float, float]:
    return _window(load_volume(path))


def _window(values: NDArray[Any]) -> tuple[float, float]:
    finite = values[np.isfinite(values)][:: 1 + values.size // 1_000_000]
    low, high = np.percentile(finite, (0.5, 99.5)) if finite.size else (0.0, 1.0)
    return float(low), float(high)
