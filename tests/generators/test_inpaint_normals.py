"""Images without a lesion: made of training images by a generator that is not there, or read from a folder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from morphogen.data.field_of_view import field_of_view
from morphogen.data.images import load_rgb
from morphogen.data.pairs import native_mask
from morphogen.data.phantoms import phantom, phantom_dataset
from morphogen.data.records import Dataset
from morphogen.errors import InputError, WorkError
from morphogen.generators.inpaint import normals as module
from morphogen.generators.inpaint.normals import LEAST_SIDE, check_normals, make_normals, read_normals
from morphogen.training.rng import seed_of


class Eraser:
    """Paints lesions with one colour, and counts."""

    hash = "eraser"

    def __init__(self, stop_after: int | None = None) -> None:
        self.batches: list[list[int]] = []
        self.stop_after = stop_after

    def remove(self, images: list[np.ndarray], masks: list[np.ndarray], seeds: list[int]) -> list[np.ndarray]:
        if self.stop_after == len(self.batches):
            raise KeyboardInterrupt
        self.batches.append(list(seeds))
        return [
            np.where((mask > 0)[..., None], np.uint8([seed % 200, 100, 90]), image)
            for image, mask, seed in zip(images, masks, seeds, strict=True)
        ]


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    """Twelve frames; of the last three one is blurred, one has a huge lesion, and one none."""
    made = phantom_dataset(tmp_path / "data", "mucosa", 12, 64)
    blurred, huge, healthy = (made[i] for i in (9, 10, 11))
    soft = [ndimage.gaussian_filter(channel, 6.0) for channel in np.moveaxis(load_rgb(blurred), 2, 0)]
    Image.fromarray(np.stack(soft, axis=2)).save(blurred.image)
    for record, value in ((huge, 255), (healthy, 0)):
        assert record.mask is not None
        Image.fromarray(np.full((64, 64), value, np.uint8)).save(record.mask)
    return made


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def rows(folder: Path) -> dict[str, dict[str, object]]:
    return {row["id"]: row for row in map(json.loads, (folder / "normals.jsonl").read_text().splitlines())}


class TestRemoved:
    def test_lesions_are_painted_away_and_the_rest_is_kept(self, data: Dataset, tmp_path: Path) -> None:
        eraser = Eraser()
        found = make_normals(eraser, data, "removed", tmp_path / "out", 7)
        assert [len(batch) for batch in eraser.batches] == [8, 1]
        assert set(found.ids) == set(data.ids) - {data.ids[9], data.ids[10]}
        for record in found:
            source = data.select([record.id])[0]
            lesion, image = native_mask(source, data) > 0, load_rgb(record)
            np.testing.assert_array_equal(image[~lesion], load_rgb(source)[~lesion])
            assert (image[lesion][:, 1:] == (100, 90)).all()
            assert (image[lesion][:, 0] == seed_of(7, "normal", record.id) % 200).all()
            assert record.mask is None
            assert record.subject == source.subject
            assert record.origin is not None
            assert record.origin["source"] == ("removed" if lesion.any() else "lesion-free")
            assert record.origin["image"] == record.id
            assert record.origin["field"] == pytest.approx(field_of_view(load_rgb(source)).mean())

    def test_why_a_frame_was_rejected_is_noted_and_said(
        self, data: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        make_normals(Eraser(), data, "removed", tmp_path / "out", 7)
        noted = rows(tmp_path / "out")
        assert list(noted) == list(data.ids)
        assert noted[data.ids[9]]["rejected"] == ["blurred"]
        assert noted[data.ids[10]]["rejected"] == ["large lesion"]
        assert noted[data.ids[11]]["source"] == "lesion-free"
        assert "10 of 12 images can be painted into; not taken: blurred 1, large lesion 1" in capsys.readouterr().out

    def test_what_is_there_is_kept(self, data: Dataset, tmp_path: Path) -> None:
        make_normals(Eraser(), data, "removed", tmp_path / "out", 7)
        before, again = content(tmp_path / "out"), Eraser()
        make_normals(again, data, "removed", tmp_path / "out", 7)
        assert (again.batches, content(tmp_path / "out")) == ([], before)

    def test_a_stopped_run_ends_with_the_same_bytes(self, data: Dataset, tmp_path: Path) -> None:
        make_normals(Eraser(), data, "removed", tmp_path / "whole", 7)
        with pytest.raises(KeyboardInterrupt):
            make_normals(Eraser(stop_after=1), data, "removed", tmp_path / "out", 7)
        with pytest.raises(InputError, match="is not finished"):
            read_normals(tmp_path / "out")
        with (tmp_path / "out" / "normals.jsonl").open("a") as file:
            file.write('{"id": "torn')
        (tmp_path / "out" / "images" / f"{data.ids[3]}.png").write_bytes(b"half")
        make_normals(Eraser(), data, "removed", tmp_path / "out", 7)
        assert content(tmp_path / "out") == content(tmp_path / "whole")

    def test_another_run_is_refused(self, data: Dataset, tmp_path: Path) -> None:
        make_normals(Eraser(), data, "removed", tmp_path / "out", 7)
        with pytest.raises(InputError, match="holds another sampling run"):
            make_normals(Eraser(), data, "removed", tmp_path / "out", 8)
        with pytest.raises(InputError, match="holds another sampling run"):
            make_normals(Eraser(), data, "regions", tmp_path / "out", 7)

    def test_where_nothing_can_be_taken(self, data: Dataset, tmp_path: Path) -> None:
        said = r"none of its 2 images .*blurred 1, large lesion 1.*normals=FOLDER"
        for _ in range(2):  # the second finds it all made
            with pytest.raises(WorkError, match=said) as error:
                make_normals(Eraser(), data.select(data.ids[9:11]), "removed", tmp_path / "out", 0)
            assert "\n" not in str(error.value)


class TestRegions:
    def test_they_are_parts_without_a_lesion_in_the_frames_shape(self, data: Dataset, tmp_path: Path) -> None:
        found = make_normals(Eraser(), data, "regions", tmp_path / "out", 0)
        noted = rows(tmp_path / "out")
        assert len(found) >= 6
        for record in found:
            source = data.select([record.id])[0]
            top, left, bottom, right = noted[record.id]["box"]  # type: ignore[misc]
            image = load_rgb(record)
            np.testing.assert_array_equal(image, load_rgb(source)[top:bottom, left:right])
            assert image.shape[0] == image.shape[1] >= LEAST_SIDE * 64
            assert not native_mask(source, data)[top:bottom, left:right].any()
            assert field_of_view(load_rgb(source))[top:bottom, left:right].all()
            assert record.origin is not None
            assert record.origin["source"] == "regions"

    def test_several_lesions(self, data: Dataset, tmp_path: Path) -> None:
        record, mask = data[0], np.zeros((64, 64), np.uint8)
        image = np.random.default_rng(0).integers(90, 160, (64, 64, 3)).astype(np.uint8)
        mask[10:14, 50:54] = mask[50:54, 8:12] = 255
        assert record.mask is not None
        Image.fromarray(image).save(record.image)
        Image.fromarray(mask).save(record.mask)
        found = make_normals(Eraser(), data.select([record.id]), "regions", tmp_path / "out", 0)
        size = load_rgb(found[0]).shape[0]
        # Right of the left lesion and below the right one, each with its margin of 2 px; or the mirror of that.
        assert size == 64 - 16

    def test_a_lesion_everywhere(self, data: Dataset, tmp_path: Path) -> None:
        with pytest.raises(WorkError, match="no region without a lesion 1"):
            make_normals(Eraser(), data.select([data.ids[10]]), "regions", tmp_path / "out", 0)


class TestFolder:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """Three good frames of three sizes, one of them with a black border, and a black one."""
        root = tmp_path / "normal"
        root.mkdir()
        for i, size in enumerate((48, 64, 96)):
            Image.fromarray(phantom("skin", i, size)[0]).save(root / f"s{i}.png")
        bordered = np.zeros((90, 120, 3), np.uint8)
        bordered[10:80, 20:100] = np.array(Image.open(root / "s2.png").resize((80, 70)))
        Image.fromarray(bordered).save(root / "bordered.jpg", quality=95)
        Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(root / "black.png")
        return root

    @pytest.mark.parametrize("inner", [False, True])
    def test_good_frames_are_taken_and_bad_ones_counted(
        self, folder: Path, inner: bool, capsys: pytest.CaptureFixture[str]
    ) -> None:
        if inner:
            folder.rename(folder.parent / "x")
            folder.mkdir()
            (folder.parent / "x").rename(folder / "images")
        found = read_normals(folder)
        assert found.ids == ("bordered", "s0", "s1", "s2")
        assert {record.origin["source"] for record in found if record.origin} == {"folder"}
        assert 0.4 < found[0].origin["field"] < 0.55  # type: ignore[index]
        assert "4 of 5 images can be painted into; not taken: little field of view 1" in capsys.readouterr().out

    def test_a_run_keeps_copies(self, folder: Path, data: Dataset, tmp_path: Path) -> None:
        found = make_normals(Eraser(), data, str(folder), tmp_path / "out", 0)
        assert found.ids == ("bordered", "s0", "s1", "s2")
        for record, original in zip(found, read_normals(folder), strict=True):
            np.testing.assert_array_equal(load_rgb(record), load_rgb(original))
            assert record.image.parent == tmp_path / "out" / "images"
            assert record.origin == original.origin
        assert str(folder) not in "".join(p.read_text() for p in (tmp_path / "out").glob("*.json*"))

    def test_images_whose_mask_holds_a_lesion_are_not_normal(self, data: Dataset) -> None:
        found = read_normals(data.root)
        assert found.ids == (data.ids[11],)
        assert found[0].mask is None

    def test_of_many_images_a_choice_is_looked_at(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(module, "MOST", 3)
        found = read_normals(folder)
        assert 2 <= len(found) <= 3
        assert found.ids == read_normals(folder).ids
        assert "3 of its 5 images are looked at" in capsys.readouterr().out

    def test_faults_are_one_line(self, tmp_path: Path, folder: Path) -> None:
        (tmp_path / "empty").mkdir()
        (tmp_path / "texts").mkdir()
        (tmp_path / "texts" / "a.txt").write_text("a")
        (tmp_path / "volumes").mkdir()
        (tmp_path / "volumes" / "a.nii.gz").write_bytes(b"")
        (tmp_path / "black").mkdir()
        (folder / "black.png").rename(tmp_path / "black" / "black.png")
        (tmp_path / "damaged").mkdir()
        (tmp_path / "damaged" / "a.png").write_bytes((folder / "s0.png").read_bytes()[:300])
        (tmp_path / "twice").mkdir()
        for name in ("a.png", "a.bmp"):
            Image.open(folder / "s0.png").save(tmp_path / "twice" / name)
        cases = {
            "missing": "missing: does not exist; give a folder of images without a lesion",
            "normal/s0.png": "is a file",
            "empty": "empty: is empty",
            "texts": "texts: holds no images",
            "volumes": "a.nii.gz: is a volume; give a folder of images without a lesion, as pictures",
            "black": "none of its 1 images can be painted into .little field of view 1.",
            "damaged": "a.png: cannot be decoded",
            "twice": "the id 'a' occurs twice",
        }
        for name, fault in cases.items():
            with pytest.raises(InputError, match=fault) as error:
                read_normals(tmp_path / name)
            assert "\n" not in str(error.value)

    def test_a_source_is_checked_before_work_starts(self, tmp_path: Path, folder: Path, data: Dataset) -> None:
        for good in ("removed", "regions", str(folder)):
            check_normals(good, data)
        with pytest.raises(InputError, match="does not exist"):
            check_normals(str(tmp_path / "nowhere"), data)

    def test_images_that_leave_nothing_are_refused(self, data: Dataset) -> None:
        unfit = data.select([data.ids[9], data.ids[10]])  # blurred, and one lesion all over
        with pytest.raises(InputError, match=r"none of its 2 images can be painted .*try --preset normals=regions"):
            check_normals("removed", unfit)
        check_normals("removed", data.select([data.ids[9], data.ids[11]]))


@pytest.mark.realdata
def test_real_frames(real_data: Path, tmp_path: Path) -> None:
    from morphogen.data.readers import read_dataset

    whole = read_dataset(real_data / "polyps" / "cvc_clinicdb")
    data = replace(whole, records=whole.records[::50])
    for source, least in (("removed", 0.7), ("regions", 0.4)):
        assert len(make_normals(Eraser(), data, source, tmp_path / source, 0)) >= least * len(data)
