"""Reader -> writer -> reader, for every layout and every kind of picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from morphogen.data.images import load_image
from morphogen.data.masks import load_mask
from morphogen.data.readers import read_dataset
from morphogen.data.records import Dataset
from morphogen.data.writers import WRITTEN, write_dataset
from morphogen.errors import InputError

RNG = np.random.default_rng(3)
KINDS = {
    "rgb": lambda: RNG.integers(0, 256, (9, 12, 3), dtype=np.uint8),
    "grey": lambda: RNG.integers(0, 256, (9, 12), dtype=np.uint8),
    "16-bit": lambda: RNG.integers(0, 65536, (9, 12)).astype(np.uint16),
    "float": lambda: RNG.normal(size=(9, 12)).astype(np.float32),
}


def source(root: Path, kind: str, labels: int) -> Dataset:
    """Four pairs with subjects, classes, captions and splits."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    rows = ["id,subject,class,caption,split"]
    for i, split in enumerate(("train", "train", "val", "test")):
        suffix = "tif" if kind == "float" else "png"
        Image.fromarray(KINDS[kind]()).save(root / "images" / f"p{i}.{suffix}")
        mask = np.arange(9 * 12).reshape(9, 12) % labels
        Image.fromarray((mask * (255 if labels == 2 else 1)).astype(np.uint8)).save(root / "masks" / f"p{i}.png")
        rows.append(f'p{i},s{i // 2},nevus,"a mole, dark",{split}')
    (root / "records.csv").write_text("\n".join(rows))
    if labels > 2:
        (root / "classes.txt").write_text("\n".join(["background", "polyp", "vessel", "scope"][:labels]))
    return read_dataset(root)


def same(first: Dataset, second: Dataset) -> None:
    assert first.ids == second.ids
    assert first.classes == second.classes
    for a, b in zip(first, second, strict=True):
        assert (a.subject, a.label, a.caption, a.split) == (b.subject, b.label, b.caption, b.split)
        assert load_image(a).dtype == load_image(b).dtype
        assert np.array_equal(load_image(a), load_image(b))
        assert np.array_equal(load_mask(a, first.mask_values), load_mask(b, second.mask_values))


@pytest.mark.parametrize("labels", [2, 4])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", WRITTEN)
def test_round_trip(tmp_path: Path, layout: str, kind: str, labels: int) -> None:
    data = source(tmp_path / "in", kind, labels)
    made = read_dataset(write_dataset(data, tmp_path / "out", layout), layout)
    same(data, made)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out"]


def test_nnunet_files_are_what_nnunet_reads(tmp_path: Path) -> None:
    out = write_dataset(source(tmp_path / "in", "rgb", 4), tmp_path / "Dataset003_Polyp", "nnunet")
    described = json.loads((out / "dataset.json").read_text())
    assert described == {
        "channel_names": {"0": "R", "1": "G", "2": "B"},
        "labels": {"background": 0, "polyp": 1, "vessel": 2, "scope": 3},
        "numTraining": 3,
        "file_ending": ".png",
    }
    assert sorted(p.name for p in (out / "imagesTr").iterdir()) == ["p0_0000.png", "p1_0000.png", "p2_0000.png"]
    assert sorted(p.name for p in (out / "labelsTs").iterdir()) == ["p3.png"]
    assert json.loads((out / "splits_final.json").read_text()) == [{"train": ["p0", "p1"], "val": ["p2"]}]
    assert np.array_equal(np.unique(np.array(Image.open(out / "labelsTr" / "p0.png"))), [0, 1, 2, 3])


def test_nnunet_binary_labels_are_consecutive(tmp_path: Path) -> None:
    out = write_dataset(source(tmp_path / "in", "grey", 2), tmp_path / "out", "nnunet")
    assert np.array_equal(np.unique(np.array(Image.open(out / "labelsTr" / "p0.png"))), [0, 1])
    assert json.loads((out / "dataset.json").read_text())["channel_names"] == {"0": "grey"}


def volumes(root: Path) -> Dataset:
    import nibabel

    affine = np.array([[0.0, 2, 0, 5], [-1.5, 0, 0, 6], [0, 0, 3, 7], [0, 0, 0, 1]])
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for case in ("c1", "c2"):
        image = RNG.integers(-500, 500, (7, 6, 5)).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(image, affine), root / "images" / f"{case}.nii")
        labels = (RNG.random((7, 6, 5)) < 0.3).astype(np.uint8) * 255
        nibabel.save(nibabel.Nifti1Image(labels, affine), root / "masks" / f"{case}.nii")
    return read_dataset(root)


