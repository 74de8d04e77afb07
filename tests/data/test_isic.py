"""HAM10000 and ISIC 2018 as they are downloaded, and what may be wrong with such a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from morphogen.data.check import check_dataset
from morphogen.data.images import load_image
from morphogen.data.isic import DIAGNOSES
from morphogen.data.masks import load_mask
from morphogen.data.prompts import Grammar, caption, check_words, vocabulary
from morphogen.data.readers import find_layout, read_dataset
from morphogen.data.split import grouped_folds, make_splits
from morphogen.data.writers import write_dataset
from morphogen.errors import InputError

RNG = np.random.default_rng(6)
HAM_COLUMNS = "lesion_id,image_id,dx,dx_type,age,sex,localization"
CODES = "MEL,NV,BCC,AKIEC,BKL,DF,VASC"


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (9, 12, 3), dtype=np.uint8)).save(path)
    return path


def mask(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lesion = np.zeros((9, 12), np.uint8)
    lesion[2:7, 3:9] = 255
    Image.fromarray(lesion).save(path)
    return path


def name(i: int) -> str:
    return f"ISIC_{i:07d}"


def table(path: Path, header: str, rows: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join((header, *rows)) + "\n")
    return path


def ham(root: Path, lesions: int = 7, images: str = "HAM10000_images_part_{}") -> Path:
    """Two images a lesion, one in either part; every class in turn; image 1 has no mask."""
    codes, rows = list(DIAGNOSES), []
    for i in range(2 * lesions):
        picture(root / images.format(1 if i < lesions else 2) / f"{name(i)}.jpg")
        rows.append(f"HAM_{i % lesions:07d},{name(i)},{codes[i % lesions % 7]},histo,50.0,male,back")
        if i != 1:
            mask(root / "HAM10000_segmentations_lesion_tschandl" / f"{name(i)}_segmentation.png")
    table(root / "HAM10000_metadata.csv", HAM_COLUMNS, rows)
    return root


def one_hot(i: int, klass: int) -> str:
    return ",".join((name(i), *("1.0" if k == klass else "0.0" for k in range(7))))


def task_1(root: Path, part: str, ids: range, truth: bool = True) -> Path:
    for i in ids:
        picture(root / f"ISIC2018_Task1-2_{part}_Input" / f"{name(i)}.jpg")
        if truth:
            mask(root / f"ISIC2018_Task1_{part}_GroundTruth" / f"{name(i)}_segmentation.png")
    (root / f"ISIC2018_Task1-2_{part}_Input" / "ATTRIBUTION.txt").write_text("x")
    return root


def task_3(root: Path, part: str, ids: range) -> Path:
    for i in ids:
        picture(root / f"ISIC2018_Task3_{part}_Input" / f"{name(i)}.jpg")
    truth = f"ISIC2018_Task3_{part}_GroundTruth"
    table(root / truth / f"{truth}.csv", f"image,{CODES}", [one_hot(i, i % 7) for i in ids])
    return root


def groupings(root: Path, ids: range) -> Path:
    rows = [f"{name(i)},HAM_{i // 2:07d},histopathology" for i in ids]
    return table(root / "ISIC2018_Task3_Training_LesionGroupings.csv", "image,lesion_id,diagnosis confirm type", rows)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def refused(root: Path) -> str:
    """The one line with which reading fails."""
    with pytest.raises(InputError) as caught:
        read_dataset(root)
    line = str(caught.value)
    assert "\n" not in line
    assert str(root) in line
    return line


def test_ham10000(tmp_path: Path) -> None:
    data = read_dataset(ham(tmp_path / "ham"))
    assert find_layout(data.root) == "ham10000"
    assert data.ids == tuple(map(name, range(14)))
    assert [r.subject for r in data] == [f"HAM_{i % 7:07d}" for i in range(14)]
    assert [r.label for r in data] == [*DIAGNOSES.values()] * 2
    assert [i for i, r in enumerate(data) if r.mask is None] == [1]
    assert {r.split for r in data} == {None}
    assert (data.classes, data.mask_values) == (("background", "lesion"), {0: 0, 255: 1})
    assert load_image(data[0]).shape == (9, 12, 3)
    assert load_mask(data[0], data.mask_values).sum() == 30
    assert len(read_dataset(data.root, annotated_only=True)) == 13


@pytest.mark.parametrize("suffix", ["", ".tab"])
def test_ham10000_table_of_the_archive(tmp_path: Path, suffix: str) -> None:
    root = ham(tmp_path / "ham")
    expected = read_dataset(root).records
    written = root / "HAM10000_metadata.csv"
    rows = [[f'"{cell}"' for cell in line.split(",")] for line in written.read_text().splitlines()]
    text = "\n".join(("\t" if suffix else ",").join(row) for row in rows)
    (root / f"HAM10000_metadata{suffix}").write_text("\ufeff" + text)
    written.unlink()
    assert read_dataset(root).records == expected


def test_ham10000_in_other_folders(tmp_path: Path) -> None:
    root = ham(tmp_path / "ham", images="images")
    expected = [(r.id, r.mask and r.mask.name) for r in read_dataset(root)]
    (root / "HAM10000_segmentations_lesion_tschandl").rename(root / "outlines")
    assert [(r.id, r.mask and r.mask.name) for r in read_dataset(root)] == expected
    (root / "outlines").rename(root / "masks")
    for path in list((root / "masks").iterdir()):
        path.rename(path.with_name(path.name.replace("_segmentation", "")))
    assert sum(r.mask is not None for r in read_dataset(root)) == 13
    for path in [*(root / "images").iterdir(), *(root / "masks").iterdir()]:
        mixed = f"{path.stem}_segmentation.png" if path.suffix == ".png" else path.name
        path.rename(root / mixed)
    (root / "images").rmdir()
    assert [(r.id, r.mask and r.mask.name) for r in read_dataset(root)] == expected


def test_ham10000_with_its_folders_twice_in_lower_case(tmp_path: Path) -> None:
    root = ham(tmp_path / "ham")
    for part in (1, 2):
        for path in (root / f"HAM10000_images_part_{part}").iterdir():
            picture(root / f"ham10000_images_part_{part}" / path.name)
    assert {r.image.parent.name for r in read_dataset(root)} == {"HAM10000_images_part_1", "HAM10000_images_part_2"}


def test_ham10000_beside_folders_of_isic2018(tmp_path: Path) -> None:
    root = ham(tmp_path / "ham")
    expected = read_dataset(root).records
    assert read_dataset(task_1(root, "Training", range(50, 52))).records == expected


def test_images_and_rows_that_know_less(tmp_path: Path) -> None:
    root = ham(tmp_path / "ham")
    picture(root / "HAM10000_images_part_1" / "ISIC_9999999.jpg")
    edit(root / "HAM10000_metadata.csv", "HAM_0000000,ISIC_0000000,akiec", ",ISIC_0000000,")
    data = read_dataset(root)
    assert [(r.label, r.subject) for r in (data[0], data[14])] == [(None, None)] * 2
    (root / "records.csv").write_text("id,class,subject\nISIC_9999999,scar,p1\n")
    (root / "HAM10000_images_part_1" / "ISIC_0000000.txt").write_text("a mole\n")
    data = read_dataset(root)
    assert (data[14].label, data[14].subject, data[0].caption) == ("scar", "p1", "a mole")


def test_ham10000_knows_site_age_and_sex(tmp_path: Path) -> None:
    root = ham(tmp_path / "ham")
    edit(root / "HAM10000_metadata.csv", "histo,50.0,male,back", "consensus,,unknown,lower extremity")
    data, skin = read_dataset(root).records, Grammar.load("skin")
    assert [dict(r.facts) for r in data[:2]] == [
        {"site": "lower extremity"},
        {"site": "back", "age": "middle-aged", "sex": "male"},
    ]
    said = caption(skin, None, np.eye(12, dtype=np.int64), data[1].label, skin.known(data[1].facts))
    assert said.endswith("on the back of a middle-aged male")


def test_diagnoses_are_words_of_the_grammar() -> None:
    skin = Grammar.load("skin")
    assert set(DIAGNOSES.values()) <= set(skin.slots["label"].words)
    for label in DIAGNOSES.values():
        check_words(caption(skin, None, None, label), vocabulary())
    assert ",".join(code.upper() for code in sorted(DIAGNOSES)) == ",".join(sorted(CODES.split(",")))


HAM_FAULTS = {
    "unknown diagnosis": (",akiec,", ",wart,", "line 2 has the unknown diagnosis 'wart'; write one of akiec"),
    "absent image": ("ISIC_0000003", "ISIC_0000033", "line 5 names 'ISIC_0000033', whose image is not there (1 of 14"),
    "row twice": ("ISIC_0000003", "ISIC_0000002", "line 5 names 'ISIC_0000002' again (line 4); keep one"),
    "no column": ("lesion_id", "lesion", "has no column named lesion_id"),
}


@pytest.mark.parametrize("fault", HAM_FAULTS)
def test_faults_of_the_table(tmp_path: Path, fault: str) -> None:
    old, new, message = HAM_FAULTS[fault]
    root = ham(tmp_path / "ham")
    edit(root / "HAM10000_metadata.csv", old, new)
    assert f"HAM10000_metadata.csv: {message}" in refused(root)


def test_faults_of_the_files(tmp_path: Path) -> None:
    root = ham(tmp_path / "ham")
    folder = root / "HAM10000_segmentations_lesion_tschandl"
    alone = mask(folder / "ISIC_0000099_segmentation.png")
    assert f"{alone}: is a mask whose image is not there (1 of 14 masks)" in refused(root)
    alone.unlink()
    twice = picture(root / "HAM10000_images_part_2" / "ISIC_0000000.jpg")
    assert f"{twice}: has the id of HAM10000_images_part_1/ISIC_0000000.jpg" in refused(root)
    twice.unlink()
    twice = mask(root / "masks" / "ISIC_0000000.png")
    assert f"{twice}: has the id of {folder.name}/ISIC_0000000_segmentation.png" in refused(root)


def test_check_lists_all_faults(tmp_path: Path) -> None:
    root = ham(tmp_path / "ham")
    for old, new in ((",akiec,", ",wart,"), (",bcc,", ",boil,")):
        edit(root / "HAM10000_metadata.csv", old, new)
    (root / "HAM10000_images_part_2" / "ISIC_0000013.jpg").unlink()
    report = check_dataset(root)
    assert len(report.fatal) == 4  # two diagnoses, a row without its image, a mask without its image
    assert report.n == 13


def test_no_lesion_parts_in_a_split(tmp_path: Path) -> None:
    data = read_dataset(ham(tmp_path / "ham"))
    lesion = {r.id: r.subject for r in data}
    division = make_splits(data, seed=3)
    assert (division.kind, division.grouped_by, division.notes) == ("kfold", "subject", ())
    for fold in (*division.folds, *grouped_folds(data, 3, seed=1)):
        assert {lesion[i] for i in fold.train_ids}.isdisjoint({lesion[i] for i in fold.test_ids})
        assert sorted(fold.train_ids + fold.test_ids) == list(data.ids)


def test_isic2018_task_1(tmp_path: Path) -> None:
    root = task_1(tmp_path / "isic", "Training", range(4))
    task_1(root, "Validation", range(4, 6))
    assert [r.split for r in read_dataset(root)] == [None] * 6
    task_1(root, "Test", range(6, 8), truth=False)
    assert [r.split for r in read_dataset(root)] == [None] * 6 + ["test"] * 2
    task_1(root, "Test", range(6, 8))
    data = read_dataset(root)
    assert find_layout(root) == "isic2018"
    assert [r.split for r in data] == ["train"] * 4 + ["val"] * 2 + ["test"] * 2
    assert all(r.mask is not None and r.mask.stem == f"{r.id}_segmentation" for r in data)
    assert {(r.label, r.subject) for r in data} == {(None, None)}
    fold = make_splits(data).folds[0]
    assert (len(fold.train_ids), len(fold.val_ids), fold.test_ids) == (4, 2, (name(6), name(7)))


def test_isic2018_task_3(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = task_3(tmp_path / "isic", "Training", range(14))
    assert {r.subject for r in read_dataset(root)} == {None}
    assert "ISIC2018_Task3_Training_LesionGroupings.csv: is not there" in caplog.text
    groupings(root, range(14))
    caplog.clear()
    data = read_dataset(root)
    assert caplog.text == ""
    words = [DIAGNOSES[code.lower()] for code in CODES.split(",")]
    assert [r.label for r in data] == words * 2
    assert [r.subject for r in data] == [f"HAM_{i // 2:07d}" for i in range(14)]
    assert {(r.mask, r.split) for r in data} == {(None, None)}
    lesion = {r.id: r.subject for r in data}
    for fold in make_splits(data).folds:
        assert {lesion[i] for i in fold.train_ids}.isdisjoint({lesion[i] for i in fold.test_ids})


def test_isic2018_both_tasks_in_one_folder(tmp_path: Path) -> None:
    root = task_3(task_1(tmp_path / "isic", "Training", range(3)), "Training", range(2, 6))
    groupings(root, range(2, 6))
    truth = "ISIC2018_Task3_Test_GroundTruth"
    task_3(root, "Test", range(8, 9))
    (root / truth / f"{truth}.csv").rename(root / f"{truth}.csv")
    data = read_dataset(root)
    assert data.ids == tuple(map(name, (0, 1, 2, 3, 4, 5, 8)))
    assert [r.mask is not None for r in data] == [True] * 3 + [False] * 4
    assert [r.label is not None for r in data] == [False] * 2 + [True] * 5
    assert [r.split for r in data] == ["train"] * 6 + ["test"]
    assert (data[2].label, data[2].subject) == ("basal cell carcinoma", "HAM_0000001")
    assert data[2].image.parent.name == "ISIC2018_Task1-2_Training_Input"


def test_faults_of_isic2018(tmp_path: Path) -> None:
    root = task_3(task_1(tmp_path / "isic", "Training", range(3)), "Training", range(3, 6))
    groupings(root, range(3, 6))
    truth = root / "ISIC2018_Task3_Training_GroundTruth" / "ISIC2018_Task3_Training_GroundTruth.csv"
    good = truth.read_text()
    for cell in ("0.0", "x", ""):
        edit(truth, "1.0", cell)
        assert f"{truth}: line 2 (ISIC_0000003) does not mark one diagnosis" in refused(root)
        truth.write_text(good)
    edit(truth, "0.0", "1.0")
    assert "line 2 (ISIC_0000003) does not mark one diagnosis" in refused(root)
    truth.write_text(good.replace("VASC", "VASC,SCC"))
    assert f"{truth}: has the column 'SCC'" in refused(root)
    truth.write_text(good.replace("VASC", "VAS"))
    assert f"{truth}: has no column named VASC" in refused(root)
    truth.write_text(good + one_hot(77, 0) + "\n")
    assert f"{truth}: line 5 names 'ISIC_0000077', whose image is not there (1 of 4 lines)" in refused(root)
    truth.write_text(good)
    groupings(root, range(3, 8))
    assert "LesionGroupings.csv: line 5 names 'ISIC_0000006', whose image is not there (2 of 5 lines)" in refused(root)
    groupings(root, range(3, 6))
    both = picture(root / "ISIC2018_Task1-2_Test_Input" / "ISIC_0000001.jpg")
    assert f"{both}: is in the train part too (ISIC2018_Task1-2_Training_Input)" in refused(root)
    both.unlink()
    mask(root / "ISIC2018_Task1_Test_GroundTruth" / "ISIC_0000050_segmentation.png")
    assert "ISIC_0000050_segmentation.png: is a mask whose image is not there (1 of 1 masks)" in refused(root)


def test_converted_to_a_general_layout(tmp_path: Path) -> None:
    data = read_dataset(ham(tmp_path / "ham"), annotated_only=True)
    made = read_dataset(write_dataset(data, tmp_path / "out", "folders"))
    assert [(r.id, r.label, r.subject) for r in made] == [(r.id, r.label, r.subject) for r in data]
    with pytest.raises(InputError, match="--to: 'ham10000' is none of folders"):
        write_dataset(data, tmp_path / "again", "ham10000")
