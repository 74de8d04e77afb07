"""Real images that a ControlNet for mask and image reads while it samples: the run's own training images, no others.

What it paints is a near copy of the image that it reads, so that any other image (a test image, say) would pass its
pixels on to whoever trains on the pairs. Images are known by the hash of their pixels at the generator's resolution.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from morphogen.data.images import load_rgb
from morphogen.data.pairs import Pairs, resize_image
from morphogen.data.records import Record
from morphogen.errors import InputError
from morphogen.sampling.jobs import Job

TRANSFORMS = ("identity", "flip")
"""Mask transforms that an image can follow exactly. Whatever scales, turns, shifts or bends the mask would bring pixels
into the frame, or out of it, that the real image does not show."""


def refuse_transform(name: str) -> None:
    """Refuse a mask transform that the image of the mask cannot follow.

    Raises:
        InputError: It is none of `TRANSFORMS`.
    """
    if name not in TRANSFORMS:
        fault = "the generator reads the real image beside its mask, which cannot follow"
        raise InputError(f"--mask-transform {name}: {fault}; give {' or '.join(TRANSFORMS)}")


def digest(image: NDArray[np.uint8]) -> str:
    """SHA-256 of the pixels of an image (3, R, R)."""
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()


def digests(pairs: Pairs) -> list[str]:
    """Of every image, in order."""
    return [digest(pairs.image(i)) for i in range(len(pairs))]


def checked_image(record: Record | None, id_: str, resolution: int, known: Collection[str]) -> NDArray[np.uint8]:
    """The real image of a mask, (3, R, R).

    Args:
        record: Where the mask came from.
        id_: Of the mask or the job, for the error.
        resolution: R.
        known: Hashes of the training images.

    Raises:
        InputError: There is none (the mask is a loose file), it cannot be read, or the run was not trained on it.
    """
    if record is None or record.mask is None or record.mask == record.image:
        fault = "has no image, and the generator reads the real image beside its mask"
        raise InputError(f"{id_}: {fault}; give --masks the data set that it was trained on")
    image = np.ascontiguousarray(resize_image(load_rgb(record), resolution).transpose(2, 0, 1))
    if digest(image) not in known:
        fault = "is no image that the generator was trained on, and it would pass a near copy of it on"
        raise InputError(f"{record.image}: {fault}; give --masks the data set that it was trained on")
    return image


def source_images(jobs: Sequence[Job], resolution: int, known: Collection[str]) -> NDArray[np.uint8]:
    """(B, 3, R, R): the real images of the jobs' masks, mirrored as these are.

    Raises:
        InputError: As `checked_image` and `refuse_transform`.
    """
    images = []
    for job in jobs:
        refuse_transform(job.params.get("name", "identity"))
        image = checked_image(job.source, job.id, resolution, known)
        down, across = job.params.get("flip", (False, False))
        images.append(image[:, :: -1 if down else 1, :: -1 if across else 1])
    return np.stack(images)
