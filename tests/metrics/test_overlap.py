"""Overlap against scikit-learn-like independent statements: torchmetrics and a literal set count."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_f1_score, multiclass_jaccard_index

from morphogen.metrics.overlap import (
    class_counts,
    dice,
    dice_from_counts,
    iou,
    iou_from_counts,
    two_class_iou_from_counts,
)


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


def test_two_class_iou_matches_torchmetrics() -> None:
    rng = np.random.default_rng(2)
    for density in (0.05, 0.5, 0.9):
        pred, ref = rng.random((20, 31)) < density, rng.random((20, 31)) < density
        ours = two_class_iou_from_counts(class_counts(pred, ref, 2)[1], ref.size)
        masks = (torch.from_numpy(mask.astype(int)) for mask in (pred, ref))
        assert ours == pytest.approx(multiclass_jaccard_index(*masks, num_classes=2, average="macro").item(), rel=1e-6)


def test_two_class_iou_of_empty_and_full_masks() -> None:
    """torchmetrics leaves a class that neither mask has out of the mean; here it scores 1."""
    empty, full = torch.zeros(4, 4, dtype=torch.int64), torch.ones(4, 4, dtype=torch.int64)
    assert multiclass_jaccard_index(full, full, num_classes=2, average="macro") == 1
    for pred, ref, expected in ((empty, empty, 1), (full, full, 1), (empty, full, 0), (full, empty, 0)):
        counts = class_counts(pred.numpy(), ref.numpy(), 2)[1]
        assert two_class_iou_from_counts(counts, 16) == expected


def test_pooled_scores_are_those_of_all_pixels_at_once() -> None:
    rng = np.random.default_rng(3)
    pairs = [(rng.integers(0, 3, shape), rng.integers(0, 3, shape)) for shape in ((4, 5), (9, 2), (1, 7))]
    pooled = sum(class_counts(pred, ref, 3) for pred, ref in pairs)
    pred, ref = (torch.from_numpy(np.concatenate([pair[side].ravel() for pair in pairs])) for side in (0, 1))
    expected = multiclass_f1_score(pred, ref, num_classes=3, average="none").numpy()
    np.testing.assert_allclose(dice_from_counts(pooled), expected, rtol=1e-6)
    expected = multiclass_jaccard_index(pred, ref, num_classes=3, average="none").numpy()
    np.testing.assert_allclose(iou_from_counts(pooled), expected, rtol=1e-6)


def test_where_monai_differs_on_empty_masks() -> None:
    from monai.metrics import compute_dice, compute_iou

    empty, full = torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)
    for metric in (compute_dice, compute_iou):
        assert metric(empty, empty).isnan()  # we have 1
        assert metric(full, empty).isnan()  # we have 0: a false alarm is dropped from their mean
        assert metric(empty, full) == 0


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
    [
        (np.zeros((2, 2), int), np.zeros((2, 3), int)),
        (np.array([3]), np.array([0])),
        (np.array([0]), np.array([-1])),
        (np.array([0.7]), np.array([1])),
        (np.array([1]), np.array([np.nan])),
    ],
)
def test_refuses(pred: np.ndarray, ref: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"prediction is \(|labels run|is float64, no label map"):
        class_counts(pred, ref, 3)
