"""Holes: where the generator paints, how that is pasted back, and holes for training that lie off a lesion."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_TRIES = 12
"""Places that are tried for a hole off the lesion."""


def feathered(mask: NDArray[np.integer] | NDArray[np.bool_], feather: float) -> NDArray[np.float32]:
    """M': 1 on the mask, falling linearly with the distance to it, 0 from `feather` pixels on.

    Args:
        mask: (H, W); what is above 0 counts.
        feather: Pixels; 0 gives the mask itself.

    Returns:
        (H, W) in [0, 1].
    """
    from scipy.ndimage import distance_transform_edt

    inside = mask > 0
    if feather == 0 or not inside.any():
        return inside.astype(np.float32)
    distance = distance_transform_edt(~inside)
    return np.clip(1 - distance / feather, 0, 1).astype(np.float32)


def feather_of(image: NDArray[Any], share: float) -> float:
    """Pixels of a feather that is a `share` of the shorter side of an (H, W, ...) image or mask."""
    return share * min(image.shape[:2])


def grown(mask: NDArray[np.integer] | NDArray[np.bool_], by: float) -> NDArray[np.bool_]:
    """(H, W): the mask and what is nearer to it than `by` pixels, or itself where `by` is 0."""
    return feathered(mask, by) > 0


def paste(painted: NDArray[np.uint8], image: NDArray[np.uint8], weight: NDArray[np.float32]) -> NDArray[np.uint8]:
    """M' G + (1 - M') I, rounded: where the weight is 0 the bytes of `image` come back as they were.

    Args:
        painted: (H, W, 3), G.
        image: (H, W, 3), I.
        weight: (H, W) in [0, 1], M'.
    """
    m = weight[..., None]
    return np.rint(m * painted + (1 - m) * image).astype(np.uint8)


def elsewhere(hole: NDArray[np.bool_], taken: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_] | None:
    """The hole mirrored at random and moved to a random place inside the frame that does not touch `taken`.

    Args:
        hole: (H, W), not empty.
        taken: (H, W) that it must keep off.
        rng: Draws the places.

    Returns:
        (H, W), or None where no place of a dozen was free.
    """
    rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
    shape = hole[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    for _ in range(_TRIES):
        flip = rng.integers(0, 2, 2)
        part = shape[:: -1 if flip[0] else 1, :: -1 if flip[1] else 1]
        top, left = (int(rng.integers(whole - own + 1)) for whole, own in zip(hole.shape, part.shape, strict=True))
        place = (slice(top, top + part.shape[0]), slice(left, left + part.shape[1]))
        if not (taken[place] & part).any():
            moved = np.zeros_like(hole)
            moved[place] = part
            return moved
    return None
