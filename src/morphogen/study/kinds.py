"""What a judge may be, a segmenter or a classifier, and how the rows of its cells become figures.

A segmenter has a score for every image, and what is estimated is their mean. A classifier has class probabilities for
every image, and its scores are those of whole sets (`morphogen.study.classified`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from morphogen.study import classified
from morphogen.study.classified import RECALL, Rows
from morphogen.study.stats import (
    Contrast,
    Estimate,
    Repetition,
    difference,
    estimate,
    mean_over_images,
    sign_flip,
    subject_means,
)

RANGES = {"dice": (0.0, 1.0), "iou": (0.0, 1.0), "hd95": (0.0, math.inf)}
"""Dice and IoU in [0, 1], higher is better; HD95 in px of the native image, lower is better."""
LABELS = {
    "dice": "Dice",
    "iou": "IoU",
    "hd95": "HD95 (px at native size)",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "macro_f1": "Macro-F1",
    "auc": "AUC",
    "ece": "ECE",
}
LOWER = {"hd95": "HD95 in px at native size", "ece": "ECE"}
"""Metrics of which lower is better, in headings of differences."""


@dataclass(frozen=True)
class Kind:
    """One kind of judge.

    Attributes:
        name: ``segmentation`` or ``classification``.
        network: What the judge is: ``segmenter`` or ``classifier``.
        output: What it gives, as a place holder in a command.
        headline: The metric that a verdict rests on.
        noun: It in a sentence: ``mean Dice``.
        beside: Metrics that a verdict states beside it.
        reading: How its tables are to be read.
        others: The other metrics, in words.
        is_row: Whether a row of a cell has what the metrics need.
        estimates: What every run of an arm says -> metric -> estimate; ValueError where two runs share some of their
            images but not all.
        contrasts: What the matched runs of an arm and of its control say -> metric -> contrast.
    """

    name: str
    network: str
    output: str
    headline: str
    noun: str
    beside: tuple[str, ...]
    reading: str
    others: str
    is_row: Callable[[Mapping[str, Any]], bool]
    estimates: Callable[[Sequence[Rows]], dict[str, Estimate]]
    contrasts: Callable[[Sequence[Rows], Sequence[Rows]], dict[str, Contrast]]


def kind_of(judge: str) -> Kind:
    """The kind of a judge, by its name with any options; one that is not known is a segmenter."""
    from morphogen.classifiers import CLASSIFIERS

    return CLASSIFICATION if judge.partition("+")[0] in CLASSIFIERS else SEGMENTATION


def room_of(judge: str) -> Any:
    """The package of a judge's network; each has `named`, `resolve` and `build`."""
    from morphogen import classifiers, segmenters

    return classifiers if kind_of(judge) is CLASSIFICATION else segmenters


def classifiers_among(judges: Sequence[str]) -> list[str]:
    """The judges that are classifiers."""
    return [judge for judge in judges if kind_of(judge) is CLASSIFICATION]


def judge_of_masks(judges: Sequence[str]) -> str:
    """The judge that mask adherence is measured by a sibling of, unless the generator learns with one of its kind
    (`morphogen.study.independence`): the first segmenter, or the U-Net."""
    return next((judge for judge in judges if kind_of(judge) is SEGMENTATION), "unet")


def label(metric: str) -> str:
    """A metric as a heading."""
    return f"Recall of {metric.removeprefix(RECALL)}" if metric.startswith(RECALL) else LABELS[metric]


def heading(metric: str) -> str:
    """A metric above its differences; what is not said is that higher is better."""
    return f"{LOWER[metric]}: left of zero, the arm is better" if metric in LOWER else label(metric)


def _scores(rows: Rows, metric: str) -> Repetition:
    """Image id -> (subject, value); an image without a subject is its own."""
    return {
        image: (str(row["subject"]) if row.get("subject") is not None else image, float(row[metric]))
        for image, row in rows.items()
    }


def mean_scores(repetitions: Sequence[Rows]) -> dict[str, Estimate]:
    """Metric -> mean over images of what a segmenter scores."""
    return {m: estimate([_scores(rows, m) for rows in repetitions], within=RANGES[m]) for m in RANGES}


def _mean_contrasts(ours: Sequence[Rows], theirs: Sequence[Rows]) -> dict[str, Contrast]:
    found = {}
    for metric in RANGES:
        first, second = ([_scores(rows, metric) for rows in some] for some in (ours, theirs))
        differences = difference(first, second)
        estimated = estimate(differences)
        found[metric] = Contrast(
            difference=estimated,
            p=sign_flip(subject_means(differences)) if estimated.p_crossed is None else estimated.p_crossed,
            means=(mean_over_images(first), mean_over_images(second)),
            per_repetition=tuple(mean_over_images([scores]) for scores in differences),
        )
    return found


def _has_scores(row: Mapping[str, Any]) -> bool:
    return all(math.isfinite(float(row[metric])) for metric in RANGES)


def _has_probabilities(row: Mapping[str, Any]) -> bool:
    return row["class"] in row["p"] and all(math.isfinite(float(p)) for p in row["p"].values())


SEGMENTATION = Kind(
    name="segmentation",
    network="segmenter",
    output="MASKS",
    headline="dice",
    noun="mean Dice",
    beside=(),
    reading=(
        "Mean over test images with its 95 % interval. Dice and IoU: higher is better; HD95, in px at native size: "
        "lower is better."
    ),
    others="IoU and HD95",
    is_row=_has_scores,
    estimates=mean_scores,
    contrasts=_mean_contrasts,
)
CLASSIFICATION = Kind(
    name="classification",
    network="classifier",
    output="PREDICTIONS",
    headline="macro_f1",
    noun="macro-F1",
    beside=("balanced_accuracy",),
    reading=(
        "Scores of the whole set of test images with their 95 % interval; ECE is the expected calibration error: lower "
        "is better, and higher of all others."
    ),
    others="The other scores",
    is_row=_has_probabilities,
    estimates=classified.estimates,
    contrasts=classified.contrasts,
)
