"""Scores of classifiers against scikit-learn, torchmetrics, literal slow versions and closed forms."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morphogen.metrics import classification
from morphogen.metrics.classification import (
    METRICS,
    aucs,
    binary_auc,
    calibration_error,
    classification_scores,
    confusion_matrix,
    f1_scores,
    macro_f1,
    precisions,
    recalls,
    weighted_scores,
)

Set = tuple[np.ndarray, np.ndarray]


def drawn(seed: int, n: int = 60, k: int = 4, digits: int = 2) -> Set:
    """Probabilities (n, k), rounded so that ties occur, and class ids among which all k occur."""
    rng = np.random.default_rng(seed)
    truth = np.concatenate([np.arange(k), rng.integers(0, k, n - k)])
    logits = rng.normal(size=(n, k)) + 1.2 * np.eye(k)[truth]
    rounded = np.round(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), digits) + 1e-6
    return rounded / rounded.sum(axis=1, keepdims=True), truth


@pytest.mark.parametrize("k", [2, 3, 5])
@pytest.mark.parametrize("seed", range(4))
def test_equal_to_scikit_learn(seed: int, k: int) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    probabilities, truth = drawn(seed, k=k)
    found = classification_scores(probabilities, truth, [f"c{i}" for i in range(k)])
    predicted = probabilities.argmax(axis=1)
    area = (
        sklearn.roc_auc_score(truth, probabilities[:, 1])
        if k == 2
        else sklearn.roc_auc_score(truth, probabilities, multi_class="ovr", average="macro")
    )
    expected = {
        "accuracy": sklearn.accuracy_score(truth, predicted),
        "balanced_accuracy": sklearn.balanced_accuracy_score(truth, predicted),
        "macro_f1": sklearn.f1_score(truth, predicted, average="macro"),
        "auc": area,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    np.testing.assert_array_equal(found["confusion"], sklearn.confusion_matrix(truth, predicted))
    columns = sklearn.precision_recall_fscore_support(truth, predicted, labels=range(k), zero_division=np.nan)
    for column, values in zip(("precision", "recall", "f1", "n"), columns, strict=True):
        ours = [row[column] for row in found["per_class"].values()]
        np.testing.assert_allclose(np.array(ours, dtype=float), values, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_calibration_error_equals_torchmetrics(seed: int) -> None:
    import torch
    from torchmetrics.functional.classification import multiclass_calibration_error

    probabilities, truth = drawn(seed, n=200, digits=9)
    theirs = multiclass_calibration_error(torch.from_numpy(probabilities), torch.from_numpy(truth), 4, n_bins=15)
    assert calibration_error(probabilities, truth) == pytest.approx(float(theirs), abs=1e-6)


def test_calibration_error_equals_its_definition() -> None:
    probabilities, truth = drawn(7, n=150, k=3)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    total = 0.0
    for i in range(15):
        inside = [j for j in range(150) if i / 15 < confidence[j] <= (i + 1) / 15]
        if inside:
            gap = np.mean([right[j] for j in inside]) - np.mean([confidence[j] for j in inside])
            total += len(inside) / 150 * abs(gap)
    assert calibration_error(probabilities, truth) == pytest.approx(total, abs=1e-12)


def test_calibration_error_in_closed_form() -> None:
    sure = np.tile([1.0, 0.0], (4, 1))
    assert calibration_error(sure, np.array([0, 0, 0, 0])) == 0
    assert calibration_error(sure, np.array([0, 1, 1, 1])) == pytest.approx(0.75)
    # errors of one bin cancel, those of two do not
    assert calibration_error(np.tile([0.5, 0.5], (2, 1)), np.array([0, 1])) == pytest.approx(0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=30))
def test_auc_is_the_share_of_pairs_in_order_ties_half(rows: list[tuple[int, bool]]) -> None:
    scores, positive = np.array([s for s, _ in rows], dtype=float), np.array([p for _, p in rows])
    pairs = [(a, b) for a in scores[positive] for b in scores[~positive]]
    found = binary_auc(scores, positive)
    if not pairs:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(np.mean([1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs]))


def test_a_class_absent_from_the_truth() -> None:
    """Three classes: 1 is true and never predicted, 2 is predicted and never true, 3 is neither."""
    predicted, truth = np.array([0, 0, 2, 0]), np.array([0, 0, 0, 1])
    confusion = confusion_matrix(predicted, truth, 4)
    np.testing.assert_array_equal(recalls(confusion), [2 / 3, 0, np.nan, np.nan])
    np.testing.assert_array_equal(precisions(confusion), [2 / 3, np.nan, 0, np.nan])
    np.testing.assert_allclose(f1_scores(confusion), [2 / 3, 0, 0, np.nan])
    assert macro_f1(confusion) == pytest.approx(2 / 9)
    probabilities = 0.9 * np.eye(4)[predicted] + 0.025
    area = aucs(probabilities, truth)
    np.testing.assert_array_equal(np.isnan(area), [False, False, True, True])
    found = classification_scores(probabilities, truth, ["a", "b", "c", "d"])
    assert found["balanced_accuracy"] == pytest.approx(1 / 3)
    assert found["auc"] == pytest.approx(area[:2].mean())
    assert found["per_class"]["d"] == {"n": 0, "recall": None, "precision": None, "f1": None, "auc": None}
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_scikit_learn_leaves_out_the_same_classes() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    predicted, truth = np.array([0, 0, 2, 0]), np.array([0, 0, 0, 1])
    found = macro_f1(confusion_matrix(predicted, truth, 4))
    assert found == pytest.approx(sklearn.f1_score(truth, predicted, average="macro"))


def test_one_class_alone_in_the_truth_has_no_auc() -> None:
    found = classification_scores(np.array([[0.2, 0.8], [0.6, 0.4]]), np.array([1, 1]), ["a", "b"])
    assert found["auc"] is None
    assert (found["accuracy"], found["balanced_accuracy"]) == (0.5, 0.5)


def test_scores_and_their_names_agree() -> None:
    probabilities, truth = drawn(3)
    found = classification_scores(probabilities, truth, "abcd")
    assert {name: metric.score(probabilities, truth) for name, metric in METRICS.items()} == {
        name: found[name] for name in METRICS
    }
    assert found["n"] == 60


@pytest.mark.parametrize(
    ("shape", "truth"), [((0, 2), []), ((2, 2), [0, 2]), ((2, 2), [0, -1]), ((2, 3), [0, 1]), ((3, 2), [0, 1])]
)
def test_what_cannot_be_scored(shape: tuple[int, int], truth: list[int]) -> None:
    with pytest.raises(ValueError, match=r"expected|outside"):
        classification_scores(np.full(shape, 0.5), np.array(truth, dtype=np.int64), ["a", "b"])


@pytest.mark.parametrize("k", [2, 4])
def test_scores_of_resampled_sets_are_those_of_the_sets_written_out(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classification, "AT_ONCE", 100)  # in several parts
    probabilities, truth = drawn(1, n=30, k=k, digits=1)
    weights = np.random.default_rng(2).multinomial(12, np.full(30, 1 / 30), size=40)
    weights[0] = truth == 0  # a set of one class
    found = weighted_scores(probabilities, truth, weights)
    for d, counts in enumerate(weights):
        rows, classes = np.repeat(np.arange(30), counts), np.repeat(truth, counts)
        for name, metric in METRICS.items():
            expected = metric.score(probabilities[rows], classes)
            assert found[name][d] == pytest.approx(expected, abs=1e-12, nan_ok=True), name
        expected = recalls(confusion_matrix(probabilities[rows].argmax(axis=1), classes, k))
        np.testing.assert_allclose(found["recall"][d], expected, atol=1e-12)
    assert math.isnan(found["auc"][0])
