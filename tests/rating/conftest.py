"""A small rating page with its key, and answers to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from morphogen.data.phantoms import phantom_dataset
from morphogen.rating.draw import draw
from morphogen.rating.page import read_key, write_page


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Synthetic images of 32 x 32 px and "real" ones of 48 x 48 px, eight of each."""
    root = tmp_path_factory.mktemp("rating")
    phantom_dataset(root / "painted", "mucosa", 8, 32, subjects=4, seed=1)
    phantom_dataset(root / "photographed", "skin", 8, 48, subjects=4, seed=2)
    return root / "painted", root / "photographed"


@pytest.fixture
def page(folders: tuple[Path, Path], tmp_path: Path) -> Path:
    """Folder of a page of 5 synthetic and 5 real images, 3 of them shown twice."""
    write_page(draw(*folders, n=5, repeats=3, seed=0), tmp_path / "page", {})
    return tmp_path / "page"


@pytest.fixture
def answer(page: Path) -> Callable[..., Path]:
    """Writes a file of answers as the page would, with the scores given by a function of the showing's entry."""
    key = read_key(page)

    def write(name: str, score: Callable[[str, dict[str, Any]], int] = lambda *_: 3, **changes: Any) -> Path:
        rows = [
            {"id": shown, "position": i + 1, "score": score(shown, showing), "confidence": 1 + i % 3, "seconds": 2.5}
            for i, (shown, showing) in enumerate(key["showings"].items())
        ]
        content = {"format": "morphogen-rating-answers", "version": 1, "study": key["study"], "rater": name}
        path = page.parent / f"{len(list(page.parent.glob('*.json')))}.json"
        path.write_text(json.dumps(content | {"answers": rows} | changes))
        return path

    return write
