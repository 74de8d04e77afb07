"""Write the README's pictures: phantoms with their masks outlined, and synthetic pairs of a finished demo.

python docs/make_picture.py [morphogen-demo]
"""

from __future__ import annotations

import sys
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


def synthetic(demo: Path) -> np.ndarray:
    """Masks above the images that were painted for them, the first of the first repetition."""
    folder = min((demo / "study" / "synthetic").iterdir())
    names = sorted(file.name for file in (folder / "images").glob("*.png"))[:COLUMNS]

    def row(part: str) -> np.ndarray:
        opened = [Image.open(folder / part / name).convert("RGB") for name in names]
        return np.concatenate([np.array(image.resize((SIDE, SIDE), Image.Resampling.NEAREST)) for image in opened], 1)

    return np.concatenate([row("masks"), row("images")])


if __name__ == "__main__":
    Image.fromarray(picture()).save(Path(__file__).with_name("phantoms.png"), optimize=True)
    for demo in sys.argv[1:]:
        Image.fromarray(synthetic(Path(demo))).save(Path(__file__).with_name("synthetic.png"), optimize=True)
