"""Where a lesion may lie in another image: wholly in the field of view, in one piece, as its own frame showed it.

The mask is transformed in its own frame, brought to the size of the image, and laid at a place drawn evenly from all
those at which no pixel of it leaves the field of view or touches the frame. Where there is no such place, it is made
smaller until there is; it is never cut.

A lesion that its own frame or field of view cut has a straight edge there, which inside an image would be a lie. It is
flipped and scaled, but not rotated or bent, and laid with that edge along an edge of the new field of view. Only where
no size of it fits so (a straight cut in a round field) it is laid inside like the others, and ``border`` says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from morphogen.data.mask_transforms import SCALE, SCALING, transform_mask
from morphogen.data.mask_words import AREA_BINS
from morphogen.errors import InputError

VERSION = 1
"""Goes into the provenance; raised whenever the same arguments would give another result."""
LIMITS = (1 / 3, 3.0)
"""Factors of length by which a lesion may be scaled to fall into a bin of areas."""
_SMALLER = 0.88
"""Factor of length from one try to the next."""
_LEAST_AT_BORDER = 0.35
"""A cut lesion is laid inside where it would have to be scaled by less than this to lie at a border."""
_BAND, _CHORD = 0.006, 0.35
"""Distance from the border, relative to the shorter side, within which a lesion touches it, and the length of touch,
relative to the square root of the lesion's area, that makes a cut."""
_ALONG, _NEAR = 0.8, 0.014
"""Share of a cut edge that must lie near a border: nearer than that much of the shorter side."""
_EIGHT = np.ones((3, 3), dtype=bool)


