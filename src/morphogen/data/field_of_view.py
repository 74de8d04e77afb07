"""The lit part of an endoscopic or dermoscopic frame.

What is out: black borders, corners and notches, boxes and messages of one flat colour that the processor lays over
the picture (the scope guide), and most lines of burnt-in text. What is in: dark lumens and shadows, also where they
run into the border, and highlights.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import ndimage

from morphogen.data.overlays import burnt_in_text, foreign_boxes

WORKING_SIDE = 512
"""Longer side in px at which frames larger than that are looked at."""
_CORNER = 0.03
"""Side of the corners in which black is measured, relative to the shorter side."""
_BLACK, _DARKEST_LIT = (10, 34), 40
"""Grey levels between which the limit of black lies; a corner that is not darker than the other number is lit."""
_STEP = 28
"""Grey levels by which the frame brightens within `_REACH` px where black ends at an edge, and not in a shadow."""
_REACH = 4


def field_of_view(image: np.ndarray) -> np.ndarray:
    """The lit part of a frame: its largest connected part, without overlays.

    Args:
        image: (H, W, 3) uint8.

    Returns:
        (H, W) bool; all True where there is no border and no overlay, all False for a black frame.
    """
    height, width = image.shape[:2]
    field = _field(at_working_size(image))
    if field.shape == (height, width):
        return field
    return np.array(Image.fromarray(field).resize((width, height), Image.Resampling.NEAREST))


def at_working_size(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8, averaged down where a side is longer than `WORKING_SIDE`."""
    factor = WORKING_SIDE / max(image.shape[:2])
    if factor >= 1:
        return image
    height, width = (max(1, round(n * factor)) for n in image.shape[:2])
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BOX))


def _field(image: np.ndarray) -> np.ndarray:
    value = image.max(axis=2)
    black = _black_level(value)
    boxes = foreign_boxes(image)
    lit = ~_touching_frame(value <= black)
    field = _largest(ndimage.binary_opening(lit & ~boxes, np.ones((3, 3)), iterations=1 + min(lit.shape) // 200))
    if not field.any():
        return field
    field = ndimage.binary_fill_holes(_without_shadows(field | (lit & ndimage.binary_dilation(field)), value, boxes))
    field = ndimage.binary_erosion(field & ~boxes, border_value=1)
    return _largest(field & ~burnt_in_text(image, field))


def _black_level(value: np.ndarray) -> float:
    """Grey level up to which a pixel is black: what the dark corners of the frame hold, and a little more."""
    k = max(2, round(_CORNER * min(value.shape)))
    corners = [value[rows, columns] for rows in (slice(k), slice(-k, None)) for columns in (slice(k), slice(-k, None))]
    levels = [level for level in (float(np.percentile(corner, 95)) for corner in corners) if level < _DARKEST_LIT]
    return float(np.clip(max(levels, default=0.0) + 6, *_BLACK))


def _touching_frame(areas: np.ndarray) -> np.ndarray:
    labels, _ = ndimage.label(areas)
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    return np.isin(labels, edge[edge > 0])


def _largest(region: np.ndarray) -> np.ndarray:
    labels, n = ndimage.label(region)
    return labels == 1 + int(np.argmax(np.bincount(labels.ravel(), minlength=n + 1)[1:])) if n else region


def _without_shadows(field: np.ndarray, value: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Give back what a shadow that runs into the border took: hollows of the field without an edge around them."""
    from skimage.morphology import convex_hull_image

    hollows, _ = ndimage.label(convex_hull_image(field) & ~field & ~boxes)
    around = ndimage.maximum_filter(value, 2 * _REACH + 1)
    inner = ndimage.binary_dilation(field, iterations=2) & (hollows > 0)
    for i, where in enumerate(ndimage.find_objects(hollows), start=1):
        rim = inner[where] & (hollows[where] == i)
        steps = around[where][rim].astype(np.float64) - value[where][rim]
        if rim.any() and np.median(steps) < _STEP:
            field[where] |= hollows[where] == i
    return field