@pytest.mark.parametrize("layout", WRITTEN)
def test_volumes_round_trip(tmp_path: Path, layout: str) -> None:
    import nibabel

    data = volumes(tmp_path / "in")
    assert len(data) == 10
    out = write_dataset(data, tmp_path / "out", layout)
    same(data, read_dataset(out))
    if layout in ("folders", "nnunet"):
        before = nibabel.load(tmp_path / "in" / "images" / "c1.nii")
        image = "imagesTr/c1_0000.nii.gz" if layout == "nnunet" else "images/c1.nii.gz"
        mask = "labelsTr/c1.nii.gz" if layout == "nnunet" else "masks/c1.nii.gz"
        for after in (nibabel.load(out / image), nibabel.load(out / mask)):
            assert np.array_equal(after.affine, before.affine)
        assert nibabel.load(out / image).get_data_dtype() == np.int16
        assert set(np.unique(nibabel.load(out / mask).dataobj)) == {0, 1}


def test_parts_of_a_volume_are_not_written_as_volumes(tmp_path: Path) -> None:
    data = volumes(tmp_path / "in")
    with pytest.raises(InputError, match="only 2 of its slices"):
        write_dataset(data.select(data.ids[:2]), tmp_path / "out", "nnunet")
    assert len(read_dataset(write_dataset(data.select(data.ids[:2]), tmp_path / "out", "imagefolder"))) == 2


def test_provenance_and_exif(tmp_path: Path) -> None:
    data = source(tmp_path / "in", "rgb", 2)
    (tmp_path / "in" / "manifest.jsonl").write_text('{"id": "p1", "seed": 3, "sha256": "00"}\n')
    exif = Image.Exif()
    exif[0x010E] = "a name"
    Image.open(data[0].image).save(data[0].image, exif=exif)
    made = read_dataset(write_dataset(read_dataset(tmp_path / "in"), tmp_path / "out", "folders"))
    assert made[1].origin == {"id": "p1", "seed": 3}
    assert not Image.open(made[0].image).getexif()


def test_what_exists_is_left_alone(tmp_path: Path) -> None:
    data = source(tmp_path / "in", "grey", 2)
    out = tmp_path / "out"
    out.mkdir()
    (out / "other.txt").write_text("mine")
    with pytest.raises(InputError, match="holds something already; name a new or empty folder"):
        write_dataset(data, out, "folders")
    assert (out / "other.txt").read_text() == "mine"
    with pytest.raises(InputError, match="--to: 'coco' is none of"):
        write_dataset(data, tmp_path / "new", "coco")
    data[3].image.write_text("broken")
    with pytest.raises(InputError, match=r"p3\.png"):
        write_dataset(data, tmp_path / "new", "folders")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out"]


def test_nnunet_needs_masks(tmp_path: Path) -> None:
    data = source(tmp_path / "in", "grey", 2)
    data[0].mask.unlink()
    rest = read_dataset(tmp_path / "in", annotated_only=True)
    write_dataset(rest, tmp_path / "out", "nnunet")
    for mask in (tmp_path / "in" / "masks").iterdir():
        mask.unlink()
    (tmp_path / "in" / "masks").rmdir()
    with pytest.raises(InputError, match="nnU-Net"):
        write_dataset(read_dataset(tmp_path / "in"), tmp_path / "new", "nnunet")


def test_mixed_kinds(tmp_path: Path) -> None:
    data = source(tmp_path / "in", "rgb", 2)
    Image.fromarray(KINDS["16-bit"]()).save(data[0].image)
    Image.fromarray(KINDS["grey"]()).save(data[1].image)
    same(data, read_dataset(write_dataset(data, tmp_path / "out", "folders")))
    with pytest.raises(InputError, match=r"p0\.png: has more than 8 bits, others are RGB"):
        write_dataset(data, tmp_path / "nn", "nnunet")
    rest = data.select(["p1", "p2", "p3"])
    made = read_dataset(write_dataset(rest, tmp_path / "rest", "nnunet"))
    assert np.array_equal(load_image(made[0])[..., 1], load_image(data[1]))
