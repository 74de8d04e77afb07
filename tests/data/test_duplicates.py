"""Near-duplicates: found under recompression and light changes, not among different pictures."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from morphogen.data.duplicates import (
    groups_of,
    near_duplicate_pairs,
    signatures,
    signatures_of,
)
from morphogen.data.readers import read_dataset


def scene(seed: int) -> np.ndarray:
    """A smooth random picture, (96, 128, 3) uint8."""
    field = gaussian_filter(np.random.default_rng(seed).normal(size=(96, 128, 3)), (10, 10, 0))
    return ((field - field.min()) / np.ptp(field) * 255).astype(np.uint8)


def test_copies_are_found_and_others_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(12):
        Image.fromarray(scene(i)).save(folder / f"{i:02d}.png")
    Image.fromarray(scene(3)).save(folder / "20.jpg", quality=70)
    Image.fromarray(scene(5)).resize((90, 60)).save(folder / "21.png")
    Image.fromarray((scene(5) * 0.9).astype(np.uint8)).save(folder / "22.png")
    data = read_dataset(tmp_path)
    groups = dict(zip(data.ids, groups_of(len(data), near_duplicate_pairs(signatures(data))), strict=True))
    assert groups["03"] == groups["20"]
    assert groups["05"] == groups["21"] == groups["22"]
    assert len(set(groups.values())) == 12
    assert all(len(h) == 16 for h in signatures(data).hashes)


def test_pairs_are_those_of_the_literal_comparison() -> None:
    rng = np.random.default_rng(0)
    base = np.stack([gaussian_filter(rng.normal(size=(32, 32)), 2) for _ in range(20)])
    noisy = base + 0.02 * rng.normal(size=base.shape)
    signs = signatures_of(np.concatenate([base, noisy]).astype(np.float32) * 100 + 128)
    literal = []
    for i in range(40):
        for j in range(i + 1, 40):
            distance = int((signs.bits[i] ^ signs.bits[j]).sum())
            correlation = np.corrcoef(signs.thumbnails[i], signs.thumbnails[j])[0, 1]
            if distance <= 10 and correlation >= 0.99:
                literal.append((i, j))
    assert near_duplicate_pairs(signs) == literal
    assert (0, 20) in literal


def test_thousands_of_images_that_look_alike_need_little_memory() -> None:
    """A hundred thousand proposals; all their thumbnails at once would be 1 GB."""
    n = 500
    tones = gaussian_filter(np.random.default_rng(0).normal(size=(32, 32)), 2) * np.linspace(1, 2, n)[:, None, None]
    signs = signatures_of((tones * 100 + 128).astype(np.float32))
    tracemalloc.start()
    pairs = near_duplicate_pairs(signs)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(pairs) == n * (n - 1) // 2
    assert pairs == sorted(pairs)
    assert peak < 3e8


def test_flat_images_do_not_divide_by_zero() -> None:
    signs = signatures_of(np.zeros((3, 32, 32), np.float32))
    assert np.isfinite(signs.thumbnails).all()


def test_groups_are_connected_components() -> None:
    assert groups_of(6, [(1, 4), (4, 5), (0, 2)]) == [0, 1, 0, 2, 1, 1]
    assert groups_of(3, []) == [0, 1, 2]


@pytest.mark.realdata
@pytest.mark.parametrize(("name", "pairs"), [("polyps/kvasir_seg", 4), ("skin/isic2017", 3), ("skin/ph2", 0)])
def test_real_near_duplicates(real_data: Path, name: str, pairs: int) -> None:
    assert len(near_duplicate_pairs(signatures(read_dataset(real_data / name)))) == pairs


@pytest.mark.realdata
def test_near_duplicates_of_video_frames_stay_in_their_sequence(real_data: Path) -> None:
    data = read_dataset(real_data / "polyps/cvc_clinicdb")
    found = near_duplicate_pairs(signatures(data))
    assert len(found) >= 11
    assert all(data[i].subject == data[j].subject for i, j in found)
