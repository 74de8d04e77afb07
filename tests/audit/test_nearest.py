"""The search for the nearest image is the literal statement of its distances."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from morphogen.audit import nearest
from morphogen.audit.nearest import ImageSet, hash_distances, image_set, neighbours
from morphogen.data.phantoms import phantom
from morphogen.errors import InputError


def pictures(seeds: range, size: int = 48) -> list[np.ndarray]:
    return [phantom("mucosa", seed, size)[0] for seed in seeds]


def names(prefix: str, n: int) -> list[str]:
    return [f"{prefix}{i:02d}" for i in range(n)]


@pytest.fixture(scope="module")
def real() -> ImageSet:
    return image_set(names("r", 24), pictures(range(24)))


def literal(thumbnail: np.ndarray, other: np.ndarray) -> float:
    """1 - the largest correlation over mirror images and shifts, one np.corrcoef each."""
    turned = [thumbnail, thumbnail[::-1], thumbnail[:, ::-1], thumbnail[::-1, ::-1]]
    windows = [other[y : y + 28, x : x + 28] for y in range(5) for x in range(5)]
    return 1 - max(np.corrcoef(t[2:30, 2:30].ravel(), w.ravel())[0, 1] for t in turned for w in windows)


def test_distances_match_the_literal_statement(real: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "_BLOCK", 3)
    images = image_set(names("s", 5), pictures(range(200, 205)))
    table = np.array([[literal(a, b) for b in real.thumbnails] for a in images.thumbnails])
    found = neighbours(images, real)["pixel"]
    assert found.index.tolist() == table.argmin(axis=1).tolist()
    np.testing.assert_allclose(found.distance, table.min(axis=1), atol=1e-6)


def test_only_other_groups_count(real: ImageSet) -> None:
    some = real.select(range(9))
    groups = np.arange(9) // 3
    table = np.array([[literal(a, b) for b in some.thumbnails] for a in some.thumbnails])
    table[groups[:, None] == groups[None]] = np.inf
    found = neighbours(some, some, groups)["pixel"]
    assert found.index.tolist() == table.argmin(axis=1).tolist()
    np.testing.assert_allclose(found.distance, table.min(axis=1), atol=1e-6)


def test_features_are_a_distance_of_their_own(real: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "_BLOCK", 4)
    rng = np.random.default_rng(0)
    theirs, ours = rng.normal(size=(24, 16)), rng.normal(size=(6, 16))
    images = image_set(names("s", 6), pictures(range(6)))
    found = neighbours(
        ImageSet(images.ids, images.thumbnails, ours, None, "lite0"),
        ImageSet(real.ids, real.thumbnails, theirs, None, "lite0"),
    )
    cosines = ours @ theirs.T / np.outer(np.linalg.norm(ours, axis=1), np.linalg.norm(theirs, axis=1))
    assert set(found) == {"pixel", "lite0"}
    assert found["lite0"].index.tolist() == cosines.argmax(axis=1).tolist()
    np.testing.assert_allclose(found["lite0"].distance, 1 - cosines.max(axis=1), atol=1e-12)


def test_hashes_are_compared_as_the_images_lie(real: ImageSet) -> None:
    turned = [np.roll(image[:, ::-1], (2, -3), axis=(0, 1)) for image in pictures(range(6))]
    images = image_set(names("s", 6), turned)
    found = neighbours(images, real)["pixel"]
    assert found.index.tolist() == list(range(6))
    assert (hash_distances(found, images, real) <= 10).all()
    other = nearest.Neighbours((found.index + 1) % 6, found.distance, found.mirror, found.shift)
    assert (hash_distances(other, images, real) > 10).any()


def test_flat_images_resemble_nothing(real: ImageSet) -> None:
    flat = image_set(names("s", 2), [np.full((32, 32, 3), value, np.uint8) for value in (10, 200)])
    assert neighbours(flat, real)["pixel"].distance.tolist() == [1.0, 1.0]


def test_an_empty_set_is_a_set(real: ImageSet) -> None:
    empty = image_set([], [])
    assert len(neighbours(empty, real)["pixel"].index) == 0
    assert len(hash_distances(neighbours(empty, real)["pixel"], empty, real)) == 0


def test_images_pass_one_by_one_and_an_unknown_extractor_is_refused() -> None:
    seen = []
    image_set(names("s", 3), (seen.append(i) or image for i, image in enumerate(pictures(range(3)))))
    assert seen == [0, 1, 2]
    with pytest.raises(InputError, match="is not an extractor"):
        image_set(["s"], pictures(range(1)), extractor="vgg99")


@pytest.mark.realdata
def test_real_frames_shifted_and_mirrored_are_found_again(real_data: Path) -> None:
    from morphogen.data.readers import read_dataset
    from morphogen.metrics.pictures import picture

    records = read_dataset(real_data / "polyps" / "cvc_clinicdb").records[::40]
    frames = [picture(record, (96, 96)) for record in records]
    turned = [np.pad(f[:, ::-1], ((5, 0), (0, 4), (0, 0)), mode="edge")[:96, 4:] for f in frames]
    found = neighbours(image_set(names("s", len(frames)), turned), image_set(names("r", len(frames)), frames))["pixel"]
    assert found.index.tolist() == list(range(len(frames)))
    assert found.distance.max() < 0.05
