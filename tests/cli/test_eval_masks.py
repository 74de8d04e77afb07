"""``morphogen eval masks``: choice of metrics, probability maps, volumes, several processes, and everything bad that
folders can hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from morphogen.cli import main
from morphogen.cli.eval import Masks
from morphogen.errors import InputError
from morphogen.metrics.masks import score_masks
from morphogen.metrics.thresholds import score_map


def write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def disc(shift: int = 0, value: int = 255) -> np.ndarray:
    y, x = np.mgrid[:30, :40]
    return np.where((y - 15) ** 2 + (x - 18 - shift) ** 2 < 64, value, 0).astype(np.uint8)


def soft(shift: int = 0) -> np.ndarray:
    """A probability map of many grey values."""
    y, x = np.mgrid[:30, :40]
    return (255 / (1 + np.exp(0.5 * (np.hypot(y - 15, x - 18 - shift) - 8)))).astype(np.uint8)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Three pairs of discs, the predictions moved by 0, 1 and 2 px."""
    for k in range(3):
        write(tmp_path / "pred" / f"{k}.png", disc(k))
        write(tmp_path / "ref" / f"{k}.png", disc())
    return tmp_path / "pred", tmp_path / "ref"


@pytest.fixture
def volumes(tmp_path: Path) -> tuple[Path, Path]:
    for name, shift in (("pred", 1), ("ref", 0)):
        (tmp_path / name).mkdir()
        save(tmp_path / name / "case.nii.gz", box(shift))
    return tmp_path / "pred", tmp_path / "ref"


def box(shift: int) -> np.ndarray:
    volume = np.zeros((12, 10, 8), np.uint8)
    volume[3 + shift : 7 + shift, 3:7, 2:6] = 1
    return volume


def save(path: Path, volume: np.ndarray, affine: np.ndarray | None = None, unit: str = "mm") -> None:
    image = nibabel.Nifti1Image(volume, np.diag([1.5, 1, 2, 1]) if affine is None else affine)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, path)


def run(folders: tuple[Path, Path], **options: Any) -> dict[str, Any]:
    return Masks(pred=folders[0], ref=folders[1], **options).run()


