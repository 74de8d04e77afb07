"""What everything trains on: image and mask of a record, resized together, in memory as bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from morphogen.data.images import is_volume, load_image, load_rgb
from morphogen.data.masks import load_mask, resize_labels
from morphogen.data.records import Dataset, Record
from morphogen.errors import InputError
from morphogen.progress import say, track

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MAY_BE_FLOAT = (".tif", ".tiff")
"""Pictures that can hold NaN; so can volumes."""


class Pairs:
    """The images and masks of a dataset at R x R pixels.

    A plain resize: the aspect is not kept. Images by Lanczos with antialiasing, masks by nearest neighbour. Files are
    decoded when first asked for and (unless `cache` is off) kept as bytes: 4 R^2 a pair, 16 kB at 64 px.

    Example:
        >>> pairs = Pairs(read_dataset("data"), resolution=64)  # doctest: +SKIP
        >>> image, mask = pairs[0]  # doctest: +SKIP
    """

    def __init__(self, dataset: Dataset, resolution: int, cache: bool = True) -> None:
        self.dataset = dataset
        self.resolution = resolution
        self.cache = cache
        self._images: dict[int, NDArray[np.uint8]] = {}
        self._masks: dict[int, NDArray[np.uint8]] = {}

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def ids(self) -> tuple[str, ...]:
        """Record ids, in order."""
        return self.dataset.ids

    @property
    def subjects(self) -> tuple[str, ...]:
        """Subject of every record; its own id where none is known."""
        return tuple(record.subject or record.id for record in self.dataset)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Image (3, R, R) uint8 and mask (R, R) uint8 label ids.

        Raises:
            InputError: A file cannot be read, or the record has no mask.
        """
        return self.image(index), self.mask(index)

    def image(self, index: int) -> NDArray[np.uint8]:
        """(3, R, R) uint8; works for unannotated records too."""
        if index not in self._images:
            made = resize_image(load_rgb(self.dataset[index]), self.resolution).transpose(2, 0, 1)
            made = np.ascontiguousarray(made)
            if not self.cache:
                return made
            self._images[index] = made
        return self._images[index]

    def mask(self, index: int) -> NDArray[np.uint8]:
        """(R, R) uint8 label ids."""
        if index not in self._masks:
            made = resize_labels(native_mask(self.dataset[index], self.dataset), (self.resolution, self.resolution))
            if not self.cache:
                return made
            self._masks[index] = made
        return self._masks[index]

    def images(self, indices: Iterable[int] | None = None) -> NDArray[np.uint8]:
        """(N, 3, R, R) uint8 of these records, or of all."""
        return np.stack([self.image(int(i)) for i in (range(len(self)) if indices is None else indices)])

    def masks(self, indices: Iterable[int] | None = None) -> NDArray[np.uint8]:
        """(N, R, R) uint8 of these records, or of all."""
        return np.stack([self.mask(int(i)) for i in (range(len(self)) if indices is None else indices)])


def refuse_unreadable(dataset: Dataset, foreground: bool = True) -> None:
    """Find now, and not after an hour of training, that an image or mask is damaged, or that no mask holds anything.

    Args:
        dataset: What will be trained or tested on.
        foreground: Whether some mask must hold more than background.

    Raises:
        InputError: A file cannot be read, a mask holds a value that is no label, or all masks are empty.
    """
    found, holes = not foreground, []
    for record in track(dataset.records, "reading images"):
        if _has_holes(load_image(record)):
            holes.append(record)
        if record.mask is not None:
            found = bool(native_mask(record, dataset).any()) or found
    if not found:
        raise InputError(f"{dataset.root}: has no foreground in any mask; check the masks, or state --mask-values")
    _say_of(holes)


def say_holes(records: Iterable[Record]) -> None:
    """Tell the user of images with NaN or infinite values, and how these are read.

    Raises:
        InputError: A file cannot be read.
    """
    may = (record for record in records if is_volume(record.image) or record.image.suffix.lower() in _MAY_BE_FLOAT)
    _say_of([record for record in may if _has_holes(load_image(record))])


def _has_holes(image: NDArray[Any]) -> bool:
    return image.dtype == np.float32 and not np.isfinite(image).all()


def _say_of(holes: Sequence[Record]) -> None:
    files = list(dict.fromkeys(record.image for record in holes))
    if files:
        others = {1: "", 2: ", as 1 other does"}.get(len(files), f", as {len(files) - 1} others do")
        how = "NaN and -infinity are read as the darkest grey, infinity as the brightest"
        say(f"{files[0]}: holds NaN or infinite values{others}; {how}")


def resize_image(image: NDArray[np.uint8], resolution: int) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 to (R, R, 3) uint8, antialiased (Lanczos)."""
    picture = Image.fromarray(image)
    return np.array(picture.resize((resolution, resolution), Image.Resampling.LANCZOS))


def native_mask(record: Record, dataset: Dataset) -> NDArray[np.int64]:
    """(H, W) int64 label map of a record, at the size of the mask file: what scores are computed on."""
    return load_mask(record, dataset.mask_values)
