"""Images for training a foundation: real ones, augmented, and phantoms made on the fly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from morphogen.data.pairs import Pairs
from morphogen.data.phantoms import KINDS, phantom
from morphogen.training.rng import numpy_rng
from morphogen.training.task import Draw


class ImagePool:
    """Real images at one resolution, and a share of phantoms.

    Args:
        sources: Real images.
        phantoms: How many phantoms count as one pass beside the real images; each draw makes a new one.
    """

    def __init__(self, sources: Sequence[Pairs], phantoms: int, resolution: int) -> None:
        self.sources, self.phantoms, self.resolution = sources, phantoms, resolution
        self.items = [(source, index) for source in sources for index in range(len(source))]

    def __len__(self) -> int:
        return len(self.items) + self.phantoms

    def image(self, draw: Draw) -> NDArray[np.uint8]:
        """(3, R, R) uint8: a flipped or turned real image, or a phantom."""
        rng = numpy_rng(draw.seed, "image")
        if draw.index >= len(self.items):
            return make_phantom(int(rng.integers(2**31)), self.resolution)[0]
        source, index = self.items[draw.index]
        return turned(source.image(index), int(rng.integers(8)))


def make_phantom(seed: int, resolution: int) -> tuple[NDArray[np.uint8], NDArray[np.int64], str]:
    """Phantom by seed: image (3, R, R) uint8, mask (R, R) int64, kind; kinds alternate with the seed."""
    kind = KINDS[seed % len(KINDS)]
    image, mask = phantom(kind, seed, resolution)
    return np.ascontiguousarray(image.transpose(2, 0, 1)), mask, kind


def turned(image: NDArray[np.uint8], which: int) -> NDArray[np.uint8]:
    """One of the 8 symmetries of the square, on the last two axes."""
    image = np.rot90(image, which % 4, axes=(-2, -1))
    return np.ascontiguousarray(image[..., ::-1] if which >= 4 else image)


def to_signed(images: NDArray[np.uint8]) -> Tensor:
    """uint8 to float32 in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).float() / 127.5 - 1


def to_bytes(x: Tensor) -> NDArray[np.uint8]:
    """(..., H, W) in [-1, 1] to uint8, rounded."""
    return ((x.detach().cpu().float().clamp(-1, 1) + 1) * 127.5).round().byte().numpy()


def save_grid(x: Tensor, path: Path, columns: int) -> None:
    """Write (N, 3, H, W) images in [-1, 1] as one PNG with `columns` columns."""
    from PIL import Image

    pictures = to_bytes(x).transpose(0, 2, 3, 1)
    rows = [np.concatenate(list(pictures[i : i + columns]), axis=1) for i in range(0, len(pictures), columns)]
    width = max(row.shape[1] for row in rows)
    rows = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows]
    Image.fromarray(np.concatenate(rows)).save(path)
