"""Are synthetic images copies of real ones? Each is compared with the real image that it resembles most.

Two distances, both between whole images of one size:

* ``pixel``: 1 - correlation of 32 x 32 grey thumbnails; the least over the four mirror images, since a generator
  that was trained with flips may copy flipped.
* ``inception``: 1 - cosine of Inception features, where these weights are installed.

What is near is said by the real images themselves: the threshold of a distance is the 1st percentile of the distance
from each real image to its nearest one *of another subject* (frames of one video resemble each other by nature). A
synthetic image is flagged below the threshold of either distance, or where it is a near-duplicate by the rule of
`morphogen.data.duplicates`. A copied detail in new surroundings is not found in this way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from morphogen.data.duplicates import (
    CORRELATION,
    HASH_DISTANCE,
    grey_thumbnail,
    groups_of,
    near_duplicate_pairs,
    signatures_of,
)
from morphogen.errors import InputError

PERCENTILE = 1.0
PROTOCOL = (
    "nearest real image of each synthetic one, at the size of the synthetic images; "
    "pixel = 1 - correlation of 32 x 32 grey thumbnails, least over mirror images; "
    "inception = 1 - cosine of Inception features; "
    "flagged below the 1st percentile of the distances from real images to their nearest of another subject "
    "(of another near-duplicate group where subjects are unknown), or as a near-duplicate"
)
_MIRRORS = ((), (1,), (2,), (1, 2))
_BLOCK = 1024


@dataclass(frozen=True)
class ImageSet:
    """Images to compare, with what is known about them.

    Attributes:
        ids: One an image.
        thumbnails: (N, 32, 32) float32 grey.
        features: (N, D) float64 Inception features, or None.
        subjects: One an image, or None where unknown.
    """

    ids: Sequence[str]
    thumbnails: np.ndarray
    features: np.ndarray | None = None
    subjects: Sequence[str] | None = None


def image_set(
    ids: Sequence[str], images: Iterable[np.ndarray], subjects: Sequence[str] | None = None, inception: bool = False
) -> ImageSet:
    """Reduce (H, W, 3) uint8 images to what is compared; both sets of an audit must come at one size.

    Raises:
        InputError: `inception` without its weights installed.
    """
    kept = list(images)
    thumbnails = np.stack([grey_thumbnail(image) for image in kept])
    features = None
    if inception:
        from morphogen.metrics.features import extract

        features = extract(kept)
    return ImageSet(ids, thumbnails, features, subjects)


def audit(synthetic: ImageSet, real: ImageSet) -> dict[str, Any]:
    """Compare every synthetic image with its nearest real one.

    Returns:
        ``n``, ``n_real``, ``flagged``, ``rate`` (flagged / n), ``rate_of_real`` (the same rule applied to real images
        and those of other subjects: what a harmless set shows), ``threshold`` by distance, ``protocol``, and
        ``pairs``: one a synthetic image, closest first: ``id``, ``nearest``, ``by`` (the distance in which that one is
        nearest), ``distances`` by name, ``hash_distance`` (differing bits to the nearest by ``pixel``), ``flagged``.

    Raises:
        InputError: Fewer than two real images (or subjects) that differ.
    """
    between = _neighbours(real, real, _groups(real))
    threshold = {name: float(np.percentile(n.distance, PERCENTILE)) for name, n in between.items()}
    found = _neighbours(synthetic, real, None)
    flags = _flags(found, synthetic, real, threshold)
    return {
        "n": len(synthetic.ids),
        "n_real": len(real.ids),
        "flagged": int(flags.sum()),
        "rate": float(flags.mean()),
        "rate_of_real": float(_flags(between, real, real, threshold).mean()),
        "threshold": threshold,
        "protocol": PROTOCOL,
        "pairs": _pairs(found, synthetic, real, threshold, flags),
    }


@dataclass(frozen=True)
class _Neighbours:
    """Nearest image of each: its index, its distance, and the mirror (of `_MIRRORS`) in which it was found."""

    index: np.ndarray
    distance: np.ndarray
    mirror: np.ndarray


def _groups(real: ImageSet) -> np.ndarray:
    """Group of every real image: its subject, else its near-duplicates."""
    if real.subjects is not None and len(set(real.subjects)) > 1:
        return np.unique(np.array(real.subjects), return_inverse=True)[1]
    groups = groups_of(len(real.ids), near_duplicate_pairs(signatures_of(real.thumbnails)))
    if len(set(groups)) < 2:
        raise InputError(f"audit: {len(real.ids)} real images without a difference; give at least 2 that differ")
    return np.array(groups)


def _neighbours(images: ImageSet, real: ImageSet, groups: np.ndarray | None) -> dict[str, _Neighbours]:
    """Nearest real image by each distance; with `groups`, of another group than one's own."""
    mirrors = [_unit(_mirror(images.thumbnails, axes)) for axes in _MIRRORS]
    found = {"pixel": _search(mirrors, _unit(real.thumbnails), groups)}
    if images.features is not None and real.features is not None:
        found["inception"] = _search([_normalised(images.features)], _normalised(real.features), groups)
    return found


