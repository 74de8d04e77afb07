"""Does a model already know the images that it is to be tested on?

A foundation's card lists, for every set that it was trained on, the ids and the perceptual hashes of the images. An
image overlaps where a set of the same name lists its id, or where a hash of any set differs from its own in at most two
of 64 bits: copies under another name or encoding, not merely similar images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from morphogen.data.duplicates import signatures
from morphogen.data.records import Dataset
from morphogen.errors import InputError

COPY_BITS = 2
"""Among 5 million pairs of different images (colonoscopy, dermoscopy) 1 came so near without being a duplicate."""


@dataclass(frozen=True)
class Overlap:
    """One image that the model has seen.

    Attributes:
        id: In the dataset.
        set: Name of the training set.
        by: ``id`` or ``hash``.
        seen: The id or the hash in the card.
    """

    id: str
    set: str
    by: str
    seen: str


def find_overlaps(dataset: Dataset, card: Mapping[str, Any]) -> list[Overlap]:
    """Images of a dataset that a model was trained on.

    Args:
        dataset: The images to be tested on.
        card: ``{"sets": {name: {"training_ids": [...], "phashes": [...]}}}``, a hash being 16 hexadecimal digits; other
            keys are ignored.

    Returns:
        At most one overlap an image, ordered as the dataset.

    Raises:
        InputError: An image cannot be read.
    """
    sets: Mapping[str, Mapping[str, Any]] = card.get("sets", {})
    if not sets or not len(dataset):
        return []
    known = set(sets.get(dataset.name, {}).get("training_ids", ()))
    names = [name for name, entry in sets.items() for _ in entry.get("phashes", ())]
    hashes = [text for entry in sets.values() for text in entry.get("phashes", ())]
    theirs = np.array([np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8)) for text in hashes], dtype=bool)
    overlaps = []
    for record, bits in zip(dataset, signatures(dataset).bits, strict=True):
        if record.id in known:
            overlaps.append(Overlap(record.id, dataset.name, "id", record.id))
        elif len(theirs):
            differing = (theirs != bits).sum(axis=1)
            nearest = int(differing.argmin())
            if differing[nearest] <= COPY_BITS:
                overlaps.append(Overlap(record.id, names[nearest], "hash", hashes[nearest]))
    return overlaps


def refuse_overlaps(dataset: Dataset, card: Mapping[str, Any], model: str) -> None:
    """Stop before a model is tested on images that it was trained on.

    Args:
        dataset: The images to be tested on.
        card: As in `find_overlaps`.
        model: Named in the error.

    Raises:
        InputError: There are such images; names the first one and their number.
    """
    overlaps = find_overlaps(dataset, card)
    if overlaps:
        first = overlaps[0]
        fault = f"{len(overlaps)} of {len(dataset)} test images were used to train {model}"
        which = f"{first.id} by its {first.by} in {first.set}"
        raise InputError(f"{dataset.root}: {fault} ({which}); test on others, or take a model that has not seen them")
