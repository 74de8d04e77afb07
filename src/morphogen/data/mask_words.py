"""Words that a mask and the pixels under it decide: size, shape, border, position and colours of a lesion.

Each rule takes a `Region` and the slot that asks for a word, and answers None where nothing decides it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

_SHARE = 0.15
"""Least share of a lesion's pixels that makes a colour worth naming."""
NAMED_COLOURS = 3
"""Most colours that one caption names."""
_RING = 0.06
"""Width of the ring of background that a lesion is compared with, relative to the image's shorter side."""
_SAME = 6.0
"""CIELAB difference below which a lesion passes for the colour of what surrounds it."""


@dataclass(frozen=True)
class Slot:
    """One place in a grammar's template.

    Attributes:
        words: What may stand there.
        computed: Name of the rule (a key of `RULES`) that decides the word, or None where it must be given.
        bins: Ascending limits between consecutive words, for the rules ``area`` and ``border``.
        palette: Colour name -> sRGB in 0..255, for the rule ``palette``.
    """

    words: tuple[str, ...] = ()
    computed: str | None = None
    bins: tuple[float, ...] = ()
    palette: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)


class Region:
    """The lesion of a mask (its largest connected part; all labels above 0 count) and the image under it.

    Args:
        mask: (H, W) label map with at least one pixel above 0.
        image: (H, W) or (H, W, 3) uint8, or None: then no rule about colours has an answer.
    """

    def __init__(self, mask: np.ndarray, image: np.ndarray | None) -> None:
        from scipy import ndimage

        parts, n = ndimage.label(mask > 0, structure=np.ones((3, 3)))
        sizes = np.bincount(parts.ravel(), minlength=n + 1)[1:]
        self.mask: np.ndarray = parts == 1 + int(np.argmax(sizes))
        self.area = float(np.mean(mask > 0))
        self.image = image

    @cached_property
    def properties(self) -> Any:
        """scikit-image's region properties of the largest part."""
        from skimage.measure import regionprops

        return regionprops(self.mask.astype(np.uint8))[0]

    @cached_property
    def roughness(self) -> float:
        """perimeter^2 / (4 pi area): 1 for a disc, larger the more irregular the outline is."""
        from skimage.measure import perimeter_crofton

        perimeter = float(perimeter_crofton(np.pad(self.mask, 1), directions=4))
        return perimeter**2 / (4.0 * np.pi * float(self.mask.sum()))

    @cached_property
    def lab(self) -> np.ndarray | None:
        """(H, W, 3) CIELAB of the image, or None without an image."""
        from skimage.color import rgb2lab

        if self.image is None:
            return None
        image = self.image if self.image.ndim == 3 else np.repeat(self.image[..., None], 3, axis=2)
        return np.asarray(rgb2lab(image))


def _area(region: Region, slot: Slot) -> str | None:
    """Word of the bin that the share of the image covered by the mask falls into."""
    return slot.words[int(np.searchsorted(slot.bins, region.area, side="right"))]


def _border(region: Region, slot: Slot) -> str | None:
    """Word of the bin that `Region.roughness` falls into."""
    return slot.words[int(np.searchsorted(slot.bins, region.roughness, side="right"))]


def _outline(region: Region, slot: Slot) -> str | None:
    """round, oval, elongated by the eccentricity of the ellipse of equal moments; irregular where far from convex."""
    if region.properties.solidity < 0.85:
        return "irregular"
    eccentricity = region.properties.eccentricity
    return "round" if eccentricity < 0.6 else "oval" if eccentricity < 0.87 else "elongated"


def _paris(region: Region, slot: Slot) -> str | None:
    """A word of the Paris classification that does not contradict the outline.

    A frame shows no height, so this is the reading that the outline suggests: compact is sessile, stretched is
    slightly elevated, waisted is (semi-)pedunculated, large and ragged is laterally spreading.
    """
    eccentricity, solidity = region.properties.eccentricity, region.properties.solidity
    if solidity >= 0.90:
        return "sessile" if eccentricity < 0.8 else "slightly elevated"
    if region.area > 0.15:
        return "laterally spreading"
    return "semi-pedunculated" if eccentricity < 0.8 else "pedunculated"


