"""A test image that the model has seen is found by its id or by its looks."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from morphogen.audit.leakage import find_overlaps, refuse_overlaps
from morphogen.data.duplicates import signatures
from morphogen.data.phantoms import phantom
from morphogen.data.readers import read_dataset
from morphogen.data.records import Dataset
from morphogen.errors import InputError


def folder(root: Path, seeds: range, size: int = 96, suffix: str = "png") -> Dataset:
    root.mkdir()
    for seed in seeds:
        Image.fromarray(phantom("skin", seed, size)[0]).save(root / f"{root.name}{seed}.{suffix}", quality=80)
    return read_dataset(root)


@pytest.fixture
def card(tmp_path: Path) -> dict[str, object]:
    seen = folder(tmp_path / "seen", range(20))
    return {"sets": {"seen": {"training_ids": list(seen.ids), "phashes": signatures(seen).hashes}}, "steps": 3}


def test_new_images_pass(tmp_path: Path, card: dict[str, object]) -> None:
    new = folder(tmp_path / "new", range(100, 130))
    assert find_overlaps(new, card) == []
    refuse_overlaps(new, card, "tiny")
    assert find_overlaps(new, {}) == []


def test_copies_under_other_names_and_encodings(tmp_path: Path, card: dict[str, object]) -> None:
    copies = folder(tmp_path / "copies", range(18, 23), suffix="jpg")
    overlaps = find_overlaps(copies, card)
    assert [(o.id, o.set, o.by) for o in overlaps] == [("copies18", "seen", "hash"), ("copies19", "seen", "hash")]
    pattern = rf"^{copies.root}: 2 of 5 test images .* tiny \(copies18 by its hash in seen\); test on others"
    with pytest.raises(InputError, match=pattern):
        refuse_overlaps(copies, card, "tiny")


def test_ids_count_within_sets_of_one_name(tmp_path: Path) -> None:
    new = folder(tmp_path / "new", range(3))
    listed = {"training_ids": ["new1"], "phashes": []}
    assert find_overlaps(new, {"sets": {"old": listed}}) == []
    assert [o.id for o in find_overlaps(new, {"sets": {"new": listed}})] == ["new1"]


def test_the_limit_is_two_bits(tmp_path: Path) -> None:
    new = folder(tmp_path / "new", range(1))
    bits = signatures(new).bits[0]
    for flipped, expected in ((0, 1), (2, 1), (3, 0)):
        changed = bits.copy()
        changed[5 : 5 + flipped] ^= True
        listed = {"phashes": [np.packbits(changed).tobytes().hex()]}
        assert len(find_overlaps(new, {"sets": {"old": listed}})) == expected
