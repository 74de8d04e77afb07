"""Scores of volumes against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from morphogen.metrics.volumes import DISTANCES, OVERLAPS, score_volume

SPACING = (0.5, 1.25, 3.0)


def box(start: tuple[int, int, int], size: tuple[int, int, int] = (10, 8, 6), label: int = 1) -> np.ndarray:
    volume = np.zeros((30, 28, 26), np.int64)
    volume[tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))] = label
    return volume


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("d", [1, 3])
def test_a_box_that_is_shifted_along_an_axis(axis: int, d: int) -> None:
    """Overlaps follow from the part that is shared, the largest distances are the shift."""
    ref, size = box((6, 6, 6)), (10, 8, 6)[axis]
    scores = score_volume(np.roll(ref, d, axis=axis), ref, 2, SPACING).image
    assert scores["dice"] == pytest.approx((size - d) / size)
    assert scores["iou"] == pytest.approx((size - d) / (size + d))
    assert scores["hd95"] == scores["hd95_pooled"] == d
    assert scores["hd95_mm"] == scores["hd95_pooled_mm"] == pytest.approx(d * SPACING[axis])
    assert scores["asd"] == pytest.approx(scores["assd"])  # each is the other's mirror image
    assert 0 < scores["asd"] < d


def test_boxes_that_do_not_touch_in_anisotropic_voxels() -> None:
    """Two plates of one voxel, d apart: each surface voxel lies d from the other."""
    for axis, step in enumerate(SPACING):
        size = tuple(1 if a == axis else 8 for a in range(3))
        ref = box((5, 5, 5), size)  # type: ignore[arg-type]
        scores = score_volume(np.roll(ref, 7, axis=axis), ref, 2, SPACING).image
        for name in DISTANCES:
            assert scores[name] == pytest.approx(7)
            assert scores[f"{name}_mm"] == pytest.approx(7 * step)


def test_asd_is_of_one_direction() -> None:
    """A voxel inside a rod: it lies on it, the rod's ends lie away from it."""
    ref = box((4, 5, 5), (9, 1, 1))
    scores = score_volume(box((8, 5, 5), (1, 1, 1)), ref, 2, SPACING).image
    assert scores["asd"] == scores["asd_mm"] == 0
    assert scores["assd"] == pytest.approx(2 * (1 + 2 + 3 + 4) / 10)
    assert scores["assd_mm"] == pytest.approx(0.5 * scores["assd"])


def test_every_class_is_one_against_the_rest_and_empty_ones_are_seen() -> None:
    ref, pred = box((2, 2, 2)) + box((15, 15, 15), label=2), box((2, 2, 2))
    scores = score_volume(pred, ref, 4, SPACING)
    assert scores.per_class["dice"].tolist() == [1, 0, 1]
    assert scores.one_empty.tolist() == [False, True, False]
    assert scores.both_empty.tolist() == [False, False, True]
    diagonal, in_mm = np.linalg.norm(ref.shape), np.linalg.norm(np.multiply(ref.shape, SPACING))
    for name in DISTANCES:
        assert scores.per_class[name].tolist() == [0, diagonal, 0]
        assert scores.per_class[f"{name}_mm"].tolist() == [0, in_mm, 0]


def test_without_a_voxel_size_there_are_no_mm() -> None:
    ref = box((6, 6, 6))
    assert [*score_volume(ref, ref).per_class] == [*OVERLAPS, *DISTANCES]


def test_wrong_arguments() -> None:
    ref = box((6, 6, 6))
    with pytest.raises(ValueError, match="the prediction is"):
        score_volume(ref[1:], ref)
    with pytest.raises(ValueError, match="labels run from 0 to 1, expected 0 to 0"):
        score_volume(ref, ref, 1)
    with pytest.raises(ValueError, match="the spacing has 2 numbers"):
        score_volume(ref, ref, 2, (1, 1))
