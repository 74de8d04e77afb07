"""Every layout, and every way in which a folder can be wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from morphogen.data.images import load_image
from morphogen.data.join import join
from morphogen.data.masks import load_mask
from morphogen.data.readers import read_dataset
from morphogen.errors import InputError

RNG = np.random.default_rng(2)


def put(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def pairs(root: Path, n: int = 4, value: int = 255) -> Path:
    """A folder of n pairs named a, b, c, ..."""
    for name in "abcdefgh"[:n]:
        put(root / "images" / f"{name}.png", RNG.integers(0, 256, (8, 10, 3), dtype=np.uint8))
        put(root / "masks" / f"{name}.png", (RNG.random((8, 10)) < 0.4).astype(np.uint8) * value)
    return root


def refused(root: Path, **options: object) -> str:
    """The one line with which reading fails."""
    with pytest.raises(InputError) as caught:
        read_dataset(root, **options)
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_folders_with_a_table_and_captions(tmp_path: Path) -> None:
    root = pairs(tmp_path / "set")
    (root / "records.csv").write_text(
        "id,age,subject,class,caption,split\nb,9,s1,nevus,a mole,test\na,3,s2,,,Training\n"
    )
    (root / "images" / "c.txt").write_text("a polyp\n")
    (root / "images" / ".DS_Store").write_text("x")
    data = read_dataset(root)
    assert data.ids == ("a", "b", "c", "d")
    assert (data.name, data.root, data.mask_values) == ("set", root, {0: 0, 255: 1})
    assert [r.subject for r in data] == ["s2", "s1", None, None]
    assert (data[1].label, data[1].caption, data[1].split) == ("nevus", "a mole", "test")
    assert (data[0].split, data[2].caption, data[3].caption) == ("train", "a polyp", None)
    assert load_mask(data[0], data.mask_values).max() == 1


def test_images_alone_are_unannotated(tmp_path: Path) -> None:
    pairs(tmp_path / "a", 2)
    for mask in (tmp_path / "a" / "masks").iterdir():
        mask.unlink()
    (tmp_path / "a" / "masks").rmdir()
    data = read_dataset(tmp_path / "a")
    assert [r.mask for r in data] == [None, None]
    assert read_dataset(tmp_path / "a" / "images").ids == data.ids
    assert "holds no image with a mask" in refused(tmp_path / "a", annotated_only=True)


def test_nnunet_pictures(tmp_path: Path) -> None:
    root = tmp_path / "Dataset001_Polyp"
    for case in ("p1", "p2"):
        put(root / "imagesTr" / f"{case}_0000.png", RNG.integers(0, 256, (8, 9), dtype=np.uint8))
        put(root / "labelsTr" / f"{case}.png", np.eye(8, 9, dtype=np.uint8))
    put(root / "imagesTs" / "t1_0000.png", RNG.integers(0, 256, (8, 9), dtype=np.uint8))
    described = {"labels": {"background": 0, "vessel": 2, "polyp": 1}, "file_ending": ".png"}
    (root / "dataset.json").write_text(json.dumps(described))
    data = read_dataset(root)
    assert data.ids == ("p1", "p2", "t1")
    assert data.classes == ("background", "polyp", "vessel")
    assert [r.split for r in data] == [None, None, "test"]
    put(root / "labelsTs" / "t1.png", np.eye(8, 9, dtype=np.uint8))
    assert [r.split for r in read_dataset(root)] == ["train", "train", "test"]
    put(root / "imagesTr" / "p1_0001.png", RNG.integers(0, 256, (8, 9), dtype=np.uint8))
    assert "p1_0001.png: is a further channel of its case" in refused(root)


def test_nnunet_volumes_become_slices(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    root = tmp_path / "Dataset002_Atrium"
    volume = RNG.normal(size=(6, 5, 4)).astype(np.float32)
    labels = (volume > 0.5).astype(np.uint8)
    labels[..., 2] = 0
    for folder, name, values in (("imagesTr", "c_0000", volume), ("labelsTr", "c", labels)):
        (root / folder).mkdir(parents=True)
        nibabel.save(nibabel.Nifti1Image(values, np.diag([1, 2, 3, 1])), root / folder / f"{name}.nii.gz")
    (root / "dataset.json").write_text('{"labels": {"background": 0, "atrium": 1}, "file_ending": ".nii.gz"}')
    data = read_dataset(root)
    assert data.ids == ("c_z000", "c_z001", "c_z002", "c_z003")
    assert {r.subject for r in data} == {"c"}
    for i, record in enumerate(data):
        assert record.plane == (2, i)
        assert np.array_equal(load_image(record), volume[..., i])
        assert np.array_equal(load_mask(record, data.mask_values), labels[..., i])


def test_imagefolder_with_splits_and_both_names(tmp_path: Path) -> None:
    for part, key in (("train", "image_file_name"), ("test", "file_name")):
        pairs(tmp_path / part, 1)
        for kind in ("images", "masks"):
            (tmp_path / part / kind / "a.png").rename(tmp_path / part / kind / f"{part}1.png")
        row = {key: f"images/{part}1.png", "mask_file_name": f"masks/{part}1.png", "text": part}
        (tmp_path / part / "metadata.jsonl").write_text(json.dumps(row) + "\n\n")
    data = read_dataset(tmp_path)
    assert [(r.id, r.split, r.caption) for r in data] == [("test1", "test", "test"), ("train1", "train", "train")]


def test_prompt_json(tmp_path: Path) -> None:
    root = pairs(tmp_path, 2)
    rows = [{"source": f"masks/{n}.png", "target": f"images/{n}.png", "prompt": "a polyp"} for n in "ab"]
    (root / "prompt.json").write_text("\n".join(map(json.dumps, rows)))
    data = read_dataset(root)
    assert [(r.id, r.caption) for r in data] == [("a", "a polyp"), ("b", "a polyp")]
    assert data.annotated.ids == ("a", "b")


@pytest.mark.parametrize("name", ["../x.png", "/etc/x.png", "masks/../../x.png", "..\\x.png", "", 3])
def test_paths_that_leave_the_folder_are_refused(tmp_path: Path, name: object) -> None:
    root = pairs(tmp_path / "set", 1)
    put(tmp_path / "x.png", np.zeros((8, 10), np.uint8))
    (root / "prompt.json").write_text(json.dumps({"source": name, "target": "images/a.png", "prompt": ""}))
    assert refused(root).startswith(f"{root / 'prompt.json'}: ")
    (root / "prompt.json").unlink()
    (root / "metadata.jsonl").write_text(json.dumps({"file_name": name}))
    assert refused(root).startswith(f"{root / 'metadata.jsonl'}: ")


@pytest.mark.parametrize(
    ("row", "caption"),
    [
        ({"prompt": "a polyp", "origin": {"prompt": "a polyp"}}, "a polyp"),
        ({"prompt": None, "origin": {"prompt": "a large polyp"}}, "a large polyp"),  # of an older folder
        ({"prompt": "", "origin": {"prompt": ""}}, None),
        ({"prompt": None, "origin": "lab"}, None),
        ({}, None),
    ],
)
def test_the_caption_of_a_synthetic_image_is_what_it_was_painted_with(
    row: dict[str, object], caption: str | None, tmp_path: Path
) -> None:
    made = pairs(tmp_path / "made", 3)
    (made / "manifest.jsonl").write_text(json.dumps({"id": "a", **row}) + "\n")
    assert read_dataset(made)[0].caption == caption


def test_a_synthetic_folder_keeps_its_provenance_and_joins_a_real_one(tmp_path: Path) -> None:
    real, made = pairs(tmp_path / "real", 2, value=1), pairs(tmp_path / "made", 3)
    for kind in ("images", "masks"):
        for file in list((made / kind).iterdir()):
            file.rename(file.with_name(f"s{file.name}"))
    row = {"id": "sa", "seed": 5, "source": "a", "prompt": "a polyp"}
    (made / "manifest.jsonl").write_text(json.dumps(row) + "\n")
    synthetic = read_dataset(made)
    assert synthetic[0].origin == row
    assert synthetic[0].caption == "a polyp"
    assert synthetic[1].origin is None
    both = join(read_dataset(real), synthetic)
    assert both.ids == ("a", "b", "sa", "sb", "sc")
    assert both.mask_values == {0: 0, 1: 1, 255: 1}
    for record in both:
        assert set(np.unique(load_mask(record, both.mask_values))) <= {0, 1}
    with pytest.raises(InputError, match="occurs twice"):
        join(synthetic, synthetic)
    with pytest.raises(InputError, match="another label"):
        join(synthetic, read_dataset(made, mask_values={0: 1, 255: 0}))


def _no_mask(root: Path) -> str:
    (root / "masks" / "b.png").unlink()
    return f"{root}/images/b.png: has no mask in masks/; add masks/b.png"


def _other_size(root: Path) -> str:
    put(root / "masks" / "c.png", np.zeros((8, 11), np.uint8))
    return f"{root}/masks/c.png: is 11 x 8 pixels, its image 10 x 8; resize"


def _text(root: Path) -> str:
    (root / "images" / "a.png").write_text("not a picture")
    return f"{root}/images/a.png: is not a PNG, JPEG, TIFF or BMP image"


def _values(root: Path) -> str:
    mask = np.zeros((8, 10), np.uint8)
    mask[0, :2] = 7, 255
    put(root / "masks" / "d.png", mask)
    return f"{root}/masks/d.png: holds the values 0, 7, 255, which are not labels; state the rule with --mask-values"


def _unknown_ids(root: Path) -> str:
    (root / "records.csv").write_text("id,subject\na,1\nzz,2\n")
    return f"{root}/records.csv: names the unknown id 'zz'; correct"


def _ids_twice(root: Path) -> str:
    (root / "records.csv").write_text("id,subject\na,1\na,2\n")
    return f"{root}/records.csv: names the id 'a' twice"


def _bad_split(root: Path) -> str:
    (root / "records.csv").write_text("id,split\na,holdout\n")
    return f"{root}/records.csv: puts 'a' into the split 'holdout'; write train, val, test"


def _no_id_column(root: Path) -> str:
    (root / "records.csv").write_text("name\na\n")
    return f"{root}/records.csv: has no column named id"


def _same_stem(root: Path) -> str:
    put(root / "images" / "a.bmp", np.zeros((8, 10), np.uint8))
    return f"{root}/images/a.png: has the stem of a.bmp"


def _empty_masks_folder(root: Path) -> str:
    for mask in (root / "masks").iterdir():
        mask.unlink()
    return f"{root}/images/a.png: has no mask"


def _bad_json(root: Path) -> str:
    (root / "prompt.json").write_text('{"source": "masks/a.png", "target": "images/a.png"}\n[1]\n')
    return f"{root}/prompt.json: line 2 is not a JSON object"


def _missing_in_manifest(root: Path) -> str:
    (root / "metadata.jsonl").write_text('{"file_name": "images/zz.png"}\n')
    return f"{root}/images/zz.png: is named in metadata.jsonl but does not exist"


def _some_without_mask(root: Path) -> str:
    rows = ['{"file_name": "images/a.png", "mask_file_name": "masks/a.png"}', '{"file_name": "images/b.png"}']
    (root / "metadata.jsonl").write_text("\n".join(rows))
    return f"{root}/images/b.png: has no mask in metadata.jsonl"


FAULTS: list[Callable[[Path], str]] = [
    _no_mask,
    _other_size,
    _text,
    _values,
    _unknown_ids,
    _ids_twice,
    _bad_split,
    _no_id_column,
    _same_stem,
    _empty_masks_folder,
    _bad_json,
    _missing_in_manifest,
    _some_without_mask,
]


@pytest.mark.parametrize("spoil", FAULTS)
def test_faults_are_one_line_with_file_and_remedy(tmp_path: Path, spoil: Callable[[Path], str]) -> None:
    root = pairs(tmp_path / "set")
    line = spoil(root)
    assert refused(root).startswith(line)


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    assert (
        refused(tmp_path / "none") == f"{tmp_path}/none: does not exist; give the folder that holds images/ and masks/"
    )
    assert f"{tmp_path}: is empty; put images" in refused(tmp_path)
    (tmp_path / "images").mkdir()
    assert "holds no readable images" in refused(tmp_path)
    (tmp_path / "file.txt").write_text("x")
    assert "is a file" in refused(tmp_path / "file.txt")


def test_annotated_only_and_stated_layout(tmp_path: Path) -> None:
    root = pairs(tmp_path / "set")
    (root / "masks" / "b.png").unlink()
    assert read_dataset(root, annotated_only=True).ids == ("a", "c", "d")
    assert "is not in the layout nnunet; it looks like folders" in refused(root, layout="nnunet")
    assert "none of auto" in refused(root, layout="dicom")


def test_stated_mask_values_and_class_names(tmp_path: Path) -> None:
    root = pairs(tmp_path / "set", value=7)
    assert "which are not labels" in refused(root)
    assert read_dataset(root, mask_values={0: 0, 7: 1}).classes == ("background", "lesion")
    assert "does not cover" in refused(root, mask_values={0: 0, 9: 1})
    (pairs(root, value=1) / "classes.txt").write_text("wall\npolyp\nscope\n")
    data = read_dataset(root)
    assert data.classes == ("wall", "polyp", "scope")
    (root / "classes.txt").write_bytes("wall\nlésion\n".encode("latin-1"))
    line = refused(root)
    assert f"{root / 'classes.txt'}: is not text in UTF-8" in line
    assert "\n" not in line
    (root / "classes.txt").write_text("wall\npolyp\nscope\n")
    assert data.mask_values == {0: 0, 1: 1, 2: 2}


@pytest.mark.realdata
def test_the_real_sets(real_data: Path) -> None:
    counts = {"polyps/cvc_clinicdb": 612, "polyps/kvasir_seg": 900, "skin/isic2017": 1499, "skin/ph2": 200}
    for name, n in counts.items():
        data = read_dataset(real_data / name)
        assert len(data.annotated) == n
        assert data.mask_values == {0: 0, 255: 1}
    assert len({r.subject for r in read_dataset(real_data / "polyps/cvc_clinicdb")}) == 29
