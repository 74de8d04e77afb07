"""Mask transforms for sampling: named, versioned, seeded, and never pushing a lesion out of the frame.

Every draw is checked on the result (`_holds`); one that fails is tried again at half its strength, and strength 0 is
the mask as it was (flipped at most), which always holds. A lesion that the frame cuts stays cut by the same side: it is
moved along that side and scaled about it, never pulled inside with a straight edge.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from morphogen.data.phantom_fields import spline_basis
from morphogen.errors import InputError

VERSION = 1
"""Goes into the provenance; raised whenever the same (mask, name, seed) would give another result."""

_STRENGTHS = (1.0, 0.5, 0.25, 0.125, 0.0)
_SHIFT = 0.25
"""Largest shift, relative to the side of the image."""
_ANGLE = 45.0
"""Largest rotation, in degrees."""
SCALE = 1.4
"""Lengths are scaled by a factor between 1 / SCALE and SCALE, uniform in its logarithm."""
SCALING = ("scale", "random", "all")
"""Transforms that scale."""
_CELLS = 4
"""Lattice cells of the elastic displacement along each side."""
_ELASTIC = 0.04
"""Standard deviation of the elastic displacement, relative to the side."""
_AREA_TOLERANCE, _ELASTIC_TOLERANCE = 0.05, 0.25
"""How far a label's area may be from scale^2 times what it was, beside the rounding of its outline."""

Params = dict[str, Any]
_Attempt = tuple[np.ndarray, float, Params]
"""A transformed mask, the factor by which areas should have grown, and the numbers that were used."""


def transform_mask(mask: np.ndarray, name: str, seed: int) -> tuple[np.ndarray, Params]:
    """Transform a label map for sampling; a pure function of its arguments.

    Every connected part of every label is kept, wholly inside the frame unless the frame cut it before; label ids are
    kept; areas change as `scale` says, up to rounding (``elastic`` and ``all``: by at most a quarter).

    Args:
        mask: (H, W) integer label map, 0 is the background.
        name: One of `MASK_TRANSFORMS`.
        seed: Non-negative.

    Returns:
        (H, W) label map of the same dtype, and the JSON-ready parameters ``name``, ``version`` and what was drawn:
        ``flip`` [vertical, horizontal], then ``scale``, ``angle`` (degrees) and ``shift`` [rows, columns] in px, or
        ``amplitude`` in px, or (``all``) both.

    Raises:
        InputError: Unknown name, or not a 2D integer map.
    """
    if name not in MASK_TRANSFORMS:
        raise InputError(f"{name}: no such mask transform; choose one of {', '.join(MASK_TRANSFORMS)}")
    if mask.ndim != 2 or not np.issubdtype(mask.dtype, np.integer):
        raise InputError(
            f"mask transform {name}: needs a 2D map of integer labels, got {mask.dtype} of shape {mask.shape}"
        )
    rng = np.random.default_rng([VERSION, list(MASK_TRANSFORMS).index(name), seed])
    flip = _draw_flip(rng, name)
    flipped = np.ascontiguousarray(mask[:: -1 if flip[0] else 1, :: -1 if flip[1] else 1])
    moved, params = MASK_TRANSFORMS[name](flipped, rng)
    return moved, {"name": name, "version": VERSION, "flip": flip, **params}


def _draw_flip(rng: np.random.Generator, name: str) -> list[bool]:
    if name == "flip":
        return [[True, False], [False, True], [True, True]][int(rng.integers(3))]
    return [bool(side) for side in rng.integers(0, 2, 2)] if name in ("random", "all") else [False, False]


def _keep(mask: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, Params]:
    return mask.copy(), {}


def _affine(kinds: Sequence[str]) -> Callable[[np.ndarray, np.random.Generator], tuple[np.ndarray, Params]]:
    """Transform that scales, rotates and shifts (those of `kinds`) with one nearest-neighbour resampling."""

    def transform(mask: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, Params]:
        scale, angle, row, column = rng.uniform(-1.0, 1.0, 4) * [
            k in kinds for k in ("scale", "rotate", "shift", "shift")
        ]

        def attempt(strength: float) -> _Attempt | None:
            factor, degrees = SCALE ** (strength * scale), strength * _ANGLE * angle
            return _place(mask, factor, degrees, strength * _SHIFT * np.array([row, column]))

        return _first_that_holds(mask, attempt, _AREA_TOLERANCE)

    return transform