def _search(queries: Sequence[np.ndarray], real: np.ndarray, groups: np.ndarray | None) -> _Neighbours:
    """Largest cosine over real rows and over the versions of a query, in blocks of rows."""
    index, best, mirror = [], [], []
    for start in range(0, len(queries[0]), _BLOCK):
        cosines = np.stack([query[start : start + _BLOCK] @ real.T for query in queries])
        if groups is not None:
            cosines[:, groups[start : start + _BLOCK, None] == groups[None]] = -np.inf
        over_mirrors = cosines.max(axis=0)
        nearest = over_mirrors.argmax(axis=1)
        rows = np.arange(len(nearest))
        index.append(nearest)
        best.append(over_mirrors[rows, nearest])
        mirror.append(cosines[:, rows, nearest].argmax(axis=0))
    return _Neighbours(np.concatenate(index), 1 - np.concatenate(best), np.concatenate(mirror))


def _pairs(
    found: dict[str, _Neighbours], images: ImageSet, real: ImageSet, threshold: dict[str, float], flags: np.ndarray
) -> list[dict[str, Any]]:
    names = list(found)
    relative = np.stack([found[name].distance / max(threshold[name], 1e-12) for name in names])
    by, hashes = relative.argmin(axis=0), _hash_distance(found["pixel"], images, real)
    return [
        {
            "id": images.ids[i],
            "nearest": real.ids[found[names[by[i]]].index[i]],
            "by": names[by[i]],
            "distances": {name: float(found[name].distance[i]) for name in names},
            "hash_distance": int(hashes[i]),
            "flagged": bool(flags[i]),
        }
        for i in np.argsort(relative.min(axis=0), kind="stable")
    ]


def _flags(found: dict[str, _Neighbours], images: ImageSet, real: ImageSet, threshold: dict[str, float]) -> np.ndarray:
    below = np.any([n.distance < threshold[name] for name, n in found.items()], axis=0)
    alike = found["pixel"].distance <= 1 - CORRELATION
    return below | (alike & (_hash_distance(found["pixel"], images, real) <= HASH_DISTANCE))


def _hash_distance(found: _Neighbours, images: ImageSet, real: ImageSet) -> np.ndarray:
    """Differing bits of the perceptual hashes of each image, mirrored as it was found, and its neighbour."""
    turned = np.stack([_mirror(t[None], _MIRRORS[m])[0] for t, m in zip(images.thumbnails, found.mirror, strict=True)])
    ours, theirs = (signatures_of(thumbnails) for thumbnails in (turned, real.thumbnails))
    return (ours.bits != theirs.bits[found.index]).sum(axis=1)


def _mirror(thumbnails: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    return np.flip(thumbnails, axes) if axes else thumbnails


def _unit(thumbnails: np.ndarray) -> np.ndarray:
    return signatures_of(thumbnails).thumbnails.astype(np.float64)


def _normalised(features: np.ndarray) -> np.ndarray:
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
