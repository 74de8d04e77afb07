"""The verb eval masks, on small folders."""

import json
import os
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from morphogen.cli import main
from morphogen.cli.eval import Masks
from morphogen.errors import InputError
from morphogen.metrics.masks import ALL_METRICS, POOLED


def write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array.astype(np.uint8)).save(path)


def square(top: int, value: int = 255, size: int = 20) -> np.ndarray:
    mask = np.zeros((size, size + 4), np.uint8)
    mask[top : top + 8, 4:12] = value
    return mask


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for name, top in (("a", 3), ("b", 5)):
        write(tmp_path / "pred" / f"{name}.png", square(3))
        write(tmp_path / "ref" / "masks" / f"{name}.png", square(top))
    return tmp_path / "pred", tmp_path / "ref"


def test_masks_result(folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "result.json"
    assert main(["eval", "masks", *map(str, folders), "--json", str(file)]) == 0
    result = json.loads(file.read_text())
    assert result["n"] == 2
    assert set(result["metrics"]) == {*ALL_METRICS, *POOLED.values()}
    dice = result["metrics"]["dice"]
    assert dice["per_image"] == {"a": 1.0, "b": pytest.approx(2 * 48 / 128)}
    assert dice["mean"] == pytest.approx((1 + 0.75) / 2)
    assert dice["per_class"] == {"lesion": dice["mean"]}
    assert dice["ci95"][0] <= dice["mean"] <= dice["ci95"][1]
    assert result["metrics"]["hd95"]["per_image"]["b"] == 2
    assert "px" in result["protocol"]
    assert "0.8750" in capsys.readouterr().out


def test_label_ids_against_grey_values(folders: tuple[Path, Path]) -> None:
    pred, ref = folders
    for name in ("a", "b"):
        write(pred / f"{name}.png", square(3, 1))
    assert Masks(pred=pred, ref=ref).run()["metrics"]["dice"]["per_image"]["a"] == 1


def test_a_class_that_is_never_predicted(folders: tuple[Path, Path]) -> None:
    pred, ref = folders
    both = square(3, 1)
    both[14:, :] = 2
    write(ref / "masks" / "b.png", both)
    write(ref / "masks" / "a.png", square(3, 2))
    for name in ("a", "b"):
        write(pred / f"{name}.png", square(3, 2))
    result = Masks(pred=pred, ref=ref).run()
    assert result["metrics"]["dice"]["per_class"] == {"class 1": 0.5, "class 2": 0.5}
    assert result["empty"] == {"class 1": {"both": 1, "one": 1}, "class 2": {"both": 0, "one": 0}}


def test_stated_values(folders: tuple[Path, Path]) -> None:
    pred, ref = folders
    for name in ("a", "b"):
        write(ref / "masks" / f"{name}.png", square(3, 7))
    with pytest.raises(InputError, match="--mask-values"):
        Masks(pred=pred, ref=ref).run()
    result = Masks(pred=pred, ref=ref, mask_values="0=0,7=1").run()
    assert result["metrics"]["iou"]["mean"] == 1


def test_volumes_are_measured_in_mm(tmp_path: Path) -> None:
    for folder, shift in (("pred", 0), ("ref", 2)):
        volume = np.zeros((12, 10, 8), np.uint8)
        volume[2 + shift : 6 + shift, 3:7, 2:6] = 1
        (tmp_path / folder).mkdir()
        nibabel.save(nibabel.Nifti1Image(volume, np.diag([1.5, 1, 1, 1])), tmp_path / folder / "case.nii.gz")
    result = Masks(pred=tmp_path / "pred", ref=tmp_path / "ref").run()
    assert result["unit"] == "mm"
    assert result["metrics"]["dice"]["per_image"] == {"case": 0.5}
    assert result["metrics"]["hd95"]["mean"] == 3
    assert result["metrics"]["dice"]["ci95"] is None


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda pred, ref: (pred / "b.png").unlink(), r"masks/b\.png: has no prediction in"),
        (lambda pred, ref: (ref / "masks" / "b.png").unlink(), r"pred/b\.png: has no reference in"),
        (lambda pred, ref: write(pred / "b.png", square(3, size=30)), r"b\.png: is 34 x 30 px, .* is 24 x 20 px"),
        (lambda pred, ref: (pred / "b.png").write_text("text"), r"b\.png: is not a PNG"),
        (lambda pred, ref: write(pred / "b.png", square(3, 90)), r"pred/.\.png: holds .*90"),
        (lambda pred, ref: write(pred / "b.bmp", square(3)), r"b\.png: shares its stem with b\.bmp"),
        (lambda pred, ref: [file.unlink() for file in pred.iterdir()], r"pred: holds no masks"),
        (lambda pred, ref: pred.rename(pred.with_name("gone")), r"pred: is not a folder"),
    ],
)
def test_bad_folders(folders: tuple[Path, Path], spoil: object, message: str) -> None:
    spoil(*folders)  # type: ignore[operator]
    with pytest.raises(InputError, match=message) as caught:
        Masks(pred=folders[0], ref=folders[1]).run()
    assert "\n" not in str(caught.value)


@pytest.mark.realdata
def test_real_masks_against_themselves() -> None:
    root = os.environ.get("MORPHOGEN_DATA")
    if not root:
        pytest.skip("MORPHOGEN_DATA is not set")
    masks = Path(root) / "skin" / "ph2"
    result = Masks(pred=masks, ref=masks).run()
    assert result["n"] == 200
    assert result["metrics"]["dice"]["mean"] == 1
    assert result["metrics"]["hd95"]["mean"] == 0
