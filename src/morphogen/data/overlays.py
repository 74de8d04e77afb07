"""What the processor of an endoscope, or a photographer, lays over a picture: boxes of one flat colour, and text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

_GREENER = 40
"""Grey levels by which green or blue exceeds red in what no tissue is."""
_FLAT, _BOX_SHARE = 24.0, (0.002, 0.3)
"""Largest spread in grey levels, and shares of the frame, of a box of one colour."""
_GLYPH, _GLYPHS_IN_LINE = (0.01, 0.045), 5
"""Height of glyphs, relative to the frame's height, and how many make a line of text."""
_STROKE, _CONTRAST = 0.018, 32
"""Largest width of a stroke, relative to the frame's height, and the grey levels by which it stands out."""


def foreign_boxes(image: np.ndarray) -> np.ndarray:
    """Areas of one flat colour that no tissue has, with what is drawn on them."""
    rgb = image.astype(np.int16)
    foreign = np.maximum(rgb[..., 1], rgb[..., 2]) > rgb[..., 0] + _GREENER
    labels, _ = ndimage.label(ndimage.binary_opening(foreign, np.ones((3, 3))))
    boxes = np.zeros(foreign.shape, dtype=bool)
    for i, where in enumerate(ndimage.find_objects(labels), start=1):
        part = labels[where] == i
        share = part.sum() / foreign.size
        if _BOX_SHARE[0] <= share <= _BOX_SHARE[1] and np.median(_spread(image[where][part])) <= _FLAT:
            full = part.mean() > 0.85
            boxes[where] |= full or ndimage.binary_fill_holes(part)
    return ndimage.binary_dilation(boxes, iterations=2)


def _spread(pixels: np.ndarray) -> np.ndarray:
    """Half the range between the 10th and the 90th percentile of each channel."""
    low, high = np.percentile(pixels, (10, 90), axis=0)
    return (high - low) / 2


def burnt_in_text(image: np.ndarray, field: np.ndarray) -> np.ndarray:
    """Lines of small bright glyphs of one height, with a margin."""
    height = image.shape[0]
    palest = image.min(axis=2).astype(np.int16)
    stroke = max(3, round(_STROKE * height)) | 1
    bright = palest - ndimage.grey_opening(palest, (stroke, stroke)) > _CONTRAST
    bright &= palest - _around(palest) > _CONTRAST  # and not what shows between dark hairs
    labels, _ = ndimage.label(bright & ndimage.binary_dilation(field))
    least, most = (max(2.0, share * height) for share in _GLYPH)
    glyphs = [
        _Glyph(rows.start, rows.stop, columns.start, columns.stop)
        for rows, columns in ndimage.find_objects(labels)
        if least <= rows.stop - rows.start <= most and columns.stop - columns.start <= 4 * most
    ]
    text = np.zeros(field.shape, dtype=bool)
    for line in _written(_lines(glyphs)):
        margin = max(1, (line.bottom - line.top) // 3)
        rows = slice(max(0, line.top - margin), line.bottom + margin)
        text[rows, max(0, line.left - 2 * margin) : line.right + 2 * margin] = True
    return text


def _around(values: np.ndarray) -> np.ndarray:
    """Median of the wider surroundings of every pixel, from one pixel in sixteen."""
    coarse = ndimage.median_filter(values[::4, ::4], 9)
    return np.repeat(np.repeat(coarse, 4, axis=0), 4, axis=1)[: values.shape[0], : values.shape[1]]


@dataclass(frozen=True)
class _Glyph:
    """Box of a glyph, or of a line of `n` glyphs: first and last row and column, the last ones exclusive."""

    top: int
    bottom: int
    left: int
    right: int
    n: int = 1

    @property
    def height(self) -> int:
        return self.bottom - self.top

    def follows(self, other: _Glyph) -> bool:
        """Whether it stands in a line behind `other`, with the same height."""
        tall = max(other.height, self.height)
        level = abs(self.top - other.top) <= max(1, 0.25 * tall) and abs(self.bottom - other.bottom) <= max(
            1, 0.25 * tall
        )
        return level and -1 <= self.left - other.right <= 1.5 * tall

    def below(self, other: _Glyph) -> bool:
        """Whether it is a line near another one, above or below it, with the same height."""
        tall = max(other.height, self.height)
        gap = max(self.top - other.bottom, other.top - self.bottom)
        alike = abs(self.height - other.height) <= max(1, 0.3 * tall)
        return alike and gap <= 4 * tall and self.left - other.right <= 4 * tall and other.left - self.right <= 4 * tall


def _lines(glyphs: list[_Glyph]) -> list[_Glyph]:
    """Glyphs of one height and level, at small gaps, as boxes of lines."""
    rows: list[list[_Glyph]] = []
    for glyph in sorted(glyphs, key=lambda g: g.left):
        row = next((row for row in rows if glyph.follows(row[-1])), None)
        if row is None:
            rows.append([glyph])
        else:
            row.append(glyph)
    return [
        _Glyph(
            min(g.top for g in row), max(g.bottom for g in row), row[0].left, max(g.right for g in row),
            n=round(sum(max(1.0, (g.right - g.left) / g.height) for g in row)),
        )
        for row in rows
    ]  # fmt: skip


def _written(lines: list[_Glyph]) -> list[_Glyph]:
    """The lines that are text: those of many glyphs, and shorter ones in a block with such a one."""
    found = [line for line in lines if line.n >= _GLYPHS_IN_LINE]
    short = [line for line in lines if _GLYPHS_IN_LINE > line.n >= 2]
    for line in found:  # which grows meanwhile
        near = [other for other in short if other.below(line)]
        found += near
        short = [other for other in short if other not in near]
    return found
