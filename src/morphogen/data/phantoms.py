"""Phantoms: procedural image-mask pairs, seeded, unlimited, of any size, with exact masks.

    >>> image, mask = phantom("mucosa", seed=7, size=64)
    >>> image.shape, mask.shape
    ((64, 64, 3), (64, 64))
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from morphogen.data.phantom_mucosa import mucosa
from morphogen.data.phantom_skin import skin, skin_class
from morphogen.data.records import Dataset, Record
from morphogen.errors import InputError

KINDS = ("mucosa", "skin")
_STYLE, _SCENE = 0, 1
_STRIDE = 1_000_000
"""Scenes of one dataset have the seeds stride * seed + 0, 1, 2, ..."""


def phantom(kind: str, seed: int, size: int, style: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """One procedural image with its exact mask; the same (kind, seed, style) is the same scene at every size.

    Args:
        kind: ``mucosa`` (colonoscopy: one or two polyps on a lit, folded wall) or ``skin`` (dermoscopy: one lesion).
        seed: Non-negative; decides the scene.
        size: Height and width in pixels, at least 16.
        style: Non-negative seed of what frames of one subject share (tissue colour, instrument, lamp); default: `seed`.

    Returns:
        Image (size, size, 3) uint8 and mask (size, size) int64: 1 on the lesion, else 0.

    Raises:
        InputError: Unknown kind, negative seed or a size below 16.
    """
    _check(kind, seed, size)
    paint = mucosa if kind == "mucosa" else skin
    return paint(_rng(kind, _STYLE, seed if style is None else style), _rng(kind, _SCENE, seed), size)


def phantom_label(kind: str, seed: int) -> str:
    """Class of the scene `phantom(kind, seed, ...)`: ``polyp``, or a skin diagnosis."""
    _check(kind, seed, 16)
    return "polyp" if kind == "mucosa" else skin_class(_rng(kind, _SCENE, seed))


def _rng(kind: str, stream: int, seed: int) -> np.random.Generator:
    return np.random.default_rng([KINDS.index(kind), stream, seed])


def _check(kind: str, seed: int, size: int) -> None:
    if kind not in KINDS:
        raise InputError(f"{kind}: no such kind of phantom; choose one of {', '.join(KINDS)}")
    if seed < 0:
        raise InputError(f"{seed}: a phantom's seed is negative; use 0 or more")
    if size < 16:
        raise InputError(f"{size}: too small for a phantom; use at least 16 pixels")
