"""Pairs: joint resizing, caching, and what they say where something is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from morphogen.data.pairs import Pairs, native_mask
from morphogen.data.readers import read_dataset
from morphogen.errors import InputError


def folder(root: Path) -> Path:
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in "abc":
        mask = (rng.random((30, 40)) < 0.5).astype(np.uint8)
        image = np.where(mask[..., None] > 0, (200, 30, 10), (20, 90, 250)).astype(np.uint8)
        Image.fromarray(image).save(root / "images" / f"{name}.png")
        Image.fromarray(mask * 255).save(root / "masks" / f"{name}.png")
    return root


def test_shapes_types_and_stacks(tmp_path: Path) -> None:
    pairs = Pairs(read_dataset(folder(tmp_path)), 16)
    image, mask = pairs[1]
    assert (image.shape, image.dtype, mask.shape, mask.dtype) == ((3, 16, 16), np.uint8, (16, 16), np.uint8)
    assert set(np.unique(pairs.masks())) == {0, 1}
    assert pairs.images([2, 0]).shape == (2, 3, 16, 16)
    assert np.array_equal(pairs.images()[1], image)
    assert pairs.ids == pairs.subjects == ("a", "b", "c")
    assert len(pairs) == 3


def test_image_and_mask_stay_aligned(tmp_path: Path) -> None:
    root = folder(tmp_path)
    mask = np.zeros((300, 400), np.uint8)
    mask[60:120, 200:320] = 255
    Image.fromarray(mask).save(root / "masks" / "a.png")
    Image.fromarray(np.dstack([mask] * 3)).save(root / "images" / "a.png")
    image, labels = Pairs(read_dataset(root), 64)[0]
    assert ((image[0] > 127) != (labels > 0)).mean() < 0.02
    rows, columns = np.nonzero(labels)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (13, 25, 32, 50)


def test_images_are_antialiased(tmp_path: Path) -> None:
    root = folder(tmp_path)
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 64))
    Image.fromarray(stripes).save(root / "images" / "a.png")
    Image.fromarray(stripes).save(root / "masks" / "a.png")
    image, _ = Pairs(read_dataset(root), 16)[0]
    assert abs(image[:, :, 2:-2].astype(int) - 127).max() <= 2


def test_the_cache_reads_a_file_once_and_can_be_off(tmp_path: Path) -> None:
    data = read_dataset(folder(tmp_path))
    kept, fresh = Pairs(data, 8), Pairs(data, 8, cache=False)
    first = kept.image(0), fresh.image(0)
    data[0].image.unlink()
    assert np.array_equal(kept.image(0), first[0])
    with pytest.raises(InputError, match=r"a\.png: does not exist"):
        fresh.image(0)


def test_unannotated_records_give_images_only(tmp_path: Path) -> None:
    pairs = Pairs(read_dataset(folder(tmp_path) / "images"), 8)
    assert pairs.images().shape == (3, 3, 8, 8)
    with pytest.raises(InputError, match=r"a\.png: has no mask; use the annotated records"):
        pairs[0]


def test_native_masks_have_the_size_of_the_file(tmp_path: Path) -> None:
    data = read_dataset(folder(tmp_path))
    expected = np.array(Image.open(data[2].mask)) > 0
    assert np.array_equal(native_mask(data[2], data), expected)