@dataclass(frozen=True)
class _Lesion:
    """Labels in their bounding box, and their pixels at the edge that cut them."""

    labels: np.ndarray
    cut: np.ndarray

    def resized(self, size: tuple[int, int]) -> _Lesion:
        """By nearest neighbour; a connected part too small to be hit keeps a pixel."""
        from scipy import ndimage

        if size == self.labels.shape:
            return self
        labels = nearest(self.labels, size)
        for label in np.unique(self.labels[self.labels > 0]):
            parts, n = ndimage.label(self.labels == label, _EIGHT)
            for part in set(range(1, n + 1)).difference(np.unique(nearest(parts, size)).tolist()):
                row, column = np.argwhere(parts == part)[0]
                labels[row * size[0] // parts.shape[0], column * size[1] // parts.shape[1]] = label
        rows, columns = np.nonzero(self.cut)  # a thin line, which a reduction would miss
        cut = np.zeros(size, dtype=bool)
        cut[rows * size[0] // self.cut.shape[0], columns * size[1] // self.cut.shape[1]] = True
        return _Lesion(labels, cut)


def place_mask(
    mask: np.ndarray,
    field: np.ndarray,
    transform: str,
    seed: int,
    own_field: np.ndarray | None = None,
    area: str | None = None,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Transform a mask and lay it wholly inside a field of view; a pure function of its arguments.

    Labels are kept, and every connected part of them; parts can only grow together where the lesion had to be made
    smaller.

    Args:
        mask: (H, W) integer label map that holds a lesion.
        field: (H', W') bool, where it may lie.
        transform: Name of a mask transform.
        seed: Non-negative.
        own_field: (H, W) bool, the field of view of the mask's own image; the whole frame where None.
        area: Bin of `AREA_BINS` to bring its area to, as far as `LIMITS` allow; None leaves the area as it is.

    Returns:
        (H', W') label map of the same dtype, and the JSON-ready parameters: those of the transform, ``placement``
        (version), ``at`` [row, column] of the lesion's box, ``size`` factor beside the transform's, ``cut`` (whether
        its own frame cut it) and ``border`` (whether that edge lies at a border).

    Raises:
        InputError: The mask holds no lesion, or not a pixel of the field of view is free.
    """
    if not bool((mask > 0).any()):
        raise InputError("the mask holds no lesion; leave it out")
    rng = np.random.default_rng([VERSION, seed])
    cut = _cut_edge(mask, own_field)
    moved, params = transform_mask(mask, transform, seed)
    strength, place = rng.uniform(-1, 1), rng.uniform()
    factor = 1.0
    if cut.any():
        params = {key: params[key] for key in ("name", "version", "flip")}
        moved, cut = (_flipped(array, params["flip"]) for array in (mask, cut))
        factor = SCALE**strength if transform in SCALING else 1.0
    else:
        cut = np.zeros(moved.shape, dtype=bool)
    if area is not None:
        factor = _factor(float(np.mean(moved > 0)), area, rng.uniform())
    laid = _lay(_cropped(moved, cut), np.array(field.shape) / moved.shape * factor, field, place)
    if laid is None:
        raise InputError("the field of view has no room for a lesion; use images that show more")
    placed, facts = laid
    facts["size"] = float(factor * facts["size"])
    return placed, {**params, "placement": VERSION, "cut": bool(cut.any()), **facts}


def nearest(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Nearest-neighbour resize (pixel centres aligned) of an (H, W) array of any type; as `resize_labels` does it."""
    rows, columns = (
        np.array(Image.fromarray(np.arange(old, dtype=np.int32)[None]).resize((new, 1), Image.Resampling.NEAREST))[0]
        for new, old in zip(size, array.shape, strict=True)
    )
    return np.asarray(array[rows[:, None], columns])


def _cut_edge(mask: np.ndarray, own_field: np.ndarray | None) -> np.ndarray:
    """(H, W) bool: the lesion's pixels along a border that cuts it, none where it hardly touches one."""
    from scipy import ndimage

    seen = np.ones(mask.shape, dtype=bool) if own_field is None else ndimage.binary_fill_holes(own_field)
    band = max(1, round(_BAND * min(mask.shape)))
    edge = (mask > 0) & ~ndimage.binary_erosion(seen, _EIGHT, iterations=band)
    return edge & bool(edge.sum() >= band * _CHORD * np.sqrt((mask > 0).sum()))


def _flipped(array: np.ndarray, flip: tuple[bool, bool]) -> np.ndarray:
    return np.ascontiguousarray(array[:: -1 if flip[0] else 1, :: -1 if flip[1] else 1])


def _cropped(mask: np.ndarray, cut: np.ndarray) -> _Lesion:
    rows, columns = (np.flatnonzero((mask > 0).any(axis=axis)) for axis in (1, 0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return _Lesion(mask[box], cut[box])


def _factor(share: float, area: str, draw: float) -> float:
    """Factor of length that brings a lesion of this share of the frame into the bin, or as near as `LIMITS` allow."""
    low, high = (np.clip(np.sqrt(limit / share), *LIMITS) for limit in AREA_BINS[area])
    return float(low * (high / low) ** (0.05 + 0.9 * draw))


def _lay(
    lesion: _Lesion, scale: np.ndarray, field: np.ndarray, draw: float
) -> tuple[np.ndarray, dict[str, Any]] | None:
    """The largest size, from `scale` downwards, at which there is a place; at a border first, where the lesion is cut.

    Args:
        lesion: What to lay.
        scale: (2,) factors of height and width.
        field: (H, W) bool.
        draw: In [0, 1), which of the places.

    Returns:
        (H, W) label map and ``at``, ``size``, ``border``; None where there is no place for a single pixel.
    """
    for border in (True, False) if lesion.cut.any() else (False,):
        for factor, size in _sizes(lesion.labels.shape, scale, _LEAST_AT_BORDER if border else 0.0):
            small = _with_all_labels(lesion, size)
            size = small.labels.shape
            if (np.array(size) > field.shape).any():
                continue
            places = np.argwhere(_places(small, field, border))
            if len(places):
                row, column = (int(n) for n in places[int(draw * len(places))])
                placed = np.zeros(field.shape, dtype=lesion.labels.dtype)
                placed[row : row + size[0], column : column + size[1]] = small.labels
                return placed, {"at": [row, column], "size": factor, "border": border}
    return None


def _with_all_labels(lesion: _Lesion, size: tuple[int, ...]) -> _Lesion:
    """The lesion at this size, or at the next larger one that has a pixel for each of its labels."""
    height, width = size
    small = lesion.resized((height, width))
    while len(np.unique(small.labels[small.labels > 0])) < len(np.unique(lesion.labels[lesion.labels > 0])):
        height, width = height + 1, width + 1
        small = lesion.resized((height, width))
    return small


def _sizes(shape: tuple[int, ...], scale: np.ndarray, least: float) -> Iterator[tuple[float, tuple[int, int]]]:
    """Factors of length from 1 down to `least`, and the sizes in px that they give, each once."""
    factor, last = 1.0, (0, 0)
    while factor >= least and last != (1, 1):
        height, width = (max(1, round(float(n * s * factor))) for n, s in zip(shape, scale, strict=True))
        if (height, width) != last:
            last = height, width
            yield factor, last
        factor *= _SMALLER


def _places(lesion: _Lesion, field: np.ndarray, border: bool) -> np.ndarray:
    """(H - h + 1, W - w + 1) bool: where the corner of the lesion's box may be."""
    from scipy import ndimage, signal

    free = field if border else ndimage.binary_erosion(field, _EIGHT)
    outside = signal.fftconvolve((~free).astype(np.float64), (lesion.labels > 0)[::-1, ::-1], mode="valid")
    if not border:
        return np.asarray(outside < 0.5)
    seen = ndimage.binary_fill_holes(field)
    width = max(2, round(_NEAR * min(field.shape)))
    near = (seen & ~ndimage.binary_erosion(seen, _EIGHT, iterations=width)).astype(np.float64)
    along = signal.fftconvolve(near, lesion.cut[::-1, ::-1], mode="valid")
    return np.asarray((outside < 0.5) & (along > _ALONG * lesion.cut.sum() - 0.5))
