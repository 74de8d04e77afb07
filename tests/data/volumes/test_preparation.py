"""Preparation of volumes: intensities, geometry there and back."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from data.volumes.small_volumes import SHAPE, blob, grey, put_h5, put_nifti
from morphogen.data.records import Dataset, Record
from morphogen.data.volumes.files import Volume, read_label, read_volume
from morphogen.data.volumes.preparation import Preparation, prepare
from morphogen.data.volumes.sources import VolumeSource
from morphogen.errors import InputError

AS_IT_IS = Preparation(normalise="none", reorient=False)
PLAIN = np.diag([1.0, 1, 1, 1])


def volume(image: np.ndarray, affine: np.ndarray | None = None) -> Volume:
    """Of one channel; with an affine it has a voxel size."""
    sizes = None if affine is None else tuple(np.linalg.norm(affine[:3, :3], axis=0))
    return Volume(image[None].astype(np.float32), sizes, affine)  # type: ignore[arg-type]


def one_hot(label: np.ndarray, n: int = 2) -> np.ndarray:
    """(n, X, Y, Z) float32."""
    return np.stack([label == k for k in range(n)]).astype(np.float32)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Of two masks."""
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


@pytest.mark.parametrize("normalise", ["zscore", "minmax"])
def test_the_volume_itself_stays_as_it_was(normalise: str) -> None:
    given = volume(grey())
    prepare(given, None, Preparation(normalise=normalise))  # type: ignore[arg-type]
    assert np.array_equal(given.image[0], grey())


def test_nothing_asked_for_is_nothing_done() -> None:
    made = prepare(volume(grey()), blob().astype(np.int64), AS_IT_IS)
    assert np.array_equal(made.image[0], grey())
    assert made.label is not None
    assert made.label.dtype == np.uint8
    assert np.array_equal(made.label, blob())
    maps = one_hot(blob())
    assert np.array_equal(made.restore(maps), maps)


def test_intensities() -> None:
    values = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE) - 100
    scaled = prepare(volume(values), None, Preparation()).image
    assert scaled.mean() == pytest.approx(0, abs=1e-5)
    assert scaled.std() == pytest.approx(1, rel=1e-5)
    windowed = prepare(volume(values), None, Preparation(window=(0, 200), normalise="none")).image[0]
    assert np.allclose(windowed, (values / 200).clip(0, 1))
    ranged = prepare(volume(values), None, Preparation(normalise="minmax")).image
    assert (ranged.min(), ranged.max()) == (0, 1)
    clipped = prepare(volume(values), None, Preparation(percentiles=(10, 90), normalise="none")).image
    assert clipped.min() == pytest.approx(np.percentile(values, 10))
    assert clipped.max() == pytest.approx(np.percentile(values, 90))
    for normalise in ("zscore", "minmax"):
        assert not prepare(volume(np.full(SHAPE, 7.0)), None, Preparation(normalise=normalise)).image.any()  # type: ignore[arg-type]
    two = Volume(np.stack([values, 5 * values + 3]), None, None)
    assert np.allclose(*prepare(two, None, Preparation()).image, atol=1e-5)


@pytest.mark.parametrize(
    ("stated", "wanted", "size"),
    [
        ((1.0, 1, 1), (2.0, 2, 2), (48, 40, 32)),
        ((1.0, 1, 1), (0.7, 0.7, 0.7), (137, 114, 91)),
        ((0.8, 0.8, 3), (1.0, 1, 1), (77, 64, 192)),
        ((1.0, 1, 1), (1.5, 1, 3), (64, 80, 21)),
    ],
)
def test_a_blob_survives_the_way_there_and_back(
    stated: tuple[float, ...], wanted: tuple[float, float, float], size: tuple[int, ...]
) -> None:
    label = blob((96, 80, 64))
    given = volume(label.astype(np.float32), np.diag([*stated, 1]))
    made = prepare(given, label.astype(np.int64), Preparation(spacing=wanted, normalise="none"))
    assert made.label is not None
    assert made.image.shape == (1, *size)
    assert made.label.shape == size
    assert made.spacing == pytest.approx([n * s / m for n, s, m in zip(label.shape, stated, size, strict=True)])
    back = made.restore(one_hot(made.label))
    assert back.shape == (2, *label.shape)
    assert back.dtype == np.float32
    assert np.allclose(back.sum(0), 1, atol=1e-5)
    assert dice(back.argmax(0) == 1, label == 1) > 0.97
    assert made.label.mean() == pytest.approx(label.mean(), rel=0.015)  # neither grown nor shrunk
    inside = made.image[0] > 0.5
    assert dice(inside, made.label == 1) > 0.95  # the image is resampled onto the same grid


def test_the_middle_of_mass_stays_where_it_is() -> None:
    label = np.zeros((40, 40, 20), np.int64)
    label[6:14, 20:30, 3:9] = 1
    made = prepare(volume(label, np.diag([1.0, 1, 2, 1])), label, Preparation(spacing=(1.6, 1.6, 1.6)))
    assert made.label is not None
    assert made.spacing is not None
    for part, size in ((label, (1.0, 1, 2)), (made.label, made.spacing)):
        middle = (np.argwhere(part).mean(0) + 0.5) * size
        assert np.allclose(middle, (10, 25, 12), atol=0.8)  # half a voxel


