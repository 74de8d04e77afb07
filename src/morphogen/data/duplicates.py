"""Near-duplicate images, by a perceptual hash that proposes pairs and a thumbnail correlation that confirms them.

The hash is the sign of the low-frequency DCT coefficients (8 x 8 of a 32 x 32 grey thumbnail) against their median, as
in the well-known pHash; it proposes generously, and the correlation decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from morphogen.data.images import load_rgb, open_image
from morphogen.data.records import Dataset, Record

if TYPE_CHECKING:
    from numpy.typing import NDArray

THUMBNAIL = 32
HASH_DISTANCE = 10
CORRELATION = 0.99
_BLOCK = 2048
_PROPOSALS = 8192
"""Pairs that are confirmed at once: among thousands of images that look alike, millions are proposed."""


@dataclass(frozen=True)
class Signatures:
    """`bits` (N, 64) bool perceptual hashes and `thumbnails` (N, 1024) float32 of zero mean and unit norm."""

    bits: NDArray[np.bool_]
    thumbnails: NDArray[np.float32]

    @property
    def hashes(self) -> list[str]:
        """The hashes as 16 hexadecimal digits each."""
        return [row.tobytes().hex() for row in np.packbits(self.bits, axis=1)]


def grey_thumbnail(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(H, W, 3) uint8 to (32, 32) float32 luminance, area-averaged."""
    picture = Image.fromarray(image).convert("L")
    return np.asarray(picture.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX), dtype=np.float32)


def signatures_of(thumbnails: NDArray[np.float32]) -> Signatures:
    """Hashes and unit vectors of (N, 32, 32) grey thumbnails."""
    from scipy.fft import dctn

    low = dctn(thumbnails, axes=(1, 2), norm="ortho")[:, :8, :8].reshape(-1, 64)
    bits = low > np.median(low[:, 1:], axis=1, keepdims=True)
    flat = thumbnails.reshape(len(thumbnails), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(flat, axis=1, keepdims=True)
    return Signatures(bits, (flat / np.maximum(norm, 1e-6)).astype(np.float32))


def signatures(dataset: Dataset) -> Signatures:
    """Signatures of every image of a dataset (1 to 3 ms an image).

    Raises:
        InputError: An image cannot be read.
    """
    return signatures_of(np.stack([thumbnail(record) for record in dataset]))


def thumbnail(record: Record) -> NDArray[np.float32]:
    """(32, 32) float32 luminance of a record's image.

    Raises:
        InputError: It cannot be read.
    """
    if record.plane is None and record.image.suffix.lower() in (".jpg", ".jpeg"):
        with open_image(record.image) as image:
            image.draft("L", (4 * THUMBNAIL, 4 * THUMBNAIL))  # decodes at a half, quarter or eighth of the size
            return np.asarray(image.convert("L").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX), dtype=np.float32)
    return grey_thumbnail(load_rgb(record))


def near_duplicate_pairs(signs: Signatures) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, of near-duplicate images, in order."""
    signed = np.where(signs.bits, 1.0, -1.0).astype(np.float32)
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(signed), _BLOCK):
        stop = start + _BLOCK
        near = signed[start:stop] @ signed.T >= 64 - 2 * HASH_DISTANCE
        rows, columns = np.nonzero(near)
        rows = rows + start
        keep = rows < columns
        rows, columns = rows[keep], columns[keep]
        for first in range(0, len(rows), _PROPOSALS):
            i, j = rows[first : first + _PROPOSALS], columns[first : first + _PROPOSALS]
            alike = np.einsum("nd,nd->n", signs.thumbnails[i], signs.thumbnails[j]) >= CORRELATION
            pairs += list(zip(i[alike].tolist(), j[alike].tolist(), strict=True))
    return pairs


def groups_of(n: int, pairs: list[tuple[int, int]]) -> list[int]:
    """Connected components of n items under these pairs, numbered in the order of their first item."""
    parent = list(range(n))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for i, j in pairs:
        a, b = sorted((root(i), root(j)))
        parent[b] = a
    number = {r: index for index, r in enumerate(sorted({root(i) for i in range(n)}))}
    return [number[root(i)] for i in range(n)]
