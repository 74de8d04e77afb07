"""``morphogen predict`` with a segmenter of volumes, in process."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from morphogen.cli import main
from morphogen.data.records import Record
from morphogen.data.volumes.readers import read_volumes
from morphogen.segmenters.diffcl.volume_predictor import VolumePredictor, VolumeSettings
from small_volumes import SHAPE, made_volume, tiny_run, volume_folder, write_h5, write_nifti

AFFINE = np.array([[0, -0.8, 0, 20], [0.7, 0, 0, -30], [0, 0, 3.0, 5], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run(tmp_path_factory.mktemp("diff-cl"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three volumes, two of them labelled; their axes run elsewhere than a network wants them."""
    return volume_folder(tmp_path / "data", affine=AFFINE)


def done(words: list[str | Path], note: Path) -> dict:
    assert main([*map(str, words), "--json", str(note)]) == 0
    result: dict = json.loads(note.read_text())
    return result


def refusal(words: list[str | Path], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main([*map(str, words)]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


class TestPredict:
    def test_a_folder_of_nifti_files(self, run: Path, data: Path, tmp_path: Path) -> None:
        result = done(["predict", run, data, "--out", tmp_path / "out"], tmp_path / "note.json")
        assert (result["n"], result["made"], result["segmenter"], result["method"]) == (3, 3, "diffcl", "diff-cl")
        assert result["sampling"] == {"network": "cs", "overlap": 0.5}
        assert sorted(p.name for p in (tmp_path / "out").glob("*.nii.gz")) == ["a.nii.gz", "b.nii.gz", "c.nii.gz"]
        predictor = VolumePredictor.load(run)
        for record in read_volumes(data):
            made = nibabel.load(tmp_path / "out" / f"{record.id}.nii.gz")
            assert (made.shape, made.get_data_dtype()) == (SHAPE, np.uint8)
            assert np.array_equal(made.affine, nibabel.load(record.image).affine)
            assert np.array_equal(made.dataobj, predictor(record))

    def test_both_transforms_of_the_header_and_its_units_are_kept(self, run: Path, tmp_path: Path) -> None:
        qform, sform = np.diag([2.0, 2, 2, 1]), np.array(AFFINE)
        for name, codes in (("both", (1, 4)), ("scanner", (1, 0)), ("aligned", (0, 2)), ("neither", (0, 0))):
            image = nibabel.Nifti1Image(made_volume()[0], np.eye(4))
            for form, matrix, code in zip(("qform", "sform"), (qform, sform), codes, strict=True):
                getattr(image, f"set_{form}")(matrix if code else None, code)
            image.header.set_xyzt_units("mm", "sec")
            nibabel.save(image, tmp_path / f"{name}.nii")
            file = tmp_path / f"{name}.nii"
            done(["predict", run, file, "--out", tmp_path / name], tmp_path / "note.json")
            made, source = nibabel.load(tmp_path / name / f"{name}.nii.gz"), nibabel.load(file)
            np.testing.assert_allclose(made.affine, source.affine, atol=1e-6)
            for form in ("qform", "sform"):
                (ours, code), (theirs, its) = (getattr(i, f"get_{form}")(coded=True) for i in (made, source))
                assert code == its
                assert code == 0 or np.allclose(ours, theirs, atol=1e-5)
            assert made.header.get_xyzt_units() == source.header.get_xyzt_units()

    def test_h5_lists_with_settings(self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        root = tmp_path / "h5"
        for seed, name in enumerate("abc"):
            write_h5(root / f"{name}.h5", made_volume(seed=seed)[0])
        (root / "train.list").write_text("a\n")
        (root / "test.list").write_text("b\nc\n")
        words = ["--network", "mean", "--steps", "2", "--seed", "3", "--overlap", "0.25", "--batch-size", "3"]
        out = tmp_path / "out"
        result = done(["predict", run, root, "--out", out, *words, "--part", "test"], tmp_path / "note.json")
        assert result["sampling"] == {"network": "mean", "steps": 2, "seed": 3, "overlap": 0.25}
        assert capsys.readouterr().out.count("NIfTI files with the identity as affine") == 1
        assert sorted(p.name for p in out.glob("*.nii.gz")) == ["b.nii.gz", "c.nii.gz"]
        made = nibabel.load(out / "b.nii.gz")
        assert np.array_equal(made.affine, np.eye(4))
        settings = VolumeSettings(network="mean", steps=2, seed=3, overlap=0.25)
        expected = VolumePredictor.load(run, settings=settings)(Record("b", root / "b.h5"))
        assert np.array_equal(made.dataobj, expected)

    def test_the_axes_of_a_preset_are_those_of_the_file_again(self, run: Path, tmp_path: Path) -> None:
        image = made_volume()[0].transpose(2, 0, 1)
        write_h5(tmp_path / "v.h5", image)
        words = ["predict", run, tmp_path / "v.h5", "--out", tmp_path / "out", "--preset", "acdc"]
        done(words, tmp_path / "note.json")
        made = nibabel.load(tmp_path / "out" / "v.nii.gz")
        assert made.shape == image.shape
        expected = VolumePredictor.load(run)(Record("v", tmp_path / "v.h5", axes=(1, 2, 0)))
        assert np.array_equal(made.dataobj, expected)

    def test_the_raw_layout_of_nnu_net(self, run: Path, tmp_path: Path) -> None:
        root = tmp_path / "nnunet"
        for folder, names in (("imagesTr", "ab"), ("imagesTs", "c")):
            for seed, name in enumerate(names):
                write_nifti(root / folder / f"{name}_0000.nii.gz", made_volume(seed=seed)[0])
        (root / "labelsTr").mkdir()
        described = {"labels": {"background": 0, "organ": 1}, "file_ending": ".nii.gz", "numTraining": 2}
        (root / "dataset.json").write_text(json.dumps({**described, "channel_names": {"0": "MR"}}))
        result = done(["predict", run, root, "--out", tmp_path / "out"], tmp_path / "note.json")
        assert result["n"] == 3

    def test_probability_maps(self, run: Path, data: Path, tmp_path: Path) -> None:
        words = ["predict", run, data / "images" / "a.nii.gz", "--out", tmp_path / "out", "--probabilities"]
        done(words, tmp_path / "note.json")
        found = np.asarray(nibabel.load(tmp_path / "out" / "a.nii.gz").dataobj)
        expected = VolumePredictor.load(run).probabilities(Record("a", data / "images" / "a.nii.gz"))[1]
        assert found.dtype == np.uint8
        assert np.abs(found / 255 - expected).max() <= 0.5 / 255 + 1e-6
        assert json.loads((tmp_path / "out" / "predictions.json").read_text())["probabilities"] is True

    def test_second_call_makes_what_is_missing_or_broken(self, run: Path, data: Path, tmp_path: Path) -> None:
        out, note = tmp_path / "out", tmp_path / "note.json"
        words = ["predict", run, data, "--out", out, "--largest-component"]
        assert done(words, note)["made"] == 3
        before = {p.name: p.read_bytes() for p in out.glob("*.gz")}
        first, second, third = sorted(out.glob("*.gz"))
        first.unlink()
        second.write_bytes(second.read_bytes()[:50])
        stamp = third.stat().st_mtime_ns
        assert done([*words, "--batch-size", "1"], note)["made"] == 2
        assert {p.name: p.read_bytes() for p in out.glob("*.gz")} == before
        assert third.stat().st_mtime_ns == stamp

    def test_two_ways_do_not_share_a_folder(
        self, run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = ["predict", run, data, "--out", tmp_path / "out"]
        done(words, tmp_path / "note.json")
        for more in (["--network", "ds"], ["--overlap", "0"], ["--largest-component"]):
            assert "holds predictions with other settings" in refusal([*words, *more], capsys)
        assert "holds labels of this segmenter" in refusal([*words, "--probabilities"], capsys)
        other = tiny_run(tmp_path / "other", "supervised")
        assert "predictions of another segmenter" in refusal(["predict", other, *words[2:]], capsys)

    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            (["--ensemble", "4"], "--ensemble: is of segmenters of images, and"),
            (["--uncertainty"], "--uncertainty: is of segmenters of images, and"),
            (["--steps", "3"], "--steps: is of the diffusion network, and cs predicts"),
            (["--overlap", "1"], "--overlap 1.0: must lie in 0 to 1, 1 excluded"),
            (["--batch-size", "0"], "--batch-size 0: is not positive"),
            (["--probabilities", "--largest-component"], "--largest-component: is of labels"),
            (["--part", "test"], "has no test part"),
            (["--preset", "nothing"], "preset nothing: "),
            (["--preset", "la2018"], "has none of the lists"),
            (["--device", "abacus"], "--device abacus: is not to be had here"),
        ],
    )
    def test_wrong_options(
        self, words: list[str], expected: str, run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert expected in refusal(["predict", run, data, "--out", tmp_path / "out", *words], capsys)
        assert not (tmp_path / "out").exists()

    def test_wrong_input(self, run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "empty").mkdir()
        (tmp_path / "text.txt").write_text("words")
        write_nifti(tmp_path / "flat" / "a.nii.gz", np.zeros((4, 5, 6, 2), np.float32))
        root = tmp_path / "two"
        for name in ("a_0000", "a_0001"):
            write_nifti(root / "imagesTr" / f"{name}.nii.gz", made_volume()[0])
        (root / "labelsTr").mkdir()
        (root / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "organ": 1}}))
        for volumes, expected in (
            (tmp_path / "none", "none: does not exist"),
            (tmp_path / "empty", "empty: holds no volumes"),
            (tmp_path / "text.txt", "text.txt: is not a NIfTI or HDF5 file"),
            (tmp_path / "flat", "a.nii.gz: has 4 axes"),
            (root, "a_0000.nii.gz: has 2 channels,"),
        ):
            assert expected in refusal(["predict", run, volumes, "--out", tmp_path / "out"], capsys)
            assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        "words", [["--network", "cs"], ["--overlap", "0"], ["--largest-component"], ["--preset", "la2018"]]
    )
    def test_a_segmenter_of_images_takes_none_of_these(
        self, words: list[str], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "unet").mkdir()
        (tmp_path / "unet" / "config.json").write_text('{"segmenter": "unet"}')
        said = refusal(["predict", tmp_path / "unet", data, "--out", tmp_path / "out", *words], capsys)
        assert f"{words[0]}: is of segmenters of volumes, and" in said
