"""From the probability that a generator paints beside an image to a mask with one lesion, and how clear it was."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

THRESHOLD = 0.5
AMBIGUOUS = (0.2, 0.8)
"""Probabilities between these, both excluded, are neither skin nor lesion."""
RADIUS, RADIUS_SIDE = 2.0, 512
"""Radius of the opening in px, for an image whose shorter side is `RADIUS_SIDE`."""


@dataclass(frozen=True)
class Cleaned:
    """A mask and what it was made of.

    Attributes:
        mask: (H, W) int64, 1 on the lesion: one connected part without holes, or nothing.
        area: Share of the image that the mask covers.
        raw_area: The same before anything was cleaned.
        ambiguous: Pixels of `AMBIGUOUS` probability farther than half a cell from the outline, per pixel of lesion,
            before anything was cleaned; where there is no such pixel of lesion, the number of all of them.
        radius: Radius of the opening in px.
    """

    mask: np.ndarray
    area: float
    raw_area: float
    ambiguous: float
    radius: int


def clean(probability: np.ndarray, cell: int = 1) -> Cleaned:
    """Make a mask of a probability: threshold, largest part, holes filled, outline opened, and its largest part again.

    Parts touch at corners too, and of two equal ones the first in reading order stays. The opening (by a disc, which
    takes what lies beyond the image's border for neither) removes hairs and spurs thinner than itself; its radius is in
    proportion to the shorter side, rounded, so that images below 128 px are not opened at all.

    Args:
        probability: (H, W) float in [0, 1].
        cell: Pixels to a side of a latent that the probability was decoded from. Nearer than half of that to an outline
            even a sure latent cannot say more, so that unclear pixels there tell nothing; of an image of few cells they
            would be most of a small lesion.
    """
    from scipy import ndimage
    from skimage.morphology import disk, opening

    raw = probability > THRESHOLD
    low, high = AMBIGUOUS
    unclear = (probability > low) & (probability < high)
    if raw.any() and not raw.all():
        unclear &= ndimage.distance_transform_edt(raw) + ndimage.distance_transform_edt(~raw) > cell / 2
    radius = round(RADIUS * min(probability.shape) / RADIUS_SIDE)
    mask = np.asarray(ndimage.binary_fill_holes(_largest(raw)))
    if radius:
        mask = _largest(opening(mask, disk(radius), mode="ignore"))
    ambiguous = int(unclear.sum()) / max(int(raw.sum()), 1)
    return Cleaned(mask.astype(np.int64), float(mask.mean()), float(raw.mean()), ambiguous, radius)


def _largest(mask: np.ndarray) -> np.ndarray:
    """The largest connected part of an (H, W) bool mask; nothing where there is nothing."""
    from scipy import ndimage

    parts, n = ndimage.label(mask, structure=np.ones((3, 3)))
    if n == 0:
        return mask
    sizes = np.bincount(parts.ravel(), minlength=n + 1)[1:]
    return np.asarray(parts == 1 + int(np.argmax(sizes)))