def _position(region: Region, slot: Slot) -> str | None:
    """Cell of a 3 x 3 grid over the image that holds the lesion's centre of mass."""
    height, width = region.mask.shape
    row, column = region.properties.centroid
    vertical = _ROWS[min(2, int(3 * (row + 0.5) / height))]
    horizontal = _COLUMNS[min(2, int(3 * (column + 0.5) / width))]
    return "center" if vertical == horizontal == "center" else f"{vertical} {horizontal}"


def _contrast(region: Region, slot: Slot) -> str | None:
    """Colour of a polyp against the ring of mucosa around it."""
    from scipy import ndimage

    if region.lab is None:
        return None
    width = max(2, round(_RING * min(region.mask.shape)))
    lit = region.lab[..., 0] > 8.0
    ring = ndimage.binary_dilation(region.mask, iterations=width) & ~region.mask & lit
    if not ring.any():
        return None
    light, red, yellow = np.median(region.lab[region.mask], axis=0) - np.median(region.lab[ring], axis=0)
    if np.hypot(np.hypot(light, red), yellow) < _SAME:
        return "same as surrounding mucosa"
    if red > 3.0:
        return "reddish"
    if light > 3.0:
        return "whitish" if np.hypot(*np.median(region.lab[region.mask], axis=0)[1:]) < 18.0 else "pale pink"
    return None


def _palette(region: Region, slot: Slot) -> str | None:
    """Up to three colour names, by share of the lesion: every pixel goes to the nearest of the palette in CIELAB."""
    from skimage.color import rgb2lab

    if region.lab is None:
        return None
    names = list(slot.palette)
    reference = rgb2lab(np.array([[slot.palette[name] for name in names]], dtype=np.uint8))[0]
    distance = ((region.lab[region.mask][:, None, :] - reference[None]) ** 2).sum(-1)
    share = np.bincount(distance.argmin(1), minlength=len(names)) / len(distance)
    order = [i for i in np.argsort(-share, kind="stable") if share[i] >= _SHARE][:NAMED_COLOURS]
    return " and ".join(names[i] for i in order) or None


RULES: Mapping[str, Callable[[Region, Slot], str | None]] = {
    "area": _area,
    "border": _border,
    "outline": _outline,
    "paris": _paris,
    "position": _position,
    "contrast": _contrast,
    "palette": _palette,
}

GEOMETRY = frozenset({"area", "border", "outline", "paris", "position"})
"""Rules that read the mask alone; they always have an answer. The others need the pixels under it."""

_ROWS, _COLUMNS = ("upper", "center", "lower"), ("left", "center", "right")

FIXED_WORDS: Mapping[str, tuple[str, ...]] = {
    "outline": ("round", "oval", "elongated", "irregular"),
    "paris": ("sessile", "slightly elevated", "pedunculated", "semi-pedunculated", "laterally spreading"),
    "position": tuple("center" if r == c else f"{r} {c}" for r in _ROWS for c in _COLUMNS),
    "contrast": ("same as surrounding mucosa", "reddish", "whitish", "pale pink"),
    "palette": ("and",),
}
"""Words that a rule may say whatever the grammar lists."""

AGREEING: Mapping[str, tuple[str, ...]] = {"slightly elevated": ("flat",), "laterally spreading": ("flat",)}
"""Words that do not contradict a computed one: all of Paris class 0-II is flat, and a mask shows no height."""

AREA_BINS: Mapping[str, tuple[float, float]] = {"<2%": (0.003, 0.02), "2-8%": (0.02, 0.08), ">=8%": (0.08, 0.25)}
"""Shares of the frame that lesions are sorted by, whatever words a grammar has for them: at least, below. What is
smaller than the first bin counts as small, what is larger than the last one as large."""


def area_bin(mask: np.ndarray) -> str:
    """Name of the bin of `AREA_BINS` that the share of the frame under labels above 0 falls into."""
    share = float(np.mean(mask > 0))
    return next((name for name, (_, high) in AREA_BINS.items() if share < high), list(AREA_BINS)[-1])


def choices(slot: Slot) -> tuple[str, ...]:
    """Every word that may stand in a slot: those of the grammar, and those that its rule may say."""
    if slot.palette:
        return tuple(slot.palette)
    fixed = () if slot.computed == "palette" else FIXED_WORDS.get(slot.computed or "", ())
    return tuple(dict.fromkeys((*slot.words, *fixed)))
