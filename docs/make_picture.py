"""Write docs/phantoms.png, the README's picture: phantoms of both kinds with their masks outlined."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import binary_dilation

from morphogen.data.phantoms import KINDS, phantom

SIDE = 112
COLUMNS = 8


def tile(kind: str, seed: int) -> np.ndarray:
    """(SIDE, SIDE, 3) uint8: a phantom with the outline of its mask in white."""
    image, mask = phantom(kind, seed, SIDE)
    outline = binary_dilation(mask > 0) & (mask == 0)
    return np.where(outline[..., None], np.uint8(255), image)


def picture() -> np.ndarray:
    """One row a kind; the images are plain in odd columns and outlined in even ones."""
    rows = []
    for kind in KINDS:
        pairs = [(phantom(kind, seed, SIDE)[0], tile(kind, seed)) for seed in range(COLUMNS // 2)]
        rows.append(np.concatenate([part for pair in pairs for part in pair], axis=1))
    return np.concatenate(rows)


if __name__ == "__main__":
    Image.fromarray(picture()).save(Path(__file__).with_name("phantoms.png"), optimize=True)