def test_equal_spacing_is_exactly_the_identity() -> None:
    given = volume(grey(), np.diag([1.0, 1, 2, 1]))
    made = prepare(given, blob().astype(np.int64), Preparation(spacing=(1.0, 1, 2), normalise="none"))
    assert np.array_equal(made.image, given.image)
    maps = np.random.default_rng(1).random((3, *SHAPE)).astype(np.float32)
    assert np.array_equal(made.restore(maps), maps)


def test_without_a_voxel_size_spacing_counts_in_voxels() -> None:
    made = prepare(volume(grey()), None, Preparation(spacing=(2.0, 1, 0.5)))
    assert made.image.shape == (1, 6, 10, 16)
    assert made.spacing is None


def test_made_smaller_without_aliases_and_without_a_dark_border() -> None:
    stripes = np.zeros((64, 64, 16), np.float32)
    stripes[::3] = 3  # above what a third of the voxels can carry
    small = prepare(volume(stripes), None, Preparation(spacing=(4.0, 4, 4), normalise="none")).image[0]
    assert small[2:-2].std() < 0.2 * np.abs(stripes[2::4] - stripes.mean()).mean()
    assert small.mean() == pytest.approx(stripes.mean(), rel=0.05)
    flat = prepare(volume(np.full(SHAPE, 5.0)), None, Preparation(spacing=(3.0, 3, 3), normalise="none")).image
    assert np.allclose(flat, 5, atol=1e-5)


def test_labels_keep_their_ids_and_thin_parts() -> None:
    label = np.zeros((24, 24, 24), np.int64)
    label[4:20, 4:20, 4:20] = 2
    label[10:12, 4:20, 4:20] = 5  # two voxels thick, one voxel after
    made = prepare(volume(label), label, Preparation(spacing=(2.0, 2, 2))).label
    assert made is not None
    assert set(np.unique(made)) == {0, 2, 5}
    assert (made[5, 2:10, 2:10] == 5).all()


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
def test_directions_are_made_equal_and_undone(axes: tuple[int, ...]) -> None:
    values = grey()
    for signs in itertools.product((1.0, -1.0), repeat=3):
        affine = np.eye(4)
        affine[:3, :3] = np.zeros((3, 3))
        for file_axis, body_axis in enumerate(axes):
            affine[body_axis, file_axis] = signs[file_axis] * (body_axis + 1)
        made = prepare(volume(values, affine), blob().astype(np.int64), Preparation(normalise="none"))
        assert made.spacing == pytest.approx((1, 2, 3))
        at = (3, 4, 5)  # a voxel of the file lies where its affine says
        where = [affine[body, axes.index(body)] * at[axes.index(body)] for body in range(3)]
        index = [
            round(mm / (body + 1)) + (0 if mm >= 0 else made.image.shape[1 + body] - 1) for body, mm in enumerate(where)
        ]
        assert made.image[0][tuple(index)] == values[at]
        assert made.label is not None
        assert made.label.shape == made.image.shape[1:]
        assert np.array_equal(made.restore(made.image), values[None])


def test_turned_and_resampled_together(tmp_path: Path) -> None:
    turned = np.array([[0, 0, 3.0, 0], [-1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    label = blob((40, 32, 14))
    image, mask = (
        put_nifti(tmp_path / "a.nii.gz", grey(0, label.shape), turned),
        put_nifti(tmp_path / "m.nii.gz", label, turned),
    )
    record = Record("a", image, mask)
    made = prepare(read_volume(record), read_label(record, {0: 0, 1: 1}), Preparation(spacing=(1.5, 1.5, 1.5)))
    assert made.image.shape == (1, 28, 27, 21)
    assert made.label is not None
    back = made.restore(one_hot(made.label))
    assert back.shape == (2, *label.shape)
    assert dice(back.argmax(0) == 1, label == 1) > 0.97


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"spacing": (1.0, 1.0)}, "spacing"),
        ({"spacing": (1.0, 0.0, 1.0)}, "spacing"),
        ({"spacing": (1.0, float("nan"), 1.0)}, "spacing"),
        ({"window": (5.0, 5.0)}, "window"),
        ({"percentiles": (-1.0, 99.0)}, "percentiles"),
        ({"percentiles": (99.0, 1.0)}, "percentiles"),
        ({"normalise": "rank"}, "normalise"),
    ],
)
def test_options_out_of_range(options: dict[str, object], named: str) -> None:
    with pytest.raises(InputError, match=f"^{named} .*: "):
        Preparation(**options)  # type: ignore[arg-type]


def test_options_as_json_brings_them_back() -> None:
    assert Preparation(spacing=[1, 1, 2], window=[0, 1]) == Preparation(spacing=(1, 1, 2), window=(0, 1))  # type: ignore[arg-type]


def test_a_source_reads_once_and_says_what_it_holds(tmp_path: Path) -> None:
    paths = [put_h5(tmp_path / f"{name}.h5") for name in "ab"]
    records = (Record("a", paths[0], paths[0]), Record("b", paths[1]))
    source = VolumeSource(Dataset("x", tmp_path, records, mask_values={0: 0, 1: 1}), AS_IT_IS)
    assert len(source) == 2
    first = source[0]
    paths[0].unlink()
    assert source[0] is first
    assert first.label is not None
    assert source[1].label is None
    assert source[-1] is source[1]
    with pytest.raises(IndexError):
        source[2]
    assert source.digest_rows == [[["a", True], ["b", False]], [None, None, "none", None, False]]
