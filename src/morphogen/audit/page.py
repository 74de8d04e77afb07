"""The audit as one self-contained page: its figures, and the closest pairs side by side."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from morphogen.audit.figure import tile
from morphogen.files import write_text

MOST = 48
LEAKS = {
    "provenance": ("Provenance", "source masks and training images of the generator among the test images"),
    "subjects": ("Subjects", "in the test part and in another"),
    "foundation": ("Foundation", "test images that it was trained on, by id or perceptual hash"),
    "near_duplicates": ("Near-duplicates", "of test images in the other parts"),
    "synthetic": ("Copies of test images", "synthetic images that are near-duplicates of one"),
}
"""Section of the leakage audit -> its title and what it looks for."""

Picture = Callable[[str], np.ndarray]


def write_page(result: Mapping[str, Any], synthetic: Picture, real: Picture, path: Path) -> None:
    """Write the page; it needs no other file and no network.

    Args:
        result: Of the verb.
        synthetic: Synthetic image (H, W, 3) uint8 by id.
        real: Training image by id.
        path: Where to write.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("morphogen.audit", "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["share"] = share
    pairs = [
        {**pair, "synthetic": _uri(synthetic(pair["id"])), "real": _uri(real(pair["nearest"]))}
        for pair in result["memorisation"]["pairs"][:MOST]
    ]
    page = environment.get_template("page.html.j2").render(
        result=result, found=result["memorisation"], pairs=pairs, checks=LEAKS, example=example
    )
    write_text(path, page)


def share(value: float | None) -> str:
    """A rate in per cent."""
    return "\u2013" if value is None else f"{100 * value:.1f} %"


def example(section: Mapping[str, Any]) -> str:
    """The first finding of a section of the leakage audit in words, or nothing."""
    first = section["found"][0] if section["found"] else {}
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in first.items())


def _uri(image: np.ndarray) -> str:
    buffer = BytesIO()
    tile(image).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
