"""Feature extractors of FID, KID and the audit; each is a row of a table.

An image is resized and normalised the way the extractor was trained, and nothing else is done to it. A small image is
enlarged, so that only sets of one resolution compare.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from morphogen.errors import InputError
from morphogen.metrics import weights


@dataclass(frozen=True)
class Extractor:
    """One extractor.

    Attributes:
        id: Its name; results carry it.
        member: Key of `weights.MEMBERS`, where package and sha256 stand.
        size: Side of the square input, px.
        mean: Subtracted from the 8-bit values.
        std: Divides them.
        layer: Which activations these are.
        dim: D, their number.
    """

    id: str
    member: str
    size: int
    mean: float
    std: float
    layer: str
    dim: int


EXTRACTORS: dict[str, Extractor] = {
    # The published network takes (x - 128) / 128, that is [-1, 0.9921875], and does not resize.
    "inception": Extractor("inception", "inception", 299, 128.0, 128.0, "pool_3 (global average)", 2048),
}


def extract(
    images: Iterable[np.ndarray], extractor: str = "inception", batch_size: int = 16, device: str = "cpu"
) -> np.ndarray:
    """Features of images, one row each, in order.

    Args:
        images: (H, W, 3) uint8 arrays, of any sizes; consumed batch by batch.
        extractor: Key of `EXTRACTORS`.
        batch_size: Images per forward pass; does not change the result beyond float32 rounding.
        device: A torch device.

    Returns:
        (N, D) float64.

    Raises:
        InputError: No such extractor, or its weights are not installed.
    """
    import torch

    spec = find(extractor)
    network = weights.load_member(spec.member).to(device)
    rows = [np.empty((0, spec.dim))]
    with torch.inference_mode():
        for batch in _batches(images, batch_size):
            pixels = torch.from_numpy(np.stack([prepare(image, spec) for image in batch]))
            rows.append(network(pixels.to(device)).double().cpu().numpy())
    return np.concatenate(rows)


def find(extractor: str) -> Extractor:
    """The row of this name.

    Raises:
        InputError: There is none.
    """
    if extractor not in EXTRACTORS:
        raise InputError(f"--features: {extractor!r} is not an extractor; choose one of {', '.join(EXTRACTORS)}")
    return EXTRACTORS[extractor]


def prepare(image: np.ndarray, spec: Extractor) -> np.ndarray:
    """(H, W, 3) uint8 -> (3, size, size) float32, resized and normalised."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected an (H, W, 3) uint8 image, got {image.shape} {image.dtype}")
    resized = resize_bilinear(image, spec.size)
    return ((resized - spec.mean) / spec.std).transpose(2, 0, 1).astype(np.float32)


def resize_bilinear(image: np.ndarray, size: int) -> np.ndarray:
    """Bilinear resize as in TensorFlow 1, which the published FID statistics rest on.

    Output pixel i reads input position i * H / size: corners are not aligned, pixel centres neither, and nothing is
    antialiased. (Parmar et al., "On Aliased Resizing", CVPR 2022, on what that costs when large images are reduced.)

    Args:
        image: (H, W, C).
        size: Side of the square result.

    Returns:
        (size, size, C) float64, in the units of `image`.
    """
    values = image.astype(np.float64)
    for axis in (0, 1):
        length = values.shape[axis]
        position = np.arange(size) * (length / size)
        low = np.floor(position).astype(int)
        high = np.minimum(low + 1, length - 1)
        part = np.expand_dims(position - low, tuple(a for a in range(values.ndim) if a != axis))
        values = values.take(low, axis) * (1 - part) + values.take(high, axis) * part
    return values


def _batches(images: Iterable[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    remaining = iter(images)
    while batch := list(islice(remaining, size)):
        yield batch
