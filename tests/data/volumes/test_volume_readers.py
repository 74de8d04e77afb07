"""Every layout of whole volumes, the benchmarks' presets, and every way in which a folder can be wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.volumes.small_volumes import blob, grey, listed, put_h5, put_list, put_nifti
from morphogen.data.records import Dataset
from morphogen.data.volumes.check import refuse_unreadable_volumes
from morphogen.data.volumes.files import read_label, read_volume
from morphogen.data.volumes.patches import Augmentation
from morphogen.data.volumes.presets import PRESETS, find_preset
from morphogen.data.volumes.readers import find_volume_layout, holds_volumes, read_volumes
from morphogen.data.volumes.sources import VolumeSource
from morphogen.errors import InputError


def refused(root: Path, **options: object) -> str:
    """The one line with which reading fails."""
    with pytest.raises(InputError) as caught:
        read_volumes(root, **options)  # type: ignore[arg-type]
    line = str(caught.value)
    assert "\n" not in line
    assert "; " in line
    return line


def labelled(data: Dataset) -> list[str]:
    """Ids of the labelled records."""
    return [record.id for record in data if record.mask is not None]


def test_lists_keep_their_order_and_the_first_are_labelled(tmp_path: Path) -> None:
    root = listed(tmp_path / "LA")
    assert find_volume_layout(root) == "lists"
    assert holds_volumes(root)
    for preset in (None, "la2018"):
        data = read_volumes(root, preset)
        assert data.ids == ("c", "a", "b", "t")
        assert [record.split for record in data] == ["train", "train", "train", "test"]
        assert [record.subject for record in data] == list(data.ids)
        assert {record.plane for record in data} == {None}
        assert all(record.mask == record.image == root / record.id / "mri_norm2.h5" for record in data)
        assert data.mask_values == {0: 0, 1: 1}
        refuse_unreadable_volumes(data)
        assert labelled(read_volumes(root, preset, labelled=2)) == ["c", "a", "t"]
        assert labelled(read_volumes(root, preset, labelled=3)) == list(data.ids)
    assert read_volumes(root).classes == ("background", "lesion")
    assert data.classes == ("background", "left atrium")
    assert data.name == "LA"


def test_lists_may_lie_elsewhere(tmp_path: Path) -> None:
    root = listed(tmp_path / "2018LA_Seg_Training Set")
    for name in ("train", "test"):
        (root / f"{name}.list").rename(tmp_path / f"{name}.list")
    assert read_volumes(root, "la2018", lists=tmp_path).ids == ("c", "a", "b", "t")
    assert read_volumes(tmp_path, "la2018").ids == ("c", "a", "b", "t")
    assert "holds no list of training volumes; name them in train.list or train.txt" in refused(root, lists=root)


def test_brats_is_the_whole_tumour(tmp_path: Path) -> None:
    ids = {"train": ("BraTS19_2013_1_1", "BraTS19_CBICA_ABO_1"), "val": ("BraTS19_TMC_1_1",), "test": ("BraTS19_X_1",)}
    for part, names in ids.items():
        put_list(tmp_path / f"{part}.txt", *(f"{name},1" for name in names))
        for name in names:
            put_h5(tmp_path / "data" / f"{name}.h5", image=grey(), label=blob(value=4) + blob() * 0)
    assert "holds the values 0, 4, which are not labels; state the rule with --mask-values" in refused(tmp_path)
    data = read_volumes(tmp_path, "brats2019", labelled=1)
    assert [record.split for record in data] == ["train", "train", "val", "test"]
    assert labelled(data) == ["BraTS19_2013_1_1", "BraTS19_TMC_1_1", "BraTS19_X_1"]
    assert data.classes == ("background", "whole tumour")
    refuse_unreadable_volumes(data)
    assert np.array_equal(read_label(data[0], data.mask_values), blob())


def test_pancreas_a(tmp_path: Path) -> None:
    put_list(tmp_path / "train.list", "image0062", "image0010")
    put_list(tmp_path / "test.list", "image0050")
    for name in ("image0062", "image0010", "image0050"):
        put_h5(tmp_path / "Pancreas_h5" / f"{name}_norm.h5")
    data = read_volumes(tmp_path, "pancreas-a", labelled=1)
    assert (data.ids, labelled(data)) == (("image0062", "image0010", "image0050"), ["image0062", "image0050"])
    assert data.classes == ("background", "pancreas")


def test_pancreas_b_has_lists_of_the_labelled_and_the_others(tmp_path: Path) -> None:
    put_list(tmp_path / "train_lab.txt", "0001.h5", "0002.h5")
    put_list(tmp_path / "train_unlab.txt", "0003.h5")
    put_list(tmp_path / "test.txt", "0064.h5")
    for name in ("0001", "0002", "0003", "0064"):
        put_h5(tmp_path / f"{name}.h5")
    for preset in (None, "pancreas-b"):
        data = read_volumes(tmp_path, preset)
        assert (data.ids, labelled(data)) == (("0001", "0002", "0003", "0064"), ["0001", "0002", "0064"])
        assert labelled(read_volumes(tmp_path, preset, labelled=1)) == ["0001", "0064"]
        assert "has 2 labelled training volumes, not 3" in refused(tmp_path, preset=preset, labelled=3)


def test_acdc_puts_slices_last_and_knows_patients(tmp_path: Path) -> None:
    slices_first = np.stack([np.full((9, 7), k % 4, np.uint8) for k in range(6)])
    names = [f"patient{n}_frame0{k}" for n in ("099", "038", "001") for k in (1, 2)]
    put_list(tmp_path / "train.list", *names[:4])
    put_list(tmp_path / "val.list", *names[4:])
    for name in names:
        put_h5(tmp_path / "data" / f"{name}.h5", image=grey(0, (6, 9, 7)), label=slices_first)
    data = read_volumes(tmp_path, "acdc", labelled=2)
    assert labelled(data) == [*names[:2], *names[4:]]
    assert [record.subject for record in data][:3] == ["patient099", "patient099", "patient038"]
    assert read_volume(data[0]).shape == (9, 7, 6)
    label = read_label(data[0], data.mask_values)
    assert (label == np.arange(6) % 4).all()
    refuse_unreadable_volumes(data)
    source = VolumeSource(data, find_preset("acdc").preparation)
    assert source[0].image.shape == (1, 9, 7, 6)


def test_presets_are_sound() -> None:
    for name, preset in PRESETS.items():
        assert name == preset.name
        assert sorted(set(preset.mask_values.values())) == list(range(len(preset.classes)))
        assert all(n % 16 == 0 for n in preset.patch)
        assert preset.augmentation in Augmentation.__args__  # type: ignore[attr-defined]
        assert preset.augmentation == ("none" if name.startswith("pancreas") else "turns")
    with pytest.raises(InputError, match="preset la2019: there is no such benchmark; choose one of la2018, brats2019"):
        find_preset("la2019")


def test_a_list_of_the_labelled_beside_that_of_all(tmp_path: Path) -> None:
    root = listed(tmp_path)
    put_list(root / "labeled.txt", "b")
    assert labelled(read_volumes(root)) == ["b", "t"]
    assert read_volumes(root).ids == ("c", "a", "b", "t")
    (root / "labeled.txt").unlink()
    put_list(root / "unlabelled.list", "a")
    assert labelled(read_volumes(root)) == ["c", "b", "t"]
    assert labelled(read_volumes(root, labelled=1)) == ["c", "t"]
    put_h5(root / "c" / "mri_norm2.h5", image=grey())
    assert labelled(read_volumes(root)) == ["b", "t"]


def test_listed_nifti_and_files_without_labels(tmp_path: Path) -> None:
    put_list(tmp_path / "train.txt", "\ufeffa", "", "b.nii.gz", "sub/c", "d", "e", "f")
    put_nifti(tmp_path / "a.nii.gz", grey())
    put_nifti(tmp_path / "a_label.nii.gz", blob())
    put_nifti(tmp_path / "images" / "b.nii.gz", grey())
    put_nifti(tmp_path / "labels" / "b.nii.gz", blob())
    put_nifti(tmp_path / "sub" / "c.nii", grey())
    put_nifti(tmp_path / "d" / "image.nii.gz", grey())
    put_nifti(tmp_path / "d" / "label.nii.gz", blob())
    put_h5(tmp_path / "e.h5", image=grey())
    put_h5(tmp_path / "f" / "x.h5")
    data = read_volumes(tmp_path)
    assert data.ids == ("a", "b", "sub_c", "d", "e", "f")
    assert labelled(data) == ["a", "b", "d", "f"]
    assert labelled(read_volumes(tmp_path, labelled=3)) == ["a", "b", "d"]
    refuse_unreadable_volumes(data)


@pytest.mark.parametrize("masks", ["masks", "labels"])
def test_folders_of_nifti(tmp_path: Path, masks: str) -> None:
    for name in "cab":
        put_nifti(tmp_path / "images" / f"{name}.nii.gz", grey())
    put_nifti(tmp_path / masks / "b.nii", blob(value=255))
    put_nifti(tmp_path / masks / "c.nii.gz", blob(value=255))
    (tmp_path / "images" / ".DS_Store").write_text("x")
    assert (find_volume_layout(tmp_path), holds_volumes(tmp_path)) == ("folders", True)
    data = read_volumes(tmp_path)
    assert data.ids == ("a", "b", "c")
    assert labelled(data) == ["b", "c"]
    assert {record.split for record in data} == {"train"}
    assert data.mask_values == {0: 0, 255: 1}
    assert labelled(read_volumes(tmp_path, labelled=1)) == ["b"]
    refuse_unreadable_volumes(data)


def test_volumes_alone_and_the_table(tmp_path: Path) -> None:
    put_nifti(tmp_path / "b.nii.gz", grey())
    put_h5(tmp_path / "a.h5")
    (tmp_path / "records.csv").write_text("id,subject,split\nb,p1,train\na,p2,test\n")
    (tmp_path / "classes.txt").write_text("air\norgan\n")
    data = read_volumes(tmp_path)
    assert [(record.id, record.subject, record.split) for record in data] == [("b", "p1", "train"), ("a", "p2", "test")]
    assert labelled(data) == ["a"]
    assert data.classes == ("air", "organ")
    assert read_volumes(tmp_path, mask_values={0: 1, 1: 0}).mask_values == {0: 1, 1: 0}


def nnunet(root: Path, channels: int = 2) -> Path:
    """Two labelled cases, one without a label, one test case."""
    for part, cases in (("Tr", ("p1", "p2", "p3")), ("Ts", ("t1",))):
        for case in cases:
            for k in range(channels):
                put_nifti(root / f"images{part}" / f"{case}_{k:04d}.nii.gz", grey(k))
    for case in ("p1", "p2"):
        put_nifti(root / "labelsTr" / f"{case}.nii.gz", blob())
    described = {"labels": {"background": 0, "organ": 1, "tumour": 2}, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(described))
    return root


def test_nnunet_with_channels(tmp_path: Path) -> None:
    root = nnunet(tmp_path)
    assert (find_volume_layout(root), holds_volumes(root)) == ("nnunet", True)
    data = read_volumes(root)
    assert [(record.id, record.split) for record in data] == [
        ("p1", "train"), ("p2", "train"), ("p3", "train"), ("t1", "test"),
    ]  # fmt: skip
    assert labelled(data) == ["p1", "p2"]
    assert data.classes == ("background", "organ", "tumour")
    assert data.mask_values == {0: 0, 1: 1, 2: 2}
    assert data[0].channels == (root / "imagesTr" / "p1_0001.nii.gz",)
    assert read_volume(data[0]).image.shape == (2, 12, 10, 8)
    refuse_unreadable_volumes(data)


def test_nnunet_faults(tmp_path: Path) -> None:
    further = nnunet(tmp_path / "a", 3) / "imagesTr" / "p2_0001.nii.gz"
    further.unlink()
    assert "p2_0002.nii.gz: comes where channel 0001 is missing; add" in refused(tmp_path / "a")
    further.with_name("p2_0002.nii.gz").unlink()
    assert "p2_0000.nii.gz: has 1 channel files, p1 has 3; give every case" in refused(tmp_path / "a")
    (nnunet(tmp_path / "b") / "imagesTr" / "p1_0000.nii.gz").unlink()
    assert "p1_0001.nii.gz: has no channel 0000 beside it; add" in refused(tmp_path / "b")
    for name in ("case", "case_0", "case_one"):
        path = put_nifti(nnunet(tmp_path / "c") / "imagesTr" / f"{name}.nii.gz", grey())
        assert refused(tmp_path / "c").startswith(f"{path}: does not end in a channel number")
        path.unlink()
    assert "has none of the lists that la2018 is split by; add" in refused(nnunet(tmp_path / "d"), preset="la2018")


def _absent(root: Path) -> str:
    put_list(root / "train.list", "c", "zz")
    return f"{root}/train.list: line 2 names 'zz', but {root} holds none of zz.h5, data/zz.h5"


def _twice(root: Path) -> str:
    put_list(root / "train.list", "c", "a", "c.h5")
    return f"{root}/train.list: line 3 names 'c' again; keep"


def _in_two_parts(root: Path) -> str:
    put_list(root / "test.list", "t", "a")
    return f"{root}/test.list: line 2 names 'a', which is in train.list too (line 2); leave"


def _in_labelled_and_unlabelled(root: Path) -> str:
    put_list(root / "labelled.list", "c", "a")
    put_list(root / "unlabelled.list", "b", "a")
    return f"{root}/unlabelled.list: line 2 names 'a', which is in labelled.list too (line 2); leave"


def _labelled_but_not_trained_on(root: Path) -> str:
    put_list(root / "labelled.list", "c", "t")
    return f"{root}/labelled.list: line 2 names 't', which is not in train.list; add it there"


def _labelled_without_a_label(root: Path) -> str:
    put_list(root / "labelled.list", "c", "a")
    put_h5(root / "a" / "mri_norm2.h5", image=grey())
    return f"{root}/labelled.list: line 2 names 'a' as labelled, but there is no label for {root}/a/mri_norm2.h5; add"


def _empty_list(root: Path) -> str:
    (root / "test.list").write_text("\n \n")
    return f"{root}/test.list: is empty; name one volume a line"


def _no_text(root: Path) -> str:
    (root / "test.list").write_bytes(b"\xff\xfe\xfa")
    return f"{root}/test.list: is not text in UTF-8; save"


def _outside(root: Path) -> str:
    put_h5(root.parent / "x.h5")
    put_list(root / "train.list", "../x")
    return f"{root}/train.list: names '../x.h5', which lies outside its folder; use"


def _absolute(root: Path) -> str:
    put_list(root / "train.list", "/etc/x")
    return f"{root}/train.list: names '/etc/x.h5', which lies outside its folder; use"


def _two_files(root: Path) -> str:
    put_h5(root / "a" / "mri_norm3.h5")
    return f"{root}/a: holds 2 files *.h5, of which one may be 'a'; leave one, or name a preset"


def _damaged(root: Path) -> str:
    (root / "b" / "mri_norm2.h5").write_text("x")
    return f"{root}/b/mri_norm2.h5: is not a readable HDF5 file, or damaged; replace"


def _values(root: Path) -> str:
    put_h5(root / "c" / "mri_norm2.h5", image=grey(), label=blob(value=7))
    return f"{root}/c/mri_norm2.h5: holds the values 0, 7 (0, 1, 7 in all masks together), which are not labels; state"


FAULTS: list[Callable[[Path], str]] = [
    *(_absent, _twice, _in_two_parts, _in_labelled_and_unlabelled, _labelled_but_not_trained_on),
    *(_labelled_without_a_label, _empty_list, _no_text, _outside, _absolute, _two_files, _damaged, _values),
]


@pytest.mark.parametrize("spoil", FAULTS)
def test_faults_are_one_line_with_file_and_remedy(tmp_path: Path, spoil: Callable[[Path], str]) -> None:
    root = listed(tmp_path / "set")
    line = spoil(root)
    assert refused(root).startswith(line)


def test_labels_of_a_part_that_is_left_out_are_not_opened(tmp_path: Path) -> None:
    """A class that the test part alone shows is none, and its label file may be anything."""
    root = listed(tmp_path / "LA")
    (root / "t" / "mri_norm2.h5").write_bytes(b"no h5 file")
    with pytest.raises(InputError, match="mri_norm2"):
        read_volumes(root)
    label = blob()
    label[0, 0, 0] = 2
    put_h5(root / "t" / "mri_norm2.h5", image=grey(), label=label)
    assert len(read_volumes(root).classes) == 3
    data = read_volumes(root, without=("test",))
    assert (data.ids, len(data.classes)) == (("c", "a", "b"), 2)
    with pytest.raises(InputError, match="left out"):
        read_volumes(root, without=("train", "val", "test"))


def test_faulty_lists_are_lists_of_volumes_where_no_pictures_lie_beside_them(tmp_path: Path) -> None:
    root = listed(tmp_path / "LA")
    put_list(root / "train.list", "c", "c")
    assert holds_volumes(root)
    put_list(root / "train.list", "gone")
    put_list(root / "test.list", "gone too")
    assert holds_volumes(root)
    (root / "images").mkdir()
    Image.new("L", (4, 4)).save(root / "images" / "gone.png")
    assert not holds_volumes(root)


def test_how_many_are_labelled(tmp_path: Path) -> None:
    root = listed(tmp_path)
    assert "has 3 labelled training volumes, not 4; ask for fewer" in refused(root, labelled=4)
    assert refused(root, labelled=0) == "labelled 0: teaches nothing; give 1 or more"
    assert "--mask-values: the label ids 0, 2 are not 0 to K-1" in refused(root, mask_values={0: 0, 1: 2})


def test_preset_names_its_files(tmp_path: Path) -> None:
    root = listed(tmp_path)
    line = refused(root, preset="pancreas-a")
    assert line == (
        f"{root}/train.list: line 1 names 'c', but {root} holds none of Pancreas_h5/c_norm.h5, c_norm.h5; "
        "add it (NIH Pancreas-CT as of github.com/ycwu1997/MC-Net; 62 training and 20 test volumes) or remove the line"
    )
    assert "preset heart: there is no such benchmark; choose one of la2018" in refused(root, preset="heart")


def test_folders_that_are_no_such_layout(tmp_path: Path) -> None:
    assert refused(tmp_path / "none").endswith("does not exist; give the folder that holds the volumes")
    assert f"{tmp_path}: holds no volumes; put NIfTI files into images/" in refused(tmp_path)
    assert not holds_volumes(tmp_path)
    assert not holds_volumes(tmp_path / "none")
    (tmp_path / "file").write_text("x")
    assert "is a file; give" in refused(tmp_path / "file")
    pictures = tmp_path / "pictures"
    (pictures / "images").mkdir(parents=True)
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(pictures / "images" / "a.png")
    assert not holds_volumes(pictures)
    put_list(pictures / "train.txt", "a")
    assert not holds_volumes(pictures)
    put_nifti(tmp_path / "two" / "images" / "a.nii", grey())
    put_nifti(tmp_path / "two" / "images" / "a.nii.gz", grey())
    assert "a.nii.gz: has the stem of a.nii; rename" in refused(tmp_path / "two")


@pytest.mark.realdata
def test_the_real_left_atria(real_data: Path) -> None:
    root = real_data / "left_atrium"
    assert holds_volumes(root)
    data = read_volumes(root, "la2018", labelled=4)
    train, test = (data.where(lambda record, part=part: record.split == part) for part in ("train", "test"))  # type: ignore[misc]
    assert (len(train), len(test)) == (16, 4)
    assert train.annotated.ids == tuple((root / "train.list").read_text().split()[:4])
    assert len(test.annotated) == 4
    assert read_volumes(root).mask_values == data.mask_values
    refuse_unreadable_volumes(train.annotated)
    preset = find_preset("la2018")
    made = VolumeSource(train, preset.preparation)[0]
    assert made.image.shape[3] == 88
    assert all(n >= m for n, m in zip(made.image.shape[1:], preset.patch, strict=True))
    assert made.label is not None
    assert 0.03 < made.label.mean() < 0.2
