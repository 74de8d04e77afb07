"""`check` finds every fault at once and describes what it reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from morphogen.data.check import CheckReport, check_dataset
from morphogen.errors import InputError

RNG = np.random.default_rng(4)


def picture(seed: int) -> Image.Image:
    field = gaussian_filter(np.random.default_rng(seed).normal(size=(48, 64, 3)), (5, 5, 0))
    return Image.fromarray(((field - field.min()) / np.ptp(field) * 255).astype(np.uint8))


def folder(root: Path, n: int = 12) -> Path:
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for i in range(n):
        picture(i).save(root / "images" / f"{i:02d}.png")
        mask = np.zeros((48, 64), np.uint8)
        mask[4:12, 8:24] = mask[30:34, 40:44] = 255
        Image.fromarray(mask).save(root / "masks" / f"{i:02d}.png")
    return root


def line_of(report: CheckReport, name: str) -> str:
    return next(str(f) for f in report.faults if f.file.name == name)


def test_a_clean_folder(tmp_path: Path) -> None:
    report = check_dataset(folder(tmp_path))
    assert report.faults == []
    assert (report.n, report.image_sizes, report.classes) == (12, {"64x48": 12}, ("background", "lesion"))
    area = report.fingerprint["class_areas"]["lesion"]
    assert area["n_images"] == 12
    assert area["mean"] == pytest.approx((8 * 16 + 16) / (48 * 64))
    assert report.fingerprint["components"]["lesion"]["mean"] == 2
    pixels = np.concatenate([np.array(picture(i))[..., 1].ravel() for i in range(12)])
    assert report.fingerprint["intensities"]["1"]["p50"] == pytest.approx(np.median(pixels))
    assert report.fingerprint["intensities"]["1"]["mean"] == pytest.approx(pixels.mean())
    assert list(report.to_json()) == ["n", "image_sizes", "classes", "faults", "fingerprint"]


def test_every_fault_is_collected(tmp_path: Path) -> None:
    root = folder(tmp_path / "set")
    images, masks = root / "images", root / "masks"
    (images / "00.png").write_text("text")
    whole = (images / "01.png").read_bytes()
    (images / "01.png").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(np.zeros((48, 65), np.uint8)).save(masks / "02.png")
    (masks / "03.png").unlink()
    odd = np.array(Image.open(masks / "04.png"))
    odd[0, 0] = 7
    Image.fromarray(odd).save(masks / "04.png")
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(masks / "05.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(6).save(images / "06.png", exif=exif)
    picture(7).resize((60, 44)).resize((64, 48)).save(images / "08.png")
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(masks / "99.png")
    rows = [f"{i:02d},{'test' if i == 8 else 'train'},s{9 if i in (8, 9) else i}" for i in range(12)]
    (root / "records.csv").write_text("\n".join(["id,split,subject", *rows, "77,train,x"]))
    report = check_dataset(root)
    fatal = {f.file.name for f in report.fatal}
    assert fatal == {"00.png", "01.png", "02.png", "03.png", "04.png", "records.csv"}
    assert report.faults[: len(report.fatal)] == report.fatal
    texts = [str(f) for f in report.faults]
    for part in (
        "00.png: is not a PNG",
        "01.png: cannot be decoded",
        "masks/02.png: is 65 x 48 pixels, its image 64 x 48",
        "images/03.png: has no mask",
        "masks/04.png: holds the values 0, 7, 255",
        "masks/05.png: is empty",
        "06.png: carries the EXIF orientation 6",
        "07.png: (train) is a near-duplicate of 08 (test)",
        "masks/99.png: has no image of that stem",
        "names the unknown id '77'",
        "parts 1 subjects, s9 among them",
    ):
        assert any(part in text for text in texts), part
    assert sum("04.png" in text for text in texts) == 1
    assert report.n == 9


def test_notes_do_not_stop_a_study(tmp_path: Path) -> None:
    root = folder(tmp_path)
    picture(0).save(root / "images" / "01.png")
    report = check_dataset(root)
    assert report.fatal == []
    assert "holds 1 pairs of near-duplicates, 00 and 01 among them" in str(report.faults[0])


def test_masks_without_any_foreground_are_fatal(tmp_path: Path) -> None:
    root = folder(tmp_path, 3)
    for mask in (root / "masks").iterdir():
        Image.fromarray(np.zeros((48, 64), np.uint8)).save(mask)
    assert any("has no foreground in any mask" in str(f) for f in check_dataset(root).fatal)


def test_stated_rule_and_volumes(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    volume = RNG.normal(size=(8, 9, 4)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "images" / "v.nii.gz")
    nibabel.save(nibabel.Nifti1Image((volume > 1).astype(np.uint8) * 3, np.eye(4)), tmp_path / "masks" / "v.nii.gz")
    assert "holds the values 0, 3" in line_of(check_dataset(tmp_path), "v.nii.gz")
    report = check_dataset(tmp_path, {0: 0, 3: 1})
    assert report.faults == []
    assert (report.n, report.image_sizes) == (4, {"9x8": 4})


def test_a_missing_folder_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        check_dataset(tmp_path / "none")
