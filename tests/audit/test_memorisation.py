"""Planted copies are found, whatever was done to them; new images are flagged no more often than held-out ones."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from morphogen.audit import memorisation as memorisation_
from morphogen.audit.memorisation import HELD_OUT, OTHER_SUBJECTS, Reference, memorisation
from morphogen.audit.nearest import ImageSet, image_set
from morphogen.data.phantoms import phantom
from morphogen.errors import InputError


def pictures(seeds: range, size: int = 48) -> list[np.ndarray]:
    return [phantom("mucosa", seed, size)[0] for seed in seeds]


def names(prefix: str, n: int) -> list[str]:
    return [f"{prefix}{i:02d}" for i in range(n)]


def recode(image: np.ndarray) -> np.ndarray:
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=60)
    return np.asarray(Image.open(buffer))


def shift(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """Moved, the border repeated."""
    padded = np.pad(image, ((3, 3), (3, 3), (0, 0)), mode="edge")
    return padded[3 - down : 3 - down + len(image), 3 - right : 3 - right + image.shape[1]]


def noisy(image: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 12, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


COPIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "exact": lambda image: image,
    "mirrored": lambda image: image[:, ::-1],
    "turned": lambda image: image[::-1, ::-1],
    "shifted": lambda image: shift(image, 3, -2),
    "shifted and mirrored": lambda image: shift(image[::-1], -2, 3),
    "recoded": recode,
    "noisy": noisy,
    "brightened": lambda image: np.clip(image * 0.8 + 20, 0, 255).astype(np.uint8),
}


@pytest.fixture(scope="module")
def real() -> ImageSet:
    return image_set(names("r", 40), pictures(range(40)))


@pytest.mark.parametrize("kind", COPIES)
def test_copies_are_found(real: ImageSet, kind: str) -> None:
    originals = pictures(range(40))
    result = memorisation(image_set(names("s", 5), [COPIES[kind](originals[i]) for i in (3, 8, 15, 21, 38)]), real)
    found = {pair["id"]: pair["nearest"] for pair in result["pairs"] if pair["flagged"]}
    assert found == {"s00": "r03", "s01": "r08", "s02": "r15", "s03": "r21", "s04": "r38"}
    assert (result["flagged"], result["rate"], result["n"], result["n_real"]) == (5, 1.0, 5, 40)


@pytest.mark.parametrize(("bits", "twin"), [(10, True), (11, False)])
def test_a_near_duplicate_correlates_and_has_nearly_the_same_hash(
    real: ImageSet, bits: int, twin: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memorisation_, "hash_distances", lambda found, images, _: np.full(len(images), bits))
    found = Reference(real).judge(image_set(["s"], [recode(pictures(range(1))[0])]))
    assert 0 < found.nearest["pixel"].distance[0] < 0.01
    assert (found.nearness[0] == 0) == twin


def test_new_images_are_flagged_no_more_often_than_held_out_ones() -> None:
    """About one in a hundred is flagged where synthetic and real images come from one distribution."""
    real = image_set(names("r", 200), pictures(range(200), 32))
    synthetic, held_out = (
        image_set(names(p, 100), pictures(range(at, at + 100), 32)) for p, at in (("s", 1000), ("h", 2000))
    )
    result = memorisation(synthetic, real, held_out)
    assert result["flagged"] <= 5
    assert result["control"]["of"] == HELD_OUT
    assert result["control"]["n"] == 100
    assert result["control"]["rate"] == result["rate_of_real"] <= 0.05
    low, high = result["excess"]["ci95"]
    assert low < 0 < high
    assert 0.35 < result["distances"]["pixel"]["nearer"] < 0.65
    closeness = [pair["nearness"] for pair in result["pairs"]]
    assert closeness == sorted(closeness)


def test_copies_among_new_images_show_against_the_held_out_ones(real: ImageSet) -> None:
    synthetic = image_set(names("s", 30), [*pictures(range(15)), *pictures(range(500, 515))])
    result = memorisation(synthetic, real, image_set(names("h", 30), pictures(range(600, 630))))
    assert result["excess"]["ci95"][0] > 0.1
    assert result["distances"]["pixel"]["nearer"] > 0.7
    assert result["distances"]["pixel"]["synthetic"][0] < result["distances"]["pixel"]["control"][0]


def test_nearer_is_the_share_of_pairs(real: ImageSet) -> None:
    synthetic, held_out = (image_set(names("s", 7), pictures(range(at, at + 7))) for at in (700, 800))
    found = memorisation(synthetic, real, held_out)["distances"]["pixel"]["nearer"]
    reference = Reference(real)
    ours, theirs = (reference.judge(some).nearest["pixel"].distance for some in (synthetic, held_out))
    assert found == pytest.approx(np.mean([[a < b for b in theirs] for a in ours]))


def test_held_out_images_of_known_subjects_are_left_out() -> None:
    frames = [f for image in pictures(range(12)) for f in (image, np.roll(image, 1, axis=1))]
    ids, subjects = names("r", 24), [f"case {i // 2}" for i in range(24)]
    train = image_set(ids[:20], frames[:20], subjects[:20])
    held_out = image_set(ids[19:], frames[19:], subjects[19:])
    result = memorisation(image_set(["s"], pictures(range(99, 100))), train, held_out)
    assert (result["control"]["n"], result["control"]["left_out"]) == (4, 1)
    none_left = memorisation(image_set(["s"], pictures(range(99, 100))), train, train)
    assert (none_left["control"]["of"], none_left["control"]["left_out"]) == (OTHER_SUBJECTS, 20)


def test_the_threshold_is_a_percentile_of_the_training_images_alone(real: ImageSet) -> None:
    synthetic = image_set(["s"], pictures(range(900, 901)))
    with_held_out = memorisation(synthetic, real, image_set(names("h", 40), pictures(range(40))))
    alone = memorisation(synthetic, real)
    assert with_held_out["threshold"] == alone["threshold"]
    assert with_held_out["control"]["rate"] == 1.0
    between = Reference(real).between.nearest["pixel"].distance
    assert alone["threshold"]["pixel"] == pytest.approx(np.percentile(between, 1))


def test_frames_of_one_subject_set_no_threshold() -> None:
    """Two nearly equal frames of every subject: were they taken for two subjects, only exact copies would be found."""
    frames = [frame for image in pictures(range(20)) for frame in (image, np.roll(image, 1, axis=1))]
    subjects = [f"case {i // 2}" for i in range(40)]
    thumbnails = image_set(names("r", 40), frames).thumbnails
    known = Reference(ImageSet(names("r", 40), thumbnails, None, subjects))
    naive = Reference(ImageSet(names("r", 40), thumbnails, None, names("r", 40)))
    assert known.threshold["pixel"] > 3 * naive.threshold["pixel"]


def test_features_are_a_second_distance(real: ImageSet) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 16))
    with_features = ImageSet(real.ids, real.thumbnails, features)
    new = image_set(names("s", 2), pictures(range(300, 302)))
    synthetic = ImageSet(new.ids, new.thumbnails, np.stack([2.5 * features[8], rng.normal(size=16)]))
    result = memorisation(synthetic, with_features)
    first = result["pairs"][0]
    assert (first["id"], first["nearest"], first["by"], first["flagged"]) == ("s00", "r08", "inception", True)
    assert first["distances"]["inception"] == pytest.approx(0, abs=1e-12)
    assert set(result["distances"]) == set(result["threshold"]) == {"pixel", "inception"}


def test_flat_images_and_too_few_real_ones() -> None:
    flat = [np.full((32, 32, 3), value, np.uint8) for value in (10, 200)]
    few = image_set(names("r", 3), pictures(range(3)))
    assert memorisation(image_set(names("s", 2), flat), few)["flagged"] == 0
    one = pictures(range(1))[0]
    for images in ([one, one], [one], []):
        with pytest.raises(InputError, match="give at least 2"):
            memorisation(image_set(["s"], flat[:1]), image_set(names("r", len(images)), images))
