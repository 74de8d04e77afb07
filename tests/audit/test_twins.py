"""Duplicates among the synthetic images."""

from __future__ import annotations

import numpy as np

from morphogen.audit.duplicates import duplicates
from morphogen.data.duplicates import grey_thumbnail
from morphogen.data.phantoms import phantom


def thumbnails(images: list[np.ndarray]) -> np.ndarray:
    return np.array([grey_thumbnail(image) for image in images])


def test_groups_and_rates() -> None:
    images = [phantom("skin", seed, 48)[0] for seed in range(12)]
    dimmed = (images[3] * 0.9).astype(np.uint8)
    planted = [*images, images[3], dimmed, images[7]]
    ids = [f"s{i:02d}" for i in range(15)]
    result = duplicates(ids, thumbnails(planted), thumbnails([*images, images[0]]))
    assert result["groups"] == [["s03", "s12", "s13"], ["s07", "s14"]]
    assert (result["n"], result["redundant"], result["rate"]) == (15, 3, 0.2)
    assert result["rate_of_real"] == 1 / 13


def test_different_images_have_none() -> None:
    result = duplicates([str(i) for i in range(30)], thumbnails([phantom("mucosa", s, 48)[0] for s in range(30)]))
    assert (result["redundant"], result["rate"], result["groups"], result["rate_of_real"]) == (0, 0.0, [], None)


def test_black_images_are_alike() -> None:
    """What a generator that has failed paints."""
    black = [np.zeros((40, 40, 3), np.uint8)] * 3
    result = duplicates(["a", "b", "c", "d"], thumbnails([*black, phantom("skin", 0, 40)[0]]))
    assert (result["redundant"], result["groups"]) == (2, [["a", "b", "c"]])
