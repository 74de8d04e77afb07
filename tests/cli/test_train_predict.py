"""``morphogen train`` and ``morphogen predict``, in process."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from morphogen.cli import main
from morphogen.data.phantoms import phantom_dataset
from morphogen.segmenters import build
from morphogen.segmenters.latent import mask_autoencoder
from morphogen.segmenters.predictor import Predictor, save_segmenter
from small_foundations import small_tiny

QUICK = ["--encoder", "lite0", "--resolution", "32", "--max-train-steps", "2", "--train-batch-size", "4"]


@pytest.fixture(autouse=True)
def random_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    from morphogen.metrics import lite0

    monkeypatch.setattr(lite0, "lite0_encoder", lambda pretrained: lite0.Lite0Features())


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twelve phantoms of six subjects."""
    phantom_dataset(tmp_path / "data", "mucosa", 12, 40, subjects=6)
    return tmp_path / "data"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return segmenter(tmp_path / "segmenter", ("background", "lesion"))


def segmenter(folder: Path, classes: tuple[str, ...]) -> Path:
    (folder / "final").mkdir(parents=True)
    architecture = {"encoder": "lite0"}
    net = build("unet", len(classes), architecture, pretrained=False)
    save_segmenter(folder / "final", net, "unet", architecture, classes, 32)
    return folder


