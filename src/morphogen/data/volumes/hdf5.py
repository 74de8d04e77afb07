"""Arrays from HDF5 files, which are hostile until proven otherwise.

A file holds an image and perhaps its label under the names ``image`` and ``label``, as the public semi-supervised
benchmarks store them (UA-MT, SSL4MIS, CoraNet). Shapes are checked before anything is decompressed, and links into
other files are not followed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morphogen.data.faults import FaultError
from morphogen.data.images import MAX_VOXELS

if TYPE_CHECKING:
    from numpy.typing import NDArray

H5_SUFFIXES = (".h5", ".hdf5")
IMAGE_KEY, LABEL_KEY = "image", "label"


def is_h5(path: Path) -> bool:
    """Whether the name is that of an HDF5 file."""
    return path.name.lower().endswith(H5_SUFFIXES)


def read_array(path: Path, key: str) -> NDArray[Any]:
    """One array of a file.

    Args:
        path: The file.
        key: Its name, `IMAGE_KEY` or `LABEL_KEY`.

    Returns:
        (X, Y, Z), of any real type.

    Raises:
        InputError: Missing, damaged, without that array, not 3D (axes of length 1 before or after the three aside), not
            of numbers, or too large.
    """
    with _opened(path) as file:
        entry = _entry(file, key, path)
        values: NDArray[Any] = entry[()].reshape(_squeezed(entry.shape, path))
        return values


def array_shape(path: Path, key: str) -> tuple[int, int, int]:
    """Shape of an array, from its header alone.

    Raises:
        InputError: As `read_array`, as far as the header tells.
    """
    with _opened(path) as file:
        return _squeezed(_entry(file, key, path).shape, path)


def has_label(path: Path) -> bool:
    """Whether an HDF5 file holds a label beside its image.

    Raises:
        InputError: It is no readable HDF5 file, or holds no image.
    """
    with _opened(path) as file:
        _entry(file, IMAGE_KEY, path)
        return LABEL_KEY in file


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    import h5py

    if not path.is_file():
        raise FaultError(path, "does not exist", "restore the file or remove its record")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except FaultError:
        raise
    except Exception as error:  # damaged files raise OSError, KeyError, RuntimeError and ValueError alike
        raise FaultError(path, "is not a readable HDF5 file, or damaged", "replace or remove the file") from error


def _entry(file: Any, key: str, path: Path) -> Any:
    """The array of that name, checked in its header."""
    import h5py

    held = ", ".join(sorted(map(str, file))) or "nothing"
    if key not in file and file.get(key, getlink=True) is None:
        raise FaultError(path, f"has no array named {key!r} (it holds {held})", f"store the {key} under that name")
    plain = isinstance(file.get(key, getlink=True), h5py.HardLink)
    entry = file[key] if plain else None
    if not isinstance(entry, h5py.Dataset) or entry.external or entry.is_virtual:
        raise FaultError(path, f"{key!r} is no array of this very file", f"store the {key} itself under that name")
    if entry.dtype.kind not in "biuf":
        raise FaultError(path, f"{key!r} holds {entry.dtype} values", "store numbers")
    return entry


def _squeezed(shape: tuple[int, ...], path: Path) -> tuple[int, int, int]:
    """Three axes: further ones of length 1, as of a single channel or frame, are dropped."""
    left = tuple(int(n) for n in shape)
    while len(left) > 3 and 1 in (left[0], left[-1]):
        left = left[1:] if left[0] == 1 else left[:-1]
    if len(left) != 3:
        raise FaultError(path, f"has {len(shape)} axes, {shape}", "give one 3D volume per file")
    if min(left) == 0:
        raise FaultError(path, f"is empty, {shape}", "replace or remove the file")
    if left[0] * left[1] * left[2] > MAX_VOXELS:
        raise FaultError(path, f"announces more than {MAX_VOXELS / 1e6:.0f} million voxels", "crop or downsample it")
    return left[0], left[1], left[2]
