"""Scores of a pair of label maps, and their summary."""

import numpy as np
import pytest
from scipy import stats

from morphogen.metrics.e_measure import e_measure
from morphogen.metrics.masks import ALL_METRICS, METRICS, score_masks
from morphogen.metrics.overlap import dice, iou
from morphogen.metrics.s_measure import s_measure
from morphogen.metrics.summary import bootstrap_ci95, intervals, summarise, summarise_maps
from morphogen.metrics.surface import asd, hd95
from morphogen.metrics.thresholds import CURVES, VALUES, MapScores


def test_each_class_is_scored_by_itself() -> None:
    rng = np.random.default_rng(0)
    pred, ref = rng.integers(0, 3, (20, 30)), rng.integers(0, 3, (20, 30))
    scores = score_masks(pred, ref, 3, (1.0, 2.0))
    for k in (1, 2):
        a, b = pred == k, ref == k
        expected = [dice(a, b), iou(a, b), hd95(a, b, (1, 2)), asd(a, b, (1, 2))]
        assert [scores.per_class[name][k - 1] for name in METRICS] == expected
    assert scores.image["dice"] == scores.per_class["dice"].mean()


def test_empty_classes_are_seen() -> None:
    pred, ref = np.zeros((3, 4), int), np.zeros((3, 4), int)
    pred[0, 0] = 1
    scores = score_masks(pred, ref, 3)
    assert scores.one_empty.tolist() == [True, False]
    assert scores.both_empty.tolist() == [False, True]
    assert scores.per_class["dice"].tolist() == [0, 1]
    assert scores.per_class["hd95"].tolist() == [5, 0]


def test_summary() -> None:
    one, two = np.zeros((4, 4), int), np.zeros((4, 4), int)
    one[:2], two[:1] = 1, 1
    scores = {"a": score_masks(one, one), "b": score_masks(two, one), "c": score_masks(one * 0, one * 0)}
    result = summarise(scores, ("background", "polyp"))
    assert result["n"] == 3
    metric = result["metrics"]["dice"]
    assert metric["per_image"] == {"a": 1.0, "b": pytest.approx(2 / 3), "c": 1.0}
    assert metric["mean"] == metric["per_class"]["polyp"] == pytest.approx(8 / 9)
    assert result["empty"] == {"polyp": {"both": 1, "one": 0}}


def test_bootstrap_interval_matches_scipy() -> None:
    values = np.random.default_rng(1).beta(5, 2, 40)
    low, high = bootstrap_ci95(values, draws=4000)  # type: ignore[misc]
    reference = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=4000, rng=2).confidence_interval
    width = reference.high - reference.low
    assert low == pytest.approx(reference.low, abs=0.08 * width)
    assert high == pytest.approx(reference.high, abs=0.08 * width)
    assert bootstrap_ci95(values) == bootstrap_ci95(values)
    assert bootstrap_ci95(values[:1]) is None


def test_intervals_of_several_metrics_are_those_of_each() -> None:
    table = np.random.default_rng(3).normal(size=(25, 4))
    for column, found in zip(table.T, intervals(table), strict=True):
        assert found == pytest.approx(bootstrap_ci95(column))
        literal = np.random.default_rng(0)
        means = [column[literal.integers(0, 25, 25)].mean() for _ in range(2000)]
        assert found == pytest.approx(np.percentile(means, [2.5, 97.5]))
    assert intervals(table[:1]) == [None] * 4


def test_the_best_threshold_is_that_of_the_mean_curve() -> None:
    """One image is best at threshold 10, the other at 20, both together at 15: the maximum is not that of each."""
    curves = np.full((2, 256), 0.1)
    curves[0, 10] = curves[1, 20] = 0.9
    curves[:, 15] = 0.6
    scores = {
        str(k): MapScores(dict.fromkeys(CURVES, curve), dict.fromkeys(VALUES, 0.5), False, 255, False)
        for k, curve in enumerate(curves)
    }
    found = summarise_maps(scores, "lesion")["metrics"]["dice_max"]
    assert found == {"mean": 0.6, "threshold": 15 / 255, "per_class": {"lesion": 0.6}}


def test_classes_that_are_absent_score_by_rule_in_every_metric() -> None:
    pred, ref = np.zeros((6, 7), int), np.zeros((6, 7), int)
    pred[1:3, 1:4], ref[1:3, 1:4] = 1, 1
    ref[4:, 4:] = 2
    scores = score_masks(pred, ref, 4, metrics=list(ALL_METRICS)).per_class
    diagonal = np.hypot(6, 7)
    for name in ("dice", "iou", "weighted_f", "surface_dice"):
        assert scores[name] == pytest.approx([1, 0, 1]), name
    for name in ("hd", "hd95", "hd95_pooled", "asd", "assd"):
        assert scores[name] == pytest.approx([0, diagonal, 0]), name
    assert scores["iou_two_class"] == pytest.approx([1, 36 / 42 / 2, 1])
    assert scores["mae"] == pytest.approx([0, 6 / 42, 0])
    for k in (1, 2, 3):
        assert scores["s_measure"][k - 1] == s_measure(pred == k, ref == k)
        assert scores["e_measure"][k - 1] == e_measure(pred == k, ref == k)
