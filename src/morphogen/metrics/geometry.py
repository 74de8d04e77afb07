"""Where the voxels of a NIfTI volume lie, and whether two volumes lie in one place."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from morphogen.errors import InputError

MM = {"meter": 1000.0, "micron": 0.001}
"""Millimetres of the units that a header can name; without a name they are millimetres."""
SHIFT = 0.1
"""How far a corner may lie from where the partner has it, as a share of the smallest voxel side."""


def spacing_of(file: Path) -> tuple[float, ...]:
    """Size of a voxel along each of three axes, in mm.

    Raises:
        InputError: The header gives no such sizes.
    """
    header = _header(file)
    sizes = (*header.get_zooms()[:3], 1.0, 1.0)[:3]
    if not all(np.isfinite(size) and size > 0 for size in sizes):
        shown = " x ".join(f"{size:g}" for size in sizes)
        raise InputError(f"{file}: its header gives voxels of {shown}; repair the header, or state --spacing")
    return tuple(float(size) * MM.get(header.get_xyzt_units()[0], 1.0) for size in sizes)


def same_place(pred: Path, ref: Path) -> None:
    """Refuse a prediction whose voxels do not lie where those of the reference do.

    Raises:
        InputError: Spacing or affine differ.
    """
    ways = f"save it with the header of {ref}, or compare voxel by voxel with --spacing px"
    ours, theirs = spacing_of(pred), spacing_of(ref)
    if not np.allclose(ours, theirs, rtol=1e-3):
        sizes = [" x ".join(f"{size:.4g}" for size in sizes) for sizes in (ours, theirs)]
        raise InputError(f"{pred}: its voxels are {sizes[0]} mm, those of its reference {sizes[1]} mm; {ways}")
    shape = np.array((*_header(ref).get_data_shape(), 1, 1)[:3]) - 1
    corners = np.array([(*corner, 1) for corner in product((0, 1), repeat=3)]) * (*shape, 1)
    shift = np.linalg.norm((corners @ (_affine(pred) - _affine(ref)).T)[:, :3], axis=1).max()
    if not shift <= SHIFT * min(theirs) / MM.get(_header(ref).get_xyzt_units()[0], 1.0):
        raise InputError(f"{pred}: lies elsewhere than its reference (its affine differs); {ways}")


def _header(file: Path) -> Any:
    return _volume(file).header


def _affine(file: Path) -> np.ndarray:
    return np.asarray(_volume(file).affine, dtype=np.float64)


def _volume(file: Path) -> Any:
    import nibabel

    return nibabel.load(file)  # its pixels were read before, so that it is a volume