def test_every_metric_is_the_one_of_the_library(folders: tuple[Path, Path]) -> None:
    result = run(folders, tolerance=1.0)
    assert result["warnings"] == []
    names = [name for name, metric in result["metrics"].items() if "per_image" in metric]
    for k in range(3):
        expected = score_masks(disc(k) // 255, disc() // 255, 2, None, names, 1.0).image
        assert {name: result["metrics"][name]["per_image"][str(k)] for name in names} == expected
    pooled = score_masks(np.concatenate([disc(k) for k in range(3)]) // 255, np.concatenate([disc()] * 3) // 255)
    for name in ("dice", "iou"):
        metric = result["metrics"][f"{name}_pooled"]
        assert metric == {"mean": pooled.image[name], "per_class": {"lesion": pooled.image[name]}}


def test_a_choice_of_metrics(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    note = tmp_path / "note.json"
    words = ["eval", "masks", *map(str, folders), "--metrics", "hd", "dice", "--json", str(note)]
    assert main(words) == 0
    result = json.loads(note.read_text())
    assert list(result["metrics"]) == ["dice", "hd", "dice_pooled"]
    assert "hd = largest" in result["protocol"]
    assert "hd95" not in result["protocol"]
    assert "hd " in capsys.readouterr().out


def test_several_processes_find_the_same(folders: tuple[Path, Path]) -> None:
    assert json.dumps(run(folders, workers=2)) == json.dumps(run(folders, workers=1))


def test_a_fault_that_a_process_finds_is_one_line(folders: tuple[Path, Path]) -> None:
    write(folders[0] / "1.png", disc()[:-1])
    with pytest.raises(InputError, match=r"1\.png: is 40 x 29 px, its reference .*1\.png is 40 x 30 px"):
        run(folders, workers=2)


def test_spacing_turns_pixels_into_millimetres(folders: tuple[Path, Path]) -> None:
    in_px, in_mm = run(folders), run(folders, spacing="0.5")
    assert (in_px["unit"], in_mm["unit"]) == ("px", "mm")
    assert in_mm["metrics"]["hd"]["mean"] == in_px["metrics"]["hd"]["mean"] / 2
    assert in_mm["metrics"]["hd"]["mean"] == run(folders, spacing="3,0.5")["metrics"]["hd"]["mean"]
    assert run(folders, spacing="px")["metrics"] == in_px["metrics"]


class TestProbabilities:
    def test_result(self, folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for k in range(3):
            write(folders[0] / f"{k}.png", soft(k))
        note = tmp_path / "note.json"
        assert main(["eval", "masks", *map(str, folders), "--probabilities", "--json", str(note)]) == 0
        result = json.loads(note.read_text())
        metrics = result["metrics"]
        scores = [score_map(soft(k), disc() > 0) for k in range(3)]
        curve = np.mean([score.curves["dice"] for score in scores], axis=0)
        assert metrics["dice_mean"]["mean"] == pytest.approx(curve.mean())
        assert metrics["dice_max"] == {
            "mean": pytest.approx(curve.max()), "threshold": curve.argmax() / 255, "per_class": {"lesion": curve.max()},
        }  # fmt: skip
        assert metrics["mae"]["per_image"]["2"] == scores[2].values["mae"]
        assert metrics["e_measure_mean"]["ci95"][0] <= metrics["e_measure_mean"]["mean"]
        assert set(metrics) == {
            *(f"{name}_{kind}" for name in ("dice", "iou", "e_measure") for kind in ("mean", "max")),
            "s_measure", "weighted_f", "mae",
        }  # fmt: skip
        assert result["warnings"] == []
        assert "at threshold" in capsys.readouterr().out

    def test_faint_and_constant_maps_are_told(self, folders: tuple[Path, Path]) -> None:
        write(folders[0] / "0.png", soft() // 3)
        write(folders[0] / "1.png", np.full((30, 40), 7, np.uint8))
        write(folders[0] / "2.png", disc() * 0)
        write(folders[1] / "2.png", disc() * 0)
        result = run(folders, probabilities=True)
        assert [warning[:9] for warning in result["warnings"]] == ["in 1 maps", "2 maps ho"]
        assert result["empty"] == {"lesion": {"both": 1, "one": 0}}

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda pred, ref: write(pred / "0.png", soft().astype(np.uint16) * 200), r"0\.png: is no 8-bit grey map"),
            (lambda pred, ref: write(pred / "0.png", np.dstack([soft()] * 3)), r"0\.png: is no 8-bit grey map .*RGB"),
            (lambda pred, ref: write(pred / "0.png", soft()[:20]), r"0\.png: is 40 x 20 px"),
            (lambda pred, ref: write(ref / "0.png", disc(0, 1) + disc(9, 1)), r"ref/\d\.png: holds"),
            (
                lambda pred, ref: [write(ref / f"{k}.png", disc(0, 1) + disc(9, 1)) for k in range(3)],
                r"ref: holds 3 cl",
            ),
        ],
    )
    def test_bad_input(self, folders: tuple[Path, Path], spoil: Callable[..., Any], message: str) -> None:
        spoil(*folders)
        with pytest.raises(InputError, match=message):
            run(folders, probabilities=True)

    @pytest.mark.parametrize("option", [{"tolerance": 3.0}, {"spacing": "0.5"}])
    def test_options_of_distances_are_refused(self, folders: tuple[Path, Path], option: dict[str, Any]) -> None:
        with pytest.raises(InputError, match=f"--{next(iter(option))}: is of distances"):
            run(folders, probabilities=True, **option)

    def test_volumes_are_refused(self, volumes: tuple[Path, Path]) -> None:
        with pytest.raises(InputError, match="ref: holds volumes; --probabilities"):
            run(volumes, probabilities=True)


class TestProbabilitiesWhereLabelsAreWanted:
    def test_many_grey_values(self, folders: tuple[Path, Path]) -> None:
        write(folders[0] / "1.png", soft())
        with pytest.raises(InputError, match=r"1\.png: holds \d+ grey values, probabilities .* --probabilities"):
            run(folders)

    def test_nearly_black_and_white(self, folders: tuple[Path, Path]) -> None:
        """What a confident network gives: within a data set it would pass for masks that JPEG smeared."""
        sure = disc()
        sure[0, :4], sure[15, 18:22] = [1, 2, 3, 4], [254, 253, 252, 251]
        write(folders[0] / "1.png", sure)
        with pytest.raises(InputError, match=r"1\.png: holds 10 grey values.*--probabilities"):
            run(folders)

    def test_references_smeared_by_jpeg_do_not_hide_it(self, folders: tuple[Path, Path]) -> None:
        for k in range(3):
            (folders[1] / f"{k}.png").unlink()
            Image.fromarray(disc()).save(folders[1] / f"{k}.jpg", quality=95)
        result = run(folders)
        assert result["metrics"]["dice"]["per_image"]["0"] == 1
        assert [warning[:25] for warning in result["warnings"]] == ["references: the masks are"]
        write(folders[0] / "1.png", soft())
        with pytest.raises(InputError, match="--probabilities"):
            run(folders)

    def test_floats(self, folders: tuple[Path, Path]) -> None:
        (folders[0] / "1.png").unlink()
        write(folders[0] / "1.tif", soft().astype(np.float32) / 255)
        with pytest.raises(InputError, match=r"1\.tif: is not a label map .*--probabilities"):
            run(folders)

    def test_predictions_smeared_by_jpeg_are_read_and_told(self, folders: tuple[Path, Path]) -> None:
        for k in range(3):
            (folders[0] / f"{k}.png").unlink()
            Image.fromarray(disc()).save(folders[0] / f"{k}.jpg", quality=95)
        result = run(folders)
        assert result["metrics"]["dice"]["mean"] == 1
        assert result["warnings"][0].startswith("predictions: the masks are 0/255 smeared")


class TestClasses:
    def test_one_that_no_reference_knows(self, folders: tuple[Path, Path]) -> None:
        labels = disc(0, 1)
        labels[:3] = 2
        write(folders[0] / "0.png", labels)
        for k in (1, 2):
            write(folders[0] / f"{k}.png", disc(0, 1))
        result = run(folders)
        assert result["metrics"]["dice"]["per_class"] == {"lesion": 1, "class 2": pytest.approx(2 / 3)}
        assert result["warnings"] == [
            "class 2: is in predictions and in no reference; it scores 0 wherever it is predicted"
        ]
        assert result["empty"]["class 2"] == {"both": 2, "one": 1}

    def test_one_that_is_never_predicted_and_one_that_nobody_has(self, folders: tuple[Path, Path]) -> None:
        for k in range(3):
            write(folders[0] / f"{k}.png", disc(0, 1))
            write(folders[1] / f"{k}.png", np.maximum(disc(0, 1), disc(12, 2)))
        result = run(folders, mask_values="0=0,1=1,2=2,9=3")
        assert [warning.split(":")[0] for warning in result["warnings"]] == ["class 2", "class 3"]
        assert "in no prediction" in result["warnings"][0]
        assert "in no mask of either side" in result["warnings"][1]

    def test_white_predictions_of_three_classes_are_no_guess(self, folders: tuple[Path, Path]) -> None:
        for k in range(3):
            write(folders[1] / f"{k}.png", np.maximum(disc(0, 1), disc(12, 2)))
        with pytest.raises(InputError, match=r"pred/\d\.png: holds the values 0, 255"):
            run(folders)

    def test_labels_that_the_rule_of_the_references_would_turn_into_others(self, folders: tuple[Path, Path]) -> None:
        """Class 2 alone is predicted, as label id; the rule says that 2 is class 1."""
        for k in range(3):
            write(folders[0] / f"{k}.png", disc(0, 2))
            write(folders[1] / f"{k}.png", np.maximum(disc(0, 4), disc(12, 2)))
        with pytest.raises(InputError, match=r"pred/\d\.png: its values 0, 2 are labels, .* leave --mask-values out"):
            run(folders, mask_values="0=0,2=1,4=2")
        for k in range(3):
            write(folders[0] / f"{k}.png", np.maximum(disc(0, 4), disc(12, 2)))
        assert run(folders, mask_values="0=0,2=1,4=2")["metrics"]["dice"]["mean"] == 1

    @pytest.mark.parametrize("values", [(0, 128), (128, 128), (0, 2)])
    def test_the_remedy_is_about_the_predictions(self, folders: tuple[Path, Path], values: tuple[int, int]) -> None:
        """--mask-values states the rule of the references, so that it is no way out here."""
        for k in range(3):
            write(folders[0] / f"{k}.png", np.array(values, np.uint8)[(disc(k) > 0).astype(int)])
        with pytest.raises(InputError, match=r"pred/\d\.png: .* save the predictions as labels 0 to 1, .*\(0, 255\)$"):
            run(folders)


class TestVolumes:
    def test_metrics_of_pictures_are_left_out_and_told(self, volumes: tuple[Path, Path]) -> None:
        result = run(volumes)
        assert not {"s_measure", "e_measure", "weighted_f"} & set(result["metrics"])
        assert result["warnings"] == [
            "defined on pictures only, left out for volumes: s_measure, e_measure, weighted_f",
            "one image only: there is no interval",
        ]
        assert result["metrics"]["hd"]["mean"] == 1.5
        with pytest.raises(InputError, match="--metrics s_measure: is defined on pictures only"):
            run(volumes, metrics=("dice", "s_measure"))

    def test_in_voxels_or_at_a_stated_spacing(self, volumes: tuple[Path, Path]) -> None:
        assert run(volumes, spacing="px")["metrics"]["hd"]["mean"] == 1
        assert run(volumes, spacing="7,1,1")["metrics"]["hd"]["mean"] == 7

    def test_units_of_the_header(self, volumes: tuple[Path, Path]) -> None:
        for folder, shift in zip(volumes, (1, 0), strict=True):
            save(folder / "case.nii.gz", box(shift), np.diag([1500.0, 1000, 2000, 1]), "micron")
        assert run(volumes)["metrics"]["hd"]["mean"] == 1.5

    def test_a_single_slice_is_a_picture(self, volumes: tuple[Path, Path]) -> None:
        for folder, shift in zip(volumes, (1, 0), strict=True):
            save(folder / "case.nii.gz", box(shift)[:, :, 3:4])
        flat = score_masks(box(1)[:, :, 3], box(0)[:, :, 3], 2, (1.5, 1.0))
        assert run(volumes)["metrics"]["asd"]["mean"] == flat.image["asd"] < 1

    def test_headers_that_differ_by_rounding_are_one(self, volumes: tuple[Path, Path]) -> None:
        save(volumes[0] / "case.nii.gz", box(1), np.diag([1.5, 1, 2, 1]) + 1e-5)
        assert run(volumes)["metrics"]["hd"]["mean"] == 1.5

    @pytest.mark.parametrize(
        ("affine", "message"),
        [
            (np.diag([1.0, 1, 2, 1]), r"its voxels are 1 x 1 x 2 mm, those of its reference 1\.5 x 1 x 2 mm"),
            (np.diag([-1.5, 1, 2, 1]), "lies elsewhere than its reference"),
            (np.diag([1.5, 1, 2, 1]) + np.eye(4, k=3) * 5, "lies elsewhere than its reference"),
        ],
    )
    def test_other_places(self, volumes: tuple[Path, Path], affine: np.ndarray, message: str) -> None:
        save(volumes[0] / "case.nii.gz", box(1), affine)
        with pytest.raises(InputError, match=rf"pred/case\.nii\.gz: {message}.* --spacing px"):
            run(volumes)
        assert run(volumes, spacing="px")["n"] == 1

    @pytest.mark.parametrize("side", [0, 1])
    def test_nan(self, volumes: tuple[Path, Path], side: int) -> None:
        volume = box(0).astype(np.float32)
        volume[0, 0, 0] = np.nan
        save(volumes[side] / "case.nii.gz", volume)
        with pytest.raises(InputError, match=r"case\.nii\.gz: holds NaN or infinite values"):
            run(volumes)

    def test_fractions(self, volumes: tuple[Path, Path]) -> None:
        save(volumes[0] / "case.nii.gz", box(0).astype(np.float32) * 0.7)
        with pytest.raises(InputError, match="holds values that are not whole numbers"):
            run(volumes)

    def test_other_shapes_and_kinds(self, volumes: tuple[Path, Path]) -> None:
        save(volumes[0] / "case.nii.gz", box(0)[1:])
        with pytest.raises(InputError, match=r"is 11 x 10 x 8 voxels, its reference .* is 12 x 10 x 8 voxels"):
            run(volumes)
        (volumes[0] / "case.nii.gz").unlink()
        write(volumes[0] / "case.png", disc())
        with pytest.raises(InputError, match=r"case\.nii\.gz: .*case\.png"):
            run(volumes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": ("dyce",)}, "--metrics dyce: is not a metric; known are dice, iou"),
        ({"metrics": ("dice",), "probabilities": True}, "--metrics: .* leave it out"),
        ({"tolerance": -1.0}, "--tolerance -1.0: is no distance"),
        ({"tolerance": float("inf")}, "--tolerance inf"),
        ({"tolerance": float("nan")}, "--tolerance nan"),
        ({"workers": 0}, "--workers 0: is not positive"),
        ({"spacing": "wide"}, "--spacing wide: is not a size"),
        ({"spacing": "0"}, "--spacing 0: is not a size"),
        ({"spacing": "1,1,1"}, r"--spacing: has 3 numbers, .* has 2 axes"),
    ],
)
def test_wrong_options(folders: tuple[Path, Path], options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        run(folders, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.realdata
def test_real_masks_by_several_processes(real_data: Path, tmp_path: Path) -> None:
    for k, file in enumerate(sorted((real_data / "polyps" / "cvc_clinicdb" / "masks").iterdir())[::60]):
        ref = np.array(Image.open(file).convert("L"))
        write(tmp_path / "ref" / file.name, ref)
        write(tmp_path / "pred" / file.name, np.roll(ref, (k, -k), (0, 1)))
    result = run((tmp_path / "pred", tmp_path / "ref"), workers=2)
    for file in (tmp_path / "ref").iterdir():
        pred, ref = (np.array(Image.open(tmp_path / side / file.name)) // 255 for side in ("pred", "ref"))
        found = score_masks(pred, ref, 2, None, list(result["metrics"])[:13]).image
        assert found == {name: result["metrics"][name]["per_image"][file.stem] for name in found}
