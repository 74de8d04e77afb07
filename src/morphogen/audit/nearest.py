"""The real image that an image resembles most, by two distances between whole images of one size.

* ``pixel``: 1 - correlation of 32 x 32 grey thumbnails without their border of two pixels; the least over the four
  mirror images, and over shifts of up to two thumbnail pixels each way (a sixteenth of the side), since a generator
  that was trained with flips and shifts may copy flipped and shifted.
* a feature extractor's, under its name (``inception``): 1 - cosine of the features.

The search is exhaustive and exact: no image is passed over.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from morphogen.data.duplicates import THUMBNAIL, grey_thumbnail, signatures_of

SHIFT = 2
"""Largest shift, in pixels of the thumbnails, along each axis."""
WINDOW = THUMBNAIL - 2 * SHIFT
_MIRRORS = ((), (1,), (2,), (1, 2))
_SHIFTS = sorted(
    ((y, x) for y in range(-SHIFT, SHIFT + 1) for x in range(-SHIFT, SHIFT + 1)), key=lambda s: abs(s[0]) + abs(s[1])
)
_BLOCK = 1024


@dataclass(frozen=True)
class ImageSet:
    """Images to compare, with what is known about them.

    Attributes:
        ids: One an image.
        thumbnails: (N, 32, 32) float32 grey.
        features: (N, D) float64 features, or None.
        subjects: One an image, or None where unknown.
        extractor: Name of the features, and of their distance.
    """

    ids: Sequence[str]
    thumbnails: np.ndarray
    features: np.ndarray | None = None
    subjects: Sequence[str] | None = None
    extractor: str = "inception"

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, rows: Sequence[int]) -> ImageSet:
        """Some of the images."""
        index = np.asarray(rows, dtype=np.int64)
        return ImageSet(
            [self.ids[i] for i in index],
            self.thumbnails[index],
            None if self.features is None else self.features[index],
            None if self.subjects is None else [self.subjects[i] for i in index],
            self.extractor,
        )


def image_set(
    ids: Sequence[str],
    images: Iterable[np.ndarray],
    subjects: Sequence[str] | None = None,
    extractor: str | None = None,
) -> ImageSet:
    """Reduce (H, W, 3) uint8 images to what is compared; all sets of an audit must come at one size.

    Args:
        ids: One an image.
        images: The images; consumed one after the other.
        subjects: One an image, or None where unknown.
        extractor: Features to take too (`morphogen.metrics.features`), or None.

    Raises:
        InputError: There is no such extractor, or its weights are not installed.
    """
    thumbnails: list[np.ndarray] = []

    def passing() -> Iterator[np.ndarray]:
        for image in images:
            thumbnails.append(grey_thumbnail(image))
            yield image

    if extractor is None:
        features = None
        for _ in passing():
            pass
    else:
        from morphogen.metrics.features import extract

        features = extract(passing(), extractor)
    stack = np.array(thumbnails, dtype=np.float32).reshape(-1, THUMBNAIL, THUMBNAIL)
    return ImageSet(ids, stack, features, subjects, extractor or "inception")


@dataclass(frozen=True)
class Neighbours:
    """Nearest image of each: its index, its distance, and how it was found (indices of mirror and shift)."""

    index: np.ndarray
    distance: np.ndarray
    mirror: np.ndarray
    shift: np.ndarray


def neighbours(images: ImageSet, real: ImageSet, groups: np.ndarray | None = None) -> dict[str, Neighbours]:
    """Nearest real image of each image, by every distance that both sets have.

    Args:
        images: What to look for.
        real: Where to look.
        groups: Where `images` is `real`: (N,) group of each, and only images of another group count.
    """
    found = {"pixel": _nearest_pixels(images.thumbnails, real.thumbnails, groups)}
    if images.features is not None and real.features is not None:
        found[real.extractor] = _nearest_features(_normalised(images.features), _normalised(real.features), groups)
    return found


def hash_distances(found: Neighbours, images: ImageSet, real: ImageSet) -> np.ndarray:
    """(N,) differing bits of the perceptual hashes of each image and its neighbour, laid over each other as found."""
    if not len(images):
        return np.zeros(0, dtype=np.int64)
    rows = zip(images.thumbnails, found.mirror, strict=True)
    ours = np.stack([_window(np.flip(t[None], _MIRRORS[m]), (0, 0))[0] for t, m in rows])
    places = zip(found.index, found.shift, strict=True)
    theirs = np.stack([_window(real.thumbnails[i][None], _SHIFTS[s])[0] for i, s in places])
    return (signatures_of(ours).bits != signatures_of(theirs).bits).sum(axis=1)


def _nearest_pixels(images: np.ndarray, real: np.ndarray, groups: np.ndarray | None) -> Neighbours:
    """Largest correlation over real images, mirrors and shifts: one matrix product for each of the two last."""
    queries = [_unit(_window(np.flip(images, axes), (0, 0))) for axes in _MIRRORS]
    best = np.full(len(images), -np.inf, dtype=np.float32)
    index, mirror, shift = (np.zeros(len(images), dtype=np.int64) for _ in range(3))
    for s, by in enumerate(_SHIFTS):
        rows = _unit(_window(real, by))
        for m, query in enumerate(queries):
            for start in range(0, len(images), _BLOCK):
                stop = start + _BLOCK
                nearest, cosine = _largest(query[start:stop] @ rows.T, groups, start)
                better = np.flatnonzero(cosine > best[start:stop])
                at = better + start
                best[at], index[at], mirror[at], shift[at] = cosine[better], nearest[better], m, s
    return Neighbours(index, (1 - best.astype(np.float64)).clip(min=0), mirror, shift)  # rounding may pass 1


def _nearest_features(images: np.ndarray, real: np.ndarray, groups: np.ndarray | None) -> Neighbours:
    blocks = [
        _largest(images[start : start + _BLOCK] @ real.T, groups, start) for start in range(0, len(images), _BLOCK)
    ]
    index = np.concatenate([np.zeros(0, dtype=np.int64), *(nearest for nearest, _ in blocks)])
    zero = np.zeros(len(index), dtype=np.int64)
    cosines = np.concatenate([np.zeros(0), *(cosine for _, cosine in blocks)])
    return Neighbours(index, (1 - cosines).clip(min=0), zero, zero)


def _largest(cosines: np.ndarray, groups: np.ndarray | None, start: int) -> tuple[np.ndarray, np.ndarray]:
    """Column and value of the largest entry of each row, among the columns of other groups."""
    if groups is not None:
        cosines[groups[start : start + len(cosines), None] == groups[None]] = -np.inf
    nearest = cosines.argmax(axis=1)
    return nearest, cosines[np.arange(len(nearest)), nearest]


def _window(thumbnails: np.ndarray, shift: tuple[int, int]) -> np.ndarray:
    """(N, 32, 32) -> (N, 28, 28): the middle, moved by `shift`."""
    y, x = SHIFT + shift[0], SHIFT + shift[1]
    return thumbnails[:, y : y + WINDOW, x : x + WINDOW]


def _unit(windows: np.ndarray) -> np.ndarray:
    """(N, 28, 28) -> (N, 784) float32 of zero mean and unit norm; a flat image becomes 0."""
    flat = windows.reshape(len(windows), WINDOW * WINDOW).astype(np.float64)
    flat -= flat.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.divide(flat, norm, out=np.zeros_like(flat), where=norm > 1e-6).astype(np.float32)


def _normalised(features: np.ndarray) -> np.ndarray:
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
