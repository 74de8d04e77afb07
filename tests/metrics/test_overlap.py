"""Overlap against scikit-learn-like independent statements: torchmetrics and a literal set count."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_f1_score, multiclass_jaccard_index

from morphogen.metrics.overlap import class_counts, dice, dice_from_counts, iou, iou_from_counts


@pytest.mark.parametrize("shape", [(17, 23), (7, 9, 11)])
def test_matches_torchmetrics_per_class(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    pred, ref = rng.integers(0, 4, shape), rng.integers(0, 4, shape)
    counts = class_counts(pred, ref, 4)
    a, b = torch.from_numpy(pred.ravel()), torch.from_numpy(ref.ravel())
    # Dice of one class is its F1 score
    expected = multiclass_f1_score(a, b, num_classes=4, average="none").numpy()
    np.testing.assert_allclose(dice_from_counts(counts), expected, rtol=1e-6)
    expected = multiclass_jaccard_index(a, b, num_classes=4, average="none").numpy()
    np.testing.assert_allclose(iou_from_counts(counts), expected, rtol=1e-6)


@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.floats(0, 1))
def test_binary_matches_sets_of_pixels(seed: int, density: float, other: float) -> None:
    rng = np.random.default_rng(seed)
    pred, ref = rng.random((6, 5)) < density, rng.random((6, 5)) < other
    a, b = set(np.flatnonzero(pred)), set(np.flatnonzero(ref))
    assert dice(pred, ref) == pytest.approx(2 * len(a & b) / (len(a) + len(b)) if a | b else 1)
    assert iou(pred, ref) == pytest.approx(len(a & b) / len(a | b) if a | b else 1)
    assert dice(pred, ref) == dice(ref, pred)
    assert dice(pred, ref) == pytest.approx(2 * iou(pred, ref) / (1 + iou(pred, ref)))


def test_empty_masks() -> None:
    empty, full = np.zeros((4, 4), int), np.ones((4, 4), int)
    assert (dice(empty, empty), iou(empty, empty)) == (1, 1)
    assert (dice(empty, full), iou(empty, full)) == (0, 0)
    assert (dice(full, empty), iou(full, empty)) == (0, 0)


def test_any_non_zero_value_is_foreground() -> None:
    assert dice(np.array([0, 255, 7]), np.array([0, 1, 1])) == 1


def test_counts() -> None:
    counts = class_counts(np.array([0, 1, 1, 2]), np.array([0, 1, 2, 2]), 4)
    assert counts.tolist() == [[1, 1, 1], [1, 2, 1], [1, 1, 2], [0, 0, 0]]


def test_small_dtypes_do_not_overflow() -> None:
    pred = np.full((20, 20), 40, dtype=np.uint8)
    assert class_counts(pred, pred, 50)[40].tolist() == [400, 400, 400]


@pytest.mark.parametrize(
    ("pred", "ref"),
    [(np.zeros((2, 2)), np.zeros((2, 3))), (np.array([3]), np.array([0])), (np.array([0]), np.array([-1]))],
)
def test_refuses(pred: np.ndarray, ref: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"prediction is|labels run"):
        class_counts(pred, ref, 3)