def line(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


class TestTrain:
    def test_segmenter_then_predict(self, data: Path, tmp_path: Path) -> None:
        out, masks, note = tmp_path / "run", tmp_path / "masks", tmp_path / "note.json"
        assert main(["train", "unet", str(data), "--out", str(out), *QUICK, "--json", str(note)]) == 0
        result = json.loads(note.read_text())
        assert (result["kind"], result["n_train"] + result["n_val"]) == ("segmenter", 12)
        assert result["architecture"] == {"encoder": "lite0"}
        assert main(["predict", str(out), str(data), "--out", str(masks)]) == 0
        assert {p.stem for p in masks.glob("*.png")} == {p.stem for p in (data / "images").iterdir()}

    def test_generator(self, data: Path, tmp_path: Path) -> None:
        out = tmp_path / "run"
        assert main(["train", "copy-paste", str(data), "--out", str(out), "--resolution", "32"]) == 0
        assert json.loads((out / "final" / "generator.json").read_text())["resolution"] == 32

    def test_some_images_have_no_mask(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """They train dual's image half; what has no use for them names the first."""
        monkeypatch.setattr(mask_autoencoder, "_STEPS", 1)
        monkeypatch.setattr(mask_autoencoder, "_TURNS", 1)
        data, note = tmp_path / "skin", tmp_path / "note.json"
        phantom_dataset(data, "skin", 6, 32, seed=1)
        bare = sorted((data / "masks").iterdir())[:2]
        for path in bare:
            path.unlink()
        small_tiny().save(tmp_path / "foundation")
        preset = f"{tmp_path / 'foundation'}+segmenter_steps=1+sampling_steps=1"
        words = ["--out", str(tmp_path / "run"), "--max-train-steps", "1", "--train-batch-size", "2"]
        assert main(["train", "dual", str(data), *words, "--preset", preset, "--json", str(note)]) == 0
        assert json.loads(note.read_text())["n_train"] == 6
        assert "2 of 6 images have no mask and train the image half alone" in capsys.readouterr().out
        for method in ("siamese", "inpaint", "copy-paste", "unet"):
            assert main(["train", method, str(data), "--out", str(tmp_path / method)]) == 2
            assert f"{bare[0].name}: has no mask in masks/" in line(capsys)
            assert not (tmp_path / method).exists()

    def test_test_part_is_never_opened(self, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Test images and masks are made unreadable; the splits of the file are followed."""
        table = data / "records.csv"
        rows = [row.split(",") for row in table.read_text().splitlines()]
        splits = ["test"] * 4 + ["val"] * 3 + ["train"] * 5
        table.write_text("\n".join(",".join([*r, s]) for r, s in zip(rows, ["split", *splits], strict=True)) + "\n")
        for row in rows[1:5]:
            for path in (data / "images" / f"{row[0]}.png", data / "masks" / f"{row[0]}.png"):
                content = path.read_bytes()
                path.write_bytes(content[: content.index(b"IDAT") + 8])  # the header stays, the pixels go
        note = tmp_path / "note.json"
        assert main(["train", "unet", str(data), "--out", str(tmp_path / "r"), *QUICK, "--json", str(note)]) == 0
        result = json.loads(note.read_text())
        assert (result["n_train"], result["n_val"]) == (5, 3)
        # a generator sees no validation image, which will choose the checkpoint of a segmenter
        words = ["train", "copy-paste", str(data), "--out", str(tmp_path / "g"), "--json", str(note)]
        assert main(words) == 0
        assert json.loads(note.read_text())["n_train"] == 5

    def test_few_subjects_are_said_to_be_shared(
        self, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = ["train", "unet", str(data), *QUICK, "--out"]
        assert main([*words, str(tmp_path / "r")]) == 0
        assert "fewer than five subjects" not in capsys.readouterr().out
        table = data / "records.csv"
        table.write_text(re.sub(r"subject-\d+", "subject-1", table.read_text()))
        assert main([*words, str(tmp_path / "s")]) == 0
        assert "fewer than five subjects" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            (["u-net"], "u-net: no such method; did you mean unet?"),
            (["copy-paste", "--lr", "0.1"], "--lr: copy-paste has no such option"),
            (["unet", "--preset", "paper"], "unet+paper: is not option=value; unet has encoder"),
            (["unet", "--encoder", "resnet"], "has no encoder 'resnet'"),
            (["unet", "--max-train-steps", "0"], "--max-train-steps 0: must be positive"),
            (["unet", "--resolution", "0"], "--resolution 0: is too small; give at least 16"),
        ],
    )
    def test_wrong_options(
        self, words: list[str], expected: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "run"
        assert main(["train", words[0], str(data), "--out", str(out), *words[1:]]) == 2
        assert expected in line(capsys)
        assert not out.exists()


class TestPredict:
    def test_masks_at_native_size_with_two_grey_levels(self, data: Path, run: Path, tmp_path: Path) -> None:
        Image.new("RGB", (70, 23), "pink").save(data / "images" / "wide.png")  # without a mask, of another size
        assert main(["predict", str(run), str(data), "--out", str(tmp_path / "masks")]) == 0
        wide = np.array(Image.open(tmp_path / "masks" / "wide.png"))
        assert wide.shape == (23, 70)
        assert set(np.unique(wide)) <= {0, 255}
        assert len(list((tmp_path / "masks").glob("*.png"))) == 13

    def test_more_classes_are_label_ids_and_one_file_will_do(self, data: Path, tmp_path: Path) -> None:
        run = segmenter(tmp_path / "multi", ("background", "a", "b", "c"))
        image = sorted((data / "images").iterdir())[0]
        assert main(["predict", str(run), str(image), "--out", str(tmp_path / "masks")]) == 0
        mask = np.array(Image.open(tmp_path / "masks" / f"{image.stem}.png"))
        assert mask.max() <= 3
        levels = json.loads((tmp_path / "masks" / "predictions.json").read_text())["grey_level_of_class"]
        assert levels == {"background": 0, "a": 1, "b": 2, "c": 3}

    def test_slices_of_a_volume_are_seen_in_its_one_window(
        self, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As in training and scoring: a dark slice stays dark."""
        volume = np.random.default_rng(0).uniform(0, 1000, (8, 8, 2)).astype(np.float32) * [0.01, 1.0]
        (tmp_path / "images").mkdir()
        nibabel.save(nibabel.Nifti1Image(volume.astype(np.float32), np.eye(4)), tmp_path / "images" / "v.nii.gz")
        seen: list[np.ndarray] = []

        def note(self: Predictor, images: list[np.ndarray], batch_size: int = 32) -> list[np.ndarray]:
            seen.extend(images)
            return [np.zeros(image.shape[:2], np.int64) for image in images]

        monkeypatch.setattr(Predictor, "__call__", note)
        assert main(["predict", str(run), str(tmp_path / "images"), "--out", str(tmp_path / "masks")]) == 0
        assert [image.max() < 10 for image in seen] == [True, False]

    def test_a_volume_becomes_one_file_in_its_place_and_can_be_scored(
        self, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Bright voxels are taken for the lesion, so that the reference is known."""
        rng, affine = np.random.default_rng(1), np.diag([0.7, 0.8, 3.0, 1.0])
        for name, depth in (("a", 12), ("b", 5)):
            volume = rng.integers(0, 256, (9, 10, depth)).astype(np.uint8)
            for folder, array in (("images", volume), ("masks", (volume > 128).astype(np.uint8))):
                (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
                nibabel.save(nibabel.Nifti1Image(array, affine), tmp_path / "data" / folder / f"{name}.nii.gz")

        def bright(self: Predictor, images: list[np.ndarray], batch_size: int = 32) -> list[np.ndarray]:
            return [(image[..., 0] > 128).astype(np.int64) for image in images]

        monkeypatch.setattr(Predictor, "__call__", bright)
        data, out, note = tmp_path / "data", tmp_path / "masks", tmp_path / "note.json"
        words = ["predict", str(run), str(data), "--out", str(out), "--batch-size", "4", "--json", str(note)]
        assert main(words) == 0
        assert sorted(p.name for p in out.iterdir()) == ["a.nii.gz", "b.nii.gz", "predictions.json"]
        made = nibabel.load(out / "a.nii.gz")
        assert np.array_equal(made.affine, nibabel.load(data / "images" / "a.nii.gz").affine)
        assert np.array_equal(made.dataobj, nibabel.load(data / "masks" / "a.nii.gz").dataobj)
        assert main(["eval", "masks", str(out), str(data), "--workers", "1", "--json", str(note)]) == 0
        scores = json.loads(note.read_text())
        assert (scores["n"], scores["unit"], scores["metrics"]["dice"]["mean"]) == (2, "mm", 1.0)
        first = (out / "a.nii.gz").stat().st_mtime_ns
        (out / "b.nii.gz").write_bytes((out / "b.nii.gz").read_bytes()[:60])
        assert main(words) == 0
        assert json.loads(note.read_text())["made"] == 1
        assert (out / "a.nii.gz").stat().st_mtime_ns == first

    def test_nan_is_no_silent_value(self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "images").mkdir()
        for name, hole in (("a", np.nan), ("b", 0.5), ("c", np.inf)):
            image = np.random.default_rng(0).random((20, 24)).astype(np.float32)
            image[3, 4] = hole
            Image.fromarray(image).save(tmp_path / "images" / f"{name}.tif")
        assert main(["predict", str(run), str(tmp_path / "images"), "--out", str(tmp_path / "masks")]) == 0
        said = capsys.readouterr().out
        assert "a.tif: holds NaN or infinite values, as 1 other" in said
        assert "NaN and -infinity are read as the darkest grey, infinity as the brightest" in said

    def test_second_call_makes_what_is_missing_or_broken(self, data: Path, run: Path, tmp_path: Path) -> None:
        out, note = tmp_path / "masks", tmp_path / "note.json"
        words = ["predict", str(run), str(data), "--out", str(out), "--json", str(note)]
        assert main(words) == 0
        before = {p.name: p.read_bytes() for p in out.glob("*.png")}
        first, second, third = sorted(out.glob("*.png"))[:3]
        first.unlink()
        second.write_bytes(second.read_bytes()[:50])
        stamp = third.stat().st_mtime_ns
        assert main(words) == 0
        assert json.loads(note.read_text())["made"] == 2
        assert {p.name: p.read_bytes() for p in out.glob("*.png")} == before
        assert third.stat().st_mtime_ns == stamp

    def test_two_segmenters_do_not_share_a_folder(
        self, data: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "masks"
        assert main(["predict", str(run), str(data), "--out", str(out)]) == 0
        other = segmenter(tmp_path / "other", ("background", "lesion", "third"))
        capsys.readouterr()
        assert main(["predict", str(other), str(data), "--out", str(out)]) == 2
        assert "predictions of another segmenter" in line(capsys)
        shutil.rmtree(out)
        out.mkdir()
        (out / "thesis.txt").write_text("precious")
        assert main(["predict", str(run), str(data), "--out", str(out)]) == 2
        assert "holds other files" in line(capsys)
        assert [p.name for p in out.iterdir()] == ["thesis.txt"]

    def test_wrong_input(self, data: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for words, expected in (
            ([str(tmp_path / "none"), str(data)], "holds no finished segmenter"),
            ([str(run), str(tmp_path / "none")], "does not exist"),
            ([str(run), str(data / "records.csv")], "is not a PNG, JPEG, TIFF or BMP file"),
            ([str(run), str(data), "--batch-size", "0"], "--batch-size 0"),
        ):
            assert main(["predict", *words, "--out", str(tmp_path / "out")]) == 2
            assert expected in line(capsys)
            assert not (tmp_path / "out").exists()
