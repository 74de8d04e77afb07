"""Are synthetic images copies of training images? Each is compared with the one that it resembles most.

What is near is said by the training images themselves: the threshold of a distance is the 1st percentile of the
distance from each of them to its nearest *of another subject* (frames of one video resemble each other by nature). An
image is flagged below the threshold of any distance, or where it is a near-duplicate by the rule of
`morphogen.data.duplicates`. The same rule is applied to real images that the generator never saw: what it flags there
is chance. A copied detail in new surroundings is not found in this way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from morphogen.audit.nearest import SHIFT, WINDOW, ImageSet, Neighbours, hash_distances, neighbours
from morphogen.audit.rates import difference, rate
from morphogen.data.duplicates import CORRELATION, HASH_DISTANCE, groups_of, near_duplicate_pairs, signatures_of
from morphogen.errors import InputError

PERCENTILE = 1.0
PROTOCOL = (
    "nearest training image of each synthetic one, all at one size; "
    f"pixel = 1 - correlation of the middle {WINDOW} x {WINDOW} of 32 x 32 grey thumbnails, least over mirror images "
    f"and shifts of up to {SHIFT} thumbnail pixels; other distances = 1 - cosine of the features of that name; "
    "flagged below the 1st percentile of the distances from training images to their nearest of another subject "
    "(of another near-duplicate group where subjects are unknown), or as a near-duplicate"
)
OTHER_SUBJECTS = "training images, each against those of other subjects"
HELD_OUT = "held-out images, which the generator never saw, of subjects that it never saw where these are known"


@dataclass(frozen=True)
class Found:
    """What the training images say of a set of images.

    Attributes:
        images: The set.
        nearest: Nearest training image of each, by distance.
        nearness: (N,) least distance in units of its threshold; 0 for a near-duplicate. Below 1 is flagged.
        hashes: (N,) differing bits of the hashes of each and its nearest by ``pixel``.
    """

    images: ImageSet
    nearest: dict[str, Neighbours]
    nearness: np.ndarray
    hashes: np.ndarray

    @property
    def flags(self) -> np.ndarray:
        """(N,) bool."""
        return self.nearness < 1

    @property
    def rate(self) -> dict[str, Any]:
        """``n``, ``flagged``, ``rate``, ``ci95``."""
        return rate(int(self.flags.sum()), len(self.images))


class Reference:
    """The training images, and what is near by their own measure.

    Attributes:
        real: The images.
        threshold: By distance.
        between: Every training image, judged by those of other subjects.

    Raises:
        InputError: Fewer than two images (or subjects) that differ.
    """

    def __init__(self, real: ImageSet) -> None:
        self.real = real
        found = neighbours(real, real, _groups(real))
        self.threshold = {name: float(np.percentile(n.distance, PERCENTILE)) for name, n in found.items()}
        self.between = self._found(real, found)

    def judge(self, images: ImageSet) -> Found:
        """Compare images with the training images."""
        return self._found(images, neighbours(images, self.real))

    def _found(self, images: ImageSet, nearest: dict[str, Neighbours]) -> Found:
        # a threshold of 0 (training images that equal one another) flags by the rule of near-duplicates alone
        relative = [n.distance.clip(0) / max(self.threshold[name], 1e-12) for name, n in nearest.items()]
        hashes = hash_distances(nearest["pixel"], images, self.real)
        twins = (nearest["pixel"].distance <= 1 - CORRELATION) & (hashes <= HASH_DISTANCE)
        return Found(images, nearest, np.where(twins, 0.0, np.min(relative, axis=0)), hashes)


def memorisation(synthetic: ImageSet, real: ImageSet, held_out: ImageSet | None = None) -> dict[str, Any]:
    """Compare every synthetic image with its nearest training image, and held-out images likewise.

    Args:
        synthetic: The images to judge.
        real: What the generator was trained on.
        held_out: Real images that it never saw; those of a subject in `real` are left out.

    Returns:
        ``n``, ``n_real``, ``flagged``, ``rate``, ``ci95``; ``control``: the same of real images (``of`` says which) and
        ``left_out``; ``excess``: ``diff`` of the two rates and its ``ci95``; ``rate_of_real``: the control's rate;
        ``threshold`` by distance; ``distances`` by name: 1st, 50th and 99th percentile of ``synthetic`` and of
        ``control``, and ``nearer``, the chance that a synthetic image lies nearer than one of the control (0.5: no
        difference); ``protocol``; and ``pairs``, one a synthetic image, nearest first: ``id``, ``nearest``, ``by`` (the
        distance in which that one is nearest), ``distances`` by name, ``hash_distance`` (differing bits to the nearest
        by ``pixel``), ``nearness`` (least distance in units of its threshold, 0 for a near-duplicate), ``flagged``.

    Raises:
        InputError: Fewer than two training images (or subjects) that differ.
    """
    reference = Reference(real)
    found = reference.judge(synthetic)
    control, of = reference.between, OTHER_SUBJECTS
    unseen = [] if held_out is None else _of_other_subjects(held_out, real)
    left_out = 0 if held_out is None else len(held_out) - len(unseen)
    if held_out is not None and unseen:
        control, of = reference.judge(held_out.select(unseen)), HELD_OUT
    return {
        "n_real": len(real),
        **found.rate,
        "control": {"of": of, "left_out": left_out, **control.rate},
        "excess": difference(found.rate, control.rate),
        "rate_of_real": control.rate["rate"],
        "threshold": reference.threshold,
        "percentile": PERCENTILE,
        "distances": {name: _spread(found.nearest[name], control.nearest[name]) for name in found.nearest},
        "protocol": PROTOCOL,
        "pairs": _pairs(found, reference),
    }


def _of_other_subjects(held_out: ImageSet, real: ImageSet) -> list[int]:
    if held_out.subjects is None or real.subjects is None:
        return list(range(len(held_out)))
    seen = set(real.subjects)
    return [i for i, subject in enumerate(held_out.subjects) if subject not in seen]


def _groups(real: ImageSet) -> np.ndarray:
    """Group of every training image: its subject, else its near-duplicates."""
    if real.subjects is not None and len(set(real.subjects)) > 1:
        return np.unique(np.array(real.subjects), return_inverse=True)[1]
    groups = groups_of(len(real), near_duplicate_pairs(signatures_of(real.thumbnails))) if len(real) else []
    if len(set(groups)) < 2:
        raise InputError(f"audit: {len(real)} real images without a difference; give at least 2 that differ")
    return np.array(groups)


def _spread(ours: Neighbours, theirs: Neighbours) -> dict[str, Any]:
    from scipy.stats import mannwhitneyu

    a, b = ours.distance, theirs.distance
    nearer = float(mannwhitneyu(b, a).statistic / (len(a) * len(b))) if len(a) and len(b) else None
    percentiles = [np.percentile(d, (1, 50, 99)).tolist() if len(d) else None for d in (a, b)]
    return {"synthetic": percentiles[0], "control": percentiles[1], "nearer": nearer}


def _pairs(found: Found, reference: Reference) -> list[dict[str, Any]]:
    names, nearest = list(found.nearest), found.nearest
    relative = np.stack([nearest[name].distance / max(reference.threshold[name], 1e-12) for name in names])
    by, flags = relative.argmin(axis=0), found.flags
    return [
        {
            "id": found.images.ids[i],
            "nearest": reference.real.ids[nearest[names[by[i]]].index[i]],
            "by": names[by[i]],
            "distances": {name: float(nearest[name].distance[i]) for name in names},
            "hash_distance": int(found.hashes[i]),
            "nearness": float(found.nearness[i]),
            "flagged": bool(flags[i]),
        }
        for i in np.lexsort((relative.min(axis=0), found.nearness))
    ]
