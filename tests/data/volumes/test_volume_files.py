"""Volumes from files, and every way in which a file can be wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest

from data.volumes.small_volumes import SHAPE, blob, grey, put_h5, put_nifti
from morphogen.data.records import Dataset, Record
from morphogen.data.volumes.check import refuse_unreadable_volumes
from morphogen.data.volumes.files import read_label, read_volume
from morphogen.errors import InputError

RULE = {0: 0, 1: 1}


def refused(work: Callable[[], object]) -> str:
    """The one line with which something fails."""
    with pytest.raises(InputError) as caught:
        work()
    line = str(caught.value)
    assert "\n" not in line
    assert "; " in line
    return line


def case(path: Path, **fields: object) -> Record:
    """An HDF5 record, its label in the same file."""
    return Record(path.stem, path, path, **fields)  # type: ignore[arg-type]


def test_hdf5(tmp_path: Path) -> None:
    path = put_h5(tmp_path / "a.h5")
    volume = read_volume(case(path))
    assert (volume.spacing, volume.affine, volume.shape) == (None, None, SHAPE)
    assert volume.image.dtype == np.float32
    assert np.array_equal(volume.image[0], grey())
    label = read_label(case(path), RULE)
    assert label.dtype == np.int64
    assert np.array_equal(label, blob())


def test_axes_are_put_in_order(tmp_path: Path) -> None:
    record = case(put_h5(tmp_path / "a.h5"), axes=(1, 2, 0))
    assert np.array_equal(read_volume(record).image[0], grey().transpose(1, 2, 0))
    assert np.array_equal(read_label(record, RULE), blob().transpose(1, 2, 0))


def test_nifti_with_channels_voxel_size_and_affine(tmp_path: Path) -> None:
    turned = np.array([[0, -3.0, 0, 5], [2, 0, 0, 6], [0, 0, 1, 7], [0, 0, 0, 1]])
    images = [put_nifti(tmp_path / f"a_000{i}.nii.gz", grey(i), turned) for i in range(2)]
    mask = put_nifti(tmp_path / "a.nii", blob(), turned)
    record = Record("a", images[0], mask, channels=(images[1],))
    volume = read_volume(record)
    assert volume.image.shape == (2, *SHAPE)
    assert np.array_equal(volume.image[1], grey(1))
    assert volume.spacing == pytest.approx((2, 3, 1))
    assert volume.affine is not None
    assert np.allclose(volume.affine, turned)
    assert np.array_equal(read_label(record, RULE), blob())
    refuse_unreadable_volumes(Dataset("x", tmp_path, (record,), mask_values=RULE))


def test_a_single_frame_or_channel_is_a_volume(tmp_path: Path) -> None:
    nifti = put_nifti(tmp_path / "a.nii.gz", grey()[..., None])
    assert read_volume(Record("a", nifti)).image.shape == (1, *SHAPE)
    path = put_h5(tmp_path / "a.h5", image=grey()[None], label=blob()[..., None])
    assert read_volume(case(path)).image.shape == (1, *SHAPE)
    assert read_label(case(path), RULE).shape == SHAPE


def test_whole_numbers_stored_as_floats_are_labels(tmp_path: Path) -> None:
    path = put_h5(tmp_path / "a.h5", image=grey(), label=blob().astype(np.float32))
    assert np.array_equal(read_label(case(path), RULE), blob())


def _missing(path: Path) -> str:
    path.unlink()
    return "does not exist; restore"


def _text(path: Path) -> str:
    path.write_text("no file of that kind")
    return "is not a readable HDF5 file, or damaged; replace"


def _truncated(path: Path) -> str:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return "is not a readable HDF5 file, or damaged; replace"


def _damaged_inside(path: Path) -> str:
    content = bytearray(path.read_bytes())
    with h5py.File(path) as file:
        chunk = file["image"].id.get_chunk_info(0)
    content[chunk.byte_offset : chunk.byte_offset + 64] = b"\xff" * 64
    path.write_bytes(content)
    return "is not a readable HDF5 file, or damaged; replace"


def _no_image(path: Path) -> str:
    put_h5(path, img=grey(), label=blob())
    return "has no array named 'image' (it holds img, label); store the image under that name"


def _no_label(path: Path) -> str:
    put_h5(path, image=grey())
    return "has no array named 'label' (it holds image); store the label"


def _four_axes(path: Path) -> str:
    put_h5(path, image=np.stack([grey(), grey()]), label=blob())
    return "has 4 axes, (2, 12, 10, 8); give one 3D volume"


def _two_axes(path: Path) -> str:
    put_h5(path, image=grey()[0], label=blob()[0])
    return "has 2 axes, (10, 8); give one 3D volume"


def _empty(path: Path) -> str:
    with h5py.File(path, "w") as file:
        file["image"] = file["label"] = np.zeros((0, 4, 4))
    return "is empty, (0, 4, 4); replace"


def _huge(path: Path) -> str:
    with h5py.File(path, "w") as file:
        file.create_dataset("image", (4000, 4000, 4000), "f4", chunks=(8, 8, 8))
        file.create_dataset("label", (4000, 4000, 4000), "u1", chunks=(8, 8, 8))
    return "announces more than 600 million voxels; crop"


def _words(path: Path) -> str:
    with h5py.File(path, "w") as file:
        file["image"] = file["label"] = np.full((2, 2, 2), b"word")
    return "'image' holds |S4 values; store numbers"


def _group(path: Path) -> str:
    with h5py.File(path, "w") as file:
        file.create_group("image")
        file["label"] = blob()
    return "'image' is no array of this very file; store"


def _link_elsewhere(path: Path) -> str:
    put_h5(path.with_name("other.h5"))
    with h5py.File(path, "w") as file:
        file["image"] = h5py.ExternalLink("other.h5", "image")
        file["label"] = blob()
    return "'image' is no array of this very file; store"


def _nan(path: Path) -> str:
    image = grey()
    image[0, 0, :3] = np.nan, np.inf, -np.inf
    put_h5(path, image=image, label=blob())
    return "holds NaN or infinite values in 3 voxels; replace them"


def _other_shape(path: Path) -> str:
    put_h5(path, image=grey(), label=blob((12, 10, 7)))
    return "its label has the shape (12, 10, 7), the image (12, 10, 8); resample"


def _halves(path: Path) -> str:
    put_h5(path, image=grey(), label=blob() * 0.5)
    return "holds labels that are not whole numbers; save labels as integers"


def _nan_label(path: Path) -> str:
    put_h5(path, image=grey(), label=np.full(SHAPE, np.nan))
    return "holds NaN or infinite labels; save labels as integers"


def _no_rule(path: Path) -> str:
    put_h5(path, image=grey(), label=blob(value=3))
    return "holds the value 3, for which no label was decided; state"


FAULTS = [
    *(_missing, _text, _truncated, _damaged_inside, _no_image, _no_label, _four_axes, _two_axes, _empty, _huge, _words),
    *(_group, _link_elsewhere, _nan, _other_shape, _halves, _nan_label, _no_rule),
]


@pytest.mark.parametrize("spoil", FAULTS)
def test_hdf5_faults_are_one_line_with_file_and_remedy(tmp_path: Path, spoil: Callable[[Path], str]) -> None:
    good, path = put_h5(tmp_path / "a.h5"), put_h5(tmp_path / "b.h5")
    fault = spoil(path)
    data = Dataset("x", tmp_path, (case(good), case(path)), mask_values=RULE)
    assert refused(lambda: refuse_unreadable_volumes(data)).startswith(f"{path}: {fault}")


def test_nifti_faults(tmp_path: Path) -> None:
    image, mask = put_nifti(tmp_path / "a.nii.gz", grey()), put_nifti(tmp_path / "m.nii.gz", blob())

    def line(**fields: object) -> str:
        record = Record("a", image, mask, **fields)  # type: ignore[arg-type]
        return refused(lambda: refuse_unreadable_volumes(Dataset("x", tmp_path, (record,), mask_values=RULE)))

    put_nifti(mask, blob((12, 10, 7)))
    assert line().startswith(f"{mask}: has the shape (12, 10, 7), its image (12, 10, 8); resample")
    put_nifti(mask, blob(), np.diag([-1.0, 1, 2, 1]))  # a flip that would go unnoticed in the arrays
    assert line().startswith(f"{mask}: has other voxel sizes or directions than its image; resample")
    put_nifti(mask, blob(), np.diag([1.0, 1, 2.5, 1]))
    assert "has other voxel sizes" in line()
    put_nifti(mask, blob(), np.array([[1, 0, 0, 90], [0, 1, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1.0]]))
    refuse_unreadable_volumes(Dataset("x", tmp_path, (Record("a", image, mask),), mask_values=RULE))
    put_nifti(mask, blob() * np.float32(0.5))
    assert line().startswith(f"{mask}: holds labels that are not whole numbers")
    put_nifti(mask, blob())
    further = put_nifti(tmp_path / "b.nii.gz", grey(1, (12, 10, 7)))
    assert line(channels=(further,)).startswith(f"{further}: has the shape (12, 10, 7), the first channel (12, 10, 8)")
    put_nifti(further, grey(1), np.diag([1.0, -1, 2, 1]))
    assert line(channels=(further,)).startswith(
        f"{further}: has other voxel sizes or directions than the first channel"
    )
    put_nifti(image, np.stack([grey(), grey()], -1))
    assert line().startswith(f"{image}: has 4 axes; give one 3D volume")
    image.write_bytes(image.read_bytes()[:200])
    assert line().startswith(f"{image}: ")
    coloured = np.zeros(SHAPE, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    nibabel.save(nibabel.Nifti1Image(coloured, np.eye(4)), image)
    put_nifti(mask, blob(), np.eye(4))
    assert line().startswith(f"{image}: does not hold one number a voxel")


def test_volumes_that_do_not_go_together(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one, two = put_nifti(tmp_path / "a.nii", grey()), put_nifti(tmp_path / "b.nii", grey(1))
    records = (Record("a", one), Record("b", two, channels=(one,)))
    line = refused(lambda: refuse_unreadable_volumes(Dataset("x", tmp_path, records), foreground=False))
    assert line.startswith(f"{two}: has 2 channels, a.nii has 1; give every volume the same")
    empty = case(put_h5(tmp_path / "e.h5", image=grey(), label=blob() * 0), split="train")
    test = case(put_h5(tmp_path / "f.h5"), split="test")  # what only a test volume shows is not learned
    data = Dataset("x", tmp_path, (empty, test), mask_values=RULE)
    assert refused(lambda: refuse_unreadable_volumes(data)) == (
        f"{tmp_path}: has no foreground in any label; check the labels, or state --mask-values"
    )
    refuse_unreadable_volumes(data, foreground=False)
    classes, rule = ("background", "left", "right"), {0: 0, 1: 1, 2: 2}
    full = case(put_h5(tmp_path / "g.h5"), split="train")
    refuse_unreadable_volumes(Dataset("x", tmp_path, (empty, full), classes, rule))
    assert "shows no right in any label that is trained on; label more volumes" in caplog.text
    wide = Dataset("x", tmp_path, (full,), ("background",), RULE)
    assert f"{full.image}: holds the label 1, the classes are background" in refused(
        lambda: refuse_unreadable_volumes(wide)
    )


def test_an_unlabelled_volume_has_no_label_to_read(tmp_path: Path) -> None:
    record = Record("a", put_h5(tmp_path / "a.h5", image=grey()))
    assert refused(lambda: read_label(record, RULE)) == f"{record.image}: has no label; use the labelled volumes only"
    refuse_unreadable_volumes(Dataset("x", tmp_path, (record,)), foreground=False)