def _place(mask: np.ndarray, scale: float, angle: float, shift: np.ndarray) -> _Attempt | None:
    """Scale and rotate about the lesions' middle, then shift by `shift` (of the sides) or less; None: cannot fit."""
    points = np.argwhere(mask > 0).astype(np.float64)
    shape = np.array(mask.shape)
    if not len(points):
        return mask.copy(), 1.0, {"scale": 1.0, "angle": 0.0, "shift": [0.0, 0.0]}
    cut = _cut(mask)
    if cut.any():
        angle = 0.0
    if cut.all(axis=1).any():  # both opposite sides: nothing but that size fits
        scale = 1.0
    low, high = points.min(0), points.max(0)
    anchor = np.where(cut[:, 0], -0.5, np.where(cut[:, 1], shape - 0.5, (low + high) / 2))
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    matrix = scale * np.array([[cos, -sin], [sin, cos]])
    moved = (points - anchor) @ matrix.T + anchor
    least, most = 1.0 - moved.min(0), shape - 2.0 - moved.max(0)
    if (~cut.any(axis=1) & (least > most)).any():
        return None
    offset = np.where(cut.any(axis=1), 0.0, np.clip(shift * shape, np.minimum(least, most), most))
    rows, columns = np.indices(mask.shape)
    target = np.stack([rows, columns], axis=-1) - anchor - offset
    source = target @ np.linalg.inv(matrix).T + anchor
    numbers = {"scale": float(scale), "angle": float(angle) + 0.0, "shift": [float(o) + 0.0 for o in offset]}
    return _sample(mask, source[..., 0], source[..., 1]), scale**2, numbers


def _elastic(mask: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, Params]:
    """Displace every point smoothly by a cubic B-spline lattice; the displacement fades to 0 at the frame."""
    height, width = mask.shape
    lattices = rng.standard_normal((2, _CELLS + 3, _CELLS + 3))
    window = np.sin(np.pi * (np.arange(height) + 0.5) / height)[:, None] * np.sin(
        np.pi * (np.arange(width) + 0.5) / width
    )
    field = [window * (spline_basis(_CELLS, height) @ v @ spline_basis(_CELLS, width).T) / 0.479 for v in lattices]
    rows, columns = np.indices(mask.shape)

    def attempt(strength: float) -> _Attempt | None:
        amplitude = strength * _ELASTIC * min(mask.shape)
        moved = _sample(mask, rows + amplitude * field[0], columns + amplitude * field[1])
        return moved, 1.0, {"cells": _CELLS, "amplitude": amplitude}

    return _first_that_holds(mask, attempt, _ELASTIC_TOLERANCE)


def _all(mask: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, Params]:
    """Scale, rotate and shift, then bend."""
    moved, numbers = MASK_TRANSFORMS["random"](mask, rng)
    bent, bend = _elastic(moved, rng)
    return bent, {**numbers, **bend}


def _first_that_holds(
    mask: np.ndarray, attempt: Callable[[float], _Attempt | None], tolerance: float
) -> tuple[np.ndarray, Params]:
    for strength in _STRENGTHS:
        result = attempt(strength)
        if result is not None and _holds(mask, result[0], result[1], tolerance):
            return result[0], result[2]
    raise AssertionError("strength 0 is the mask itself, which holds")


def _sample(mask: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Labels at the nearest pixels of these source coordinates; background beyond the frame."""
    r, c = np.rint(rows).astype(int), np.rint(columns).astype(int)
    inside = (r >= 0) & (r < mask.shape[0]) & (c >= 0) & (c < mask.shape[1])
    return np.where(inside, mask[np.where(inside, r, 0), np.where(inside, c, 0)], 0).astype(mask.dtype)


def _cut(mask: np.ndarray) -> np.ndarray:
    """(2, 2) bool: whether a lesion touches [[top, bottom], [left, right]]."""
    lesion = mask > 0
    return np.array([[lesion[0].any(), lesion[-1].any()], [lesion[:, 0].any(), lesion[:, -1].any()]])


def _holds(before: np.ndarray, after: np.ndarray, growth: float, tolerance: float) -> bool:
    """Whether labels, their connected parts, their areas and the sides that cut them are as they should be."""
    from scipy import ndimage

    if not np.array_equal(_cut(before), _cut(after)) or not np.array_equal(
        np.unique(after[after > 0]), np.unique(before[before > 0])
    ):
        return False
    for label in np.unique(before[before > 0]):
        a, b = before == label, after == label
        expected = growth * a.sum()
        if abs(b.sum() - expected) > tolerance * expected + 2.0 * np.sqrt(expected):
            return False
        if ndimage.label(a, np.ones((3, 3)))[1] != ndimage.label(b, np.ones((3, 3)))[1]:
            return False
    return True


MASK_TRANSFORMS: dict[str, Callable[[np.ndarray, np.random.Generator], tuple[np.ndarray, Params]]] = {
    "identity": _keep,
    "flip": _keep,
    "shift": _affine(("shift",)),
    "rotate": _affine(("rotate",)),
    "scale": _affine(("scale",)),
    "elastic": _elastic,
    "random": _affine(("scale", "rotate", "shift")),
    "all": _all,
}
"""By name; ``random`` is the composition of flip, scale, rotate and shift, ``all`` that of ``random`` and elastic."""
