"""The closest pairs of an audit, side by side: the synthetic image, and the real one that it resembles most."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from morphogen.files import write_bytes

SIDE = 160
_GAP, _CAPTION = 12, 30
_COLUMNS = 4


def draw_pairs(
    pairs: Sequence[Mapping[str, Any]],
    synthetic: Callable[[str], np.ndarray],
    real: Callable[[str], np.ndarray],
    path: Path,
    most: int = 12,
) -> None:
    """Write a PNG with the first pairs of an audit.

    Args:
        pairs: As in the result of `audit`, closest first.
        synthetic: Synthetic image (H, W, 3) uint8 by id.
        real: Real image by id.
        path: Where to write.
        most: Pairs to show at most.
    """
    shown = list(pairs[:most])
    rows = -(-len(shown) // _COLUMNS)
    cell = (2 * SIDE + _GAP, SIDE + _CAPTION)
    columns = min(_COLUMNS, len(shown))
    sheet = Image.new("RGB", (columns * (cell[0] + _GAP) + _GAP, rows * cell[1] + 2 * _GAP), "white")
    for k, pair in enumerate(shown):
        left = _GAP + (k % _COLUMNS) * (cell[0] + _GAP)
        top = _GAP + (k // _COLUMNS) * cell[1]
        sheet.paste(tile(synthetic(pair["id"])), (left, top))
        sheet.paste(tile(real(pair["nearest"])), (left + SIDE + 2, top))
        colour = "#b00020" if pair["flagged"] else "#333333"
        distances = ", ".join(f"{name} {value:.3f}" for name, value in pair["distances"].items())
        caption = (
            f"{_short(pair['id'])} | {_short(pair['nearest'])}\n{distances}{', flagged' if pair['flagged'] else ''}"
        )
        ImageDraw.Draw(sheet).multiline_text((left, top + SIDE + 2), caption, fill=colour, spacing=1)
    buffer = BytesIO()
    sheet.save(buffer, "PNG")
    write_bytes(path, buffer.getvalue())


def tile(image: np.ndarray) -> Image.Image:
    """An (H, W, 3) uint8 image as a square of `SIDE` pixels."""
    return Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"...{name[-21:]}"
