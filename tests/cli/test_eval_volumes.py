"""``morphogen eval masks --volumes``, in process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from morphogen.cli import main
from morphogen.cli.eval import Masks
from morphogen.errors import InputError
from morphogen.metrics.volumes import DISTANCES, OVERLAPS, score_volume
from small_volumes import made_volume, tiny_run, volume_folder, write_h5, write_nifti

AFFINE = np.diag([0.5, 0.5, 3.0, 1.0])
SPACING = (0.5, 0.5, 3.0)


def body(shift: int = 0, label: int = 1) -> np.ndarray:
    volume = np.zeros((16, 14, 12), np.uint8)
    volume[3:9, 4:10, 2 + shift : 7 + shift] = label
    return volume


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Predictions moved by 0 and by 2 slices, and a dataset whose third volume has no label."""
    for shift, name in ((0, "a"), (2, "b")):
        write_nifti(tmp_path / "pred" / f"{name}.nii.gz", body(shift), AFFINE)
        write_nifti(tmp_path / "ref" / "masks" / f"{name}.nii.gz", body(), AFFINE)
    for name in "abc":
        write_nifti(tmp_path / "ref" / "images" / f"{name}.nii.gz", body().astype(np.float32), AFFINE)
    return tmp_path / "pred", tmp_path / "ref"


def run(folders: tuple[Path, Path], **options: Any) -> dict[str, Any]:
    return Masks(pred=folders[0], ref=folders[1], volumes=True, **options).run()


