"""What is drawn, and that pictures differ in nothing but what they show."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from morphogen.data.phantoms import phantom_dataset
from morphogen.errors import InputError
from morphogen.rating.draw import REAL, SYNTHETIC, draw

Folders = tuple[Path, Path]


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def test_balanced_and_seeded(folders: Folders) -> None:
    first, same, other = (draw(*folders, n=5, repeats=2, seed=seed) for seed in (0, 0, 1))
    assert first == same
    assert first.study == same.study != other.study
    assert [sum(p.origin == o for p in first.pictures) for o in (SYNTHETIC, REAL)] == [5, 5]
    assert {p.record for p in first.pictures} != {p.record for p in other.pictures}
    assert len(first.repeats) == 2
    assert set(first.repeats.values()) <= {p.id for p in first.pictures}
    assert not set(first.repeats) & {p.id for p in first.pictures}


def test_all_pictures_have_one_form(folders: Folders) -> None:
    headers = set()
    for picture in draw(*folders, n=8, repeats=0, seed=0).pictures:
        image = Image.open(io.BytesIO(picture.png))
        image.load()
        headers.add((image.format, image.size, image.mode, tuple(image.info)))
        chunks = [picture.png[i : i + 4] for i in range(len(picture.png)) if picture.png[i : i + 4].isalpha()]
        assert chunks[0] == b"IHDR"
    assert headers == {("PNG", (32, 32), "RGB", ())}


def test_pixels_are_those_of_the_files(folders: Folders) -> None:
    for picture in draw(*folders, n=8, repeats=0, seed=0).pictures:
        image = Image.open(picture.file).convert("RGB")
        if picture.origin == REAL:
            assert picture.native == (48, 48)
            image = image.resize((32, 32), Image.Resampling.LANCZOS)
        np.testing.assert_array_equal(pixels(picture.png), np.asarray(image))


def test_metadata_and_compression_do_not_pass(folders: Folders, tmp_path: Path) -> None:
    for folder, kind in zip(folders, ("syn", "real"), strict=True):
        (tmp_path / kind).mkdir()
        for path in sorted((folder / "images").iterdir()):
            image = Image.open(path)
            exif = Image.Exif()
            exif[0x010E] = f"secret {kind}"
            image.save(tmp_path / kind / f"{path.stem}.jpg", exif=exif, comment=f"secret {kind}", dpi=(72, 72))
    for picture in draw(tmp_path / "syn", tmp_path / "real", n=4, repeats=0, seed=0).pictures:
        assert b"secret" not in picture.png
        assert not Image.open(io.BytesIO(picture.png)).info


def test_ids_follow_from_what_is_shown_alone(folders: Folders) -> None:
    """With real and synthetic exchanged the same pictures get the same names, in the same order."""
    real = folders[0]
    same_size = folders[0].parent / "same"
    if not same_size.exists():
        phantom_dataset(same_size, "skin", 8, 32, subjects=4, seed=3)
    one, two = draw(real, same_size, n=8, repeats=0, seed=0), draw(same_size, real, n=8, repeats=0, seed=0)
    assert [(p.id, p.png) for p in one.pictures] == [(p.id, p.png) for p in two.pictures]
    assert [p.origin for p in one.pictures] != [p.origin for p in two.pictures]


def test_the_most_frequent_synthetic_size_is_the_size_of_all(folders: Folders, tmp_path: Path) -> None:
    shutil.copytree(folders[0] / "images", tmp_path / "syn")
    odd = min((tmp_path / "syn").iterdir())
    Image.new("RGB", (60, 32), "red").save(odd)
    drawing = draw(tmp_path / "syn", folders[1], n=8, repeats=0, seed=0)
    assert drawing.size == (32, 32)
    assert {pixels(p.png).shape for p in drawing.pictures} == {(32, 32, 3)}
    assert any("1 synthetic pictures had another aspect" in note for note in drawing.notes)


def test_fewer_images_than_asked_for_are_stated(folders: Folders) -> None:
    drawing = draw(*folders, n=50, repeats=0, seed=0)
    assert len(drawing.pictures) == 16
    assert drawing.notes[0] == "50 images of each kind were asked for, 8 are there of both"


def test_enlarged_pictures_are_stated(folders: Folders) -> None:
    notes = draw(folders[1], folders[0], n=4, repeats=0, seed=0).notes
    assert any("4 real pictures were enlarged to 48 x 48" in note for note in notes)


def test_exact_copies_are_stated_and_have_two_names(folders: Folders, tmp_path: Path) -> None:
    shutil.copytree(folders[0] / "images", tmp_path / "copy")
    drawing = draw(folders[0], tmp_path / "copy", n=8, repeats=0, seed=0)
    assert len({p.id for p in drawing.pictures}) == 16
    assert any("8 synthetic pictures equal a real one" in note for note in drawing.notes)


@pytest.mark.parametrize(("n", "repeats", "word"), [(0, 0, "--n"), (4, 9, "--repeats"), (4, -1, "--repeats")])
def test_numbers_out_of_range(folders: Folders, n: int, repeats: int, word: str) -> None:
    with pytest.raises(InputError, match=word):
        draw(*folders, n=n, repeats=repeats, seed=0)


def test_one_folder_for_both(folders: Folders) -> None:
    with pytest.raises(InputError, match="synthetic images too"):
        draw(folders[0], folders[0], n=4, repeats=0, seed=0)
