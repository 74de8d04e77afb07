"""Duplicates among the synthetic images: a set of few different images teaches little, whatever its size."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from morphogen.data.duplicates import groups_of, near_duplicate_pairs, signatures_of

PROTOCOL = (
    "near-duplicates by perceptual hash and correlation of 32 x 32 grey thumbnails, joined into groups, as are images "
    "of one even grey, which correlate with nothing; rate = images that have an earlier one in their group, of all"
)


def duplicates(ids: Sequence[str], thumbnails: np.ndarray, real: np.ndarray | None = None) -> dict[str, Any]:
    """Groups of near-duplicates.

    Args:
        ids: One an image.
        thumbnails: (N, 32, 32) float32 grey.
        real: Those of the real images, for comparison: a set of real images has its near-duplicates too.

    Returns:
        ``n``, ``redundant`` (images that have an earlier twin), ``rate``, ``rate_of_real`` (None without `real`),
        ``groups`` (ids, the largest group first), ``protocol``.
    """
    groups = _groups(thumbnails)
    redundant = sum(len(group) - 1 for group in groups)
    theirs = None if real is None or not len(real) else sum(len(g) - 1 for g in _groups(real)) / len(real)
    return {
        "n": len(ids),
        "redundant": redundant,
        "rate": redundant / len(ids) if len(ids) else None,
        "rate_of_real": theirs,
        "groups": [[ids[i] for i in group] for group in groups],
        "protocol": PROTOCOL,
    }


def _groups(thumbnails: np.ndarray) -> list[list[int]]:
    """Indices of every group of two or more, the largest first."""
    if not len(thumbnails):
        return []
    even = np.flatnonzero(np.ptp(thumbnails, axis=(1, 2)) == 0).tolist()
    pairs = [*near_duplicate_pairs(signatures_of(thumbnails)), *pairwise(even)]
    members: dict[int, list[int]] = {}
    for i, group in enumerate(groups_of(len(thumbnails), pairs)):
        members.setdefault(group, []).append(i)
    return sorted((m for m in members.values() if len(m) > 1), key=lambda m: -len(m))