def test_every_class_of_every_volume_in_voxels_and_in_mm(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "result.json"
    assert main(["eval", "masks", *map(str, folders), "--volumes", "--json", str(file)]) == 0
    result = json.loads(file.read_text())
    moved = score_volume(body(2), body(), 2, SPACING).image
    assert result["n"] == 2
    assert result["per_volume"]["b"] == {"lesion": moved}
    assert result["per_volume"]["a"]["lesion"]["hd95_mm"] == 0
    assert (moved["hd95"], moved["hd95_mm"]) == (2, 6)
    assert result["metrics"]["dice"]["mean"] == pytest.approx((1 + moved["dice"]) / 2)
    assert set(result["metrics"]) == {
        *OVERLAPS, *DISTANCES, *(f"{name}_mm" for name in DISTANCES), "dice_pooled", "iou_pooled",
    }  # fmt: skip
    assert result["warnings"] == ["volumes without a label, left out: 1"]
    said = capsys.readouterr().out
    assert said.startswith("2 volumes")
    assert "lesion: both masks empty in 0 volumes, one empty in 0" in said


def test_several_processes_find_the_same(folders: tuple[Path, Path]) -> None:
    assert json.dumps(run(folders, workers=2)) == json.dumps(run(folders, workers=1))


def test_a_folder_of_label_maps_alone(folders: tuple[Path, Path], tmp_path: Path) -> None:
    expected = run(folders)["per_volume"]
    assert run((folders[0], folders[1] / "masks"))["per_volume"] == expected
    (tmp_path / "alone").mkdir()
    (folders[1] / "masks").rename(tmp_path / "alone" / "masks")
    assert run((folders[0], tmp_path / "alone"))["per_volume"] == expected
    assert run((folders[0], tmp_path / "alone"), mask_values="0=0,1=1")["per_volume"] == expected


def test_h5_lists_have_no_mm_unless_they_are_stated(folders: tuple[Path, Path], tmp_path: Path) -> None:
    root = tmp_path / "h5"
    for name in "abd":
        write_h5(root / f"{name}.h5", made_volume(body().shape)[0], body())
    (root / "train.list").write_text("d\n")
    (root / "test.list").write_text("b\na\n")
    result = run((folders[0], root), part="test")
    assert list(result["per_volume"]) == ["a", "b"]
    assert result["per_volume"]["b"]["lesion"] == score_volume(body(2), body()).image
    assert "hd95_mm" not in result["metrics"]
    assert "state no voxel size" in result["warnings"][-1]
    stated = run((folders[0], root), part="test", spacing="0.5,0.5,3")
    assert stated["per_volume"]["b"]["lesion"] == score_volume(body(2), body(), 2, SPACING).image
    assert stated["warnings"] == []
    with pytest.raises(InputError, match=r"d\.h5: has no prediction d\.nii\.gz in .*; predict it, or name the --part"):
        run((folders[0], root))


def test_a_preset_says_what_values_and_voxels_are(folders: tuple[Path, Path], tmp_path: Path) -> None:
    root = tmp_path / "brats"
    for name in "ab":
        write_h5(root / "data" / f"{name}.h5", made_volume(body().shape)[0], body(label=4))
    (root / "train.txt").write_text("a\nb\n")
    result = run((folders[0], root), preset="brats2019")
    assert result["per_volume"]["b"]["whole tumour"] == score_volume(body(2), body(), 2, (1, 1, 1)).image


def test_empty_masks_are_counted(folders: tuple[Path, Path]) -> None:
    pred, ref = folders
    write_nifti(pred / "a.nii.gz", body() * 0, AFFINE)
    write_nifti(ref / "masks" / "b.nii.gz", body(label=2), AFFINE)
    write_nifti(ref / "masks" / "a.nii.gz", body(), AFFINE)
    write_nifti(pred / "b.nii.gz", body(label=2), AFFINE)
    result = run(folders)
    assert result["empty"] == {"class 1": {"both": 1, "one": 1}, "class 2": {"both": 1, "one": 0}}
    assert result["per_volume"]["a"]["class 1"]["hd95_mm"] == pytest.approx(
        np.linalg.norm(np.multiply((16, 14, 12), SPACING))
    )
    assert "class 1: is in references and in no prediction" in result["warnings"][-1]


def test_one_volume_has_no_interval_and_others_are_left_out(folders: tuple[Path, Path]) -> None:
    (folders[1] / "masks" / "b.nii.gz").unlink()
    result = run(folders)
    assert result["metrics"]["dice"]["ci95"] is None
    assert "predictions without a reference, left out: 1" in result["warnings"]
    assert "one volume only: there is no interval" in result["warnings"]


def test_what_predict_writes_can_be_scored(tmp_path: Path) -> None:
    data, trained = volume_folder(tmp_path / "data", affine=AFFINE), tiny_run(tmp_path / "run", "supervised")
    assert main(["predict", str(trained), str(data), "--out", str(tmp_path / "out")]) == 0
    result = run((tmp_path / "out", data))
    assert list(result["per_volume"]) == ["a", "b"]
    made = np.asarray(nibabel.load(tmp_path / "out" / "a.nii.gz").dataobj)
    assert result["per_volume"]["a"]["lesion"] == score_volume(made, made_volume()[1], 2, SPACING).image


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda pred, ref: (pred / "b.nii.gz").unlink(), r"masks/b\.nii\.gz: has no prediction b\.nii\.gz in .*pred;"),
        (lambda pred, ref: write_nifti(pred / "b.nii", body()), r"b\.nii\.gz: shares its stem with b\.nii;"),
        (lambda pred, ref: pred.rename(pred.with_name("gone")), r"pred: is not a folder"),
        (
            lambda pred, ref: write_nifti(pred / "b.nii.gz", body()[1:], AFFINE),
            r"b\.nii\.gz: is 15 x 14 x 12 voxels, its",
        ),
        (
            lambda pred, ref: write_nifti(pred / "b.nii.gz", body()),
            r"b\.nii\.gz: its voxels are 1 x 1 x 1 mm, those of",
        ),
        (lambda pred, ref: (pred / "b.nii.gz").write_bytes(b"text"), r"b\.nii\.gz: is not a readable NIfTI file"),
        (lambda pred, ref: write_nifti(pred / "b.nii.gz", body(label=90), AFFINE), r"pred/[ab]\.nii\.gz: holds .*90"),
        (lambda pred, ref: [f.unlink() for f in (ref / "images").iterdir()], r"ref: holds no volumes"),
    ],
)
def test_bad_folders(folders: tuple[Path, Path], spoil: Callable[[Path, Path], Any], message: str) -> None:
    spoil(*folders)
    with pytest.raises(InputError, match=message) as caught:
        run(folders)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probabilities": True}, r"^--probabilities: is not of --volumes"),
        ({"metrics": ("dice",)}, r"^--metrics: is not of --volumes"),
        ({"tolerance": 1.0}, r"^--tolerance: is not of --volumes"),
        ({"part": "test"}, r"has no test part; leave --part out"),
        ({"preset": "nothing"}, r"^preset nothing: "),
        ({"spacing": "1,2"}, r"^--spacing: has 2 numbers, .* has 3 axes"),
    ],
)
def test_wrong_options(folders: tuple[Path, Path], options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(folders, **options)


def test_options_of_volumes_alone(folders: tuple[Path, Path]) -> None:
    for options in ({"part": "test"}, {"preset": "la2018"}):
        with pytest.raises(InputError, match=r"^--(part|preset): is of --volumes; give that too, or leave it out$"):
            Masks(pred=folders[0], ref=folders[1], **options).run()  # type: ignore[arg-type]
