"""Scores of classified images with intervals and tests: no means over images, but of whole sets.

Where every image was classified by one run (k-fold), the images of all runs are one set; where seeds are crossed, each
seed has a set of its own, and the score is their mean. Intervals resample subjects, then images, and crossed seeds, as
`morphogen.study.stats` has it, and take the scores of the resampled sets. The test of a difference exchanges what both
arms say of all images of a subject: of a mean over images this is the sign-flip test. Where seeds are crossed it is
Student's t, since such exchanges know nothing of how much the seeds differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from morphogen.metrics.classification import METRICS, weighted_scores
from morphogen.study.stats import DRAWS, EXACT_SUBJECTS, Array, Contrast, Estimate, estimate_of, resample

Rows = Mapping[str, Mapping[str, Any]]
"""What one run says: image id -> ``subject``, ``class`` and ``p``, the probability of every class by name."""
RECALL = "recall/"
"""Before the name of a class, the metric that is its recall."""
EXCHANGES = 2000
"""Random exchanges of a test, where there are too many to try all."""


@dataclass(frozen=True)
class Sheet:
    """Images that the same repetitions have classified.

    Attributes:
        subjects: (n,) of the images, in the order of their ids.
        truth: (n,) class ids.
        probabilities: (R, n, K), one set a repetition.
    """

    subjects: tuple[str, ...]
    truth: NDArray[np.int64]
    probabilities: Array


def classes_in(repetitions: Sequence[Rows]) -> tuple[str, ...]:
    """The classes that are told apart."""
    return tuple(sorted({name for rows in repetitions for row in rows.values() for name in row["p"]}))


def sheets_of(repetitions: Sequence[Rows], classes: Sequence[str]) -> tuple[Sheet, ...]:
    """Group repetitions by the images that they classified.

    Raises:
        ValueError: Two repetitions share some of their images but not all.
    """
    groups: dict[tuple[str, ...], list[Rows]] = {}
    for rows in repetitions:
        groups.setdefault(tuple(sorted(rows)), []).append(rows)
    if sum(map(len, groups)) != len(set().union(*groups)):
        raise ValueError("repetitions share some images but not all")
    sheets = []
    for ids, group in sorted(groups.items()):
        first = group[0]
        subjects = tuple(str(first[i]["subject"] if first[i].get("subject") is not None else i) for i in ids)
        truth = np.array([classes.index(first[i]["class"]) for i in ids], dtype=np.int64)
        values = [[[rows[i]["p"].get(name, 0.0) for name in classes] for i in ids] for rows in group]
        sheets.append(Sheet(subjects, truth, np.array(values, dtype=np.float64)))
    return tuple(sheets)


def confusion(repetitions: Sequence[Rows], classes: Sequence[str]) -> NDArray[np.int64]:
    """(K, K) images by class in truth, then as predicted, counted over all repetitions."""
    from morphogen.metrics.classification import confusion_matrix

    counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
    for sheet in sheets_of(repetitions, classes):
        for probabilities in sheet.probabilities:
            counts += confusion_matrix(probabilities.argmax(axis=1), sheet.truth, len(classes))
    return counts


def estimates(repetitions: Sequence[Rows], seed: int = 0, draws: int = DRAWS) -> dict[str, Estimate]:
    """Every metric with its 95 % interval; one that is undefined (the recall of an absent class) is left out.

    Args:
        repetitions: What every run says.
        seed: Of the draws.
        draws: Resampled studies.

    Raises:
        ValueError: As `sheets_of`.
    """
    classes = classes_in(repetitions)
    sheets = sheets_of(repetitions, classes)
    values, drawn = _values(sheets, classes), _drawn(sheets, classes, seed, draws)
    sizes = _sizes(sheets, len(repetitions))
    known = {name: value for name, value in values.items() if not np.isnan(value)}
    runs = [_values(sheets_of([rows], classes), classes) for rows in repetitions]
    return {
        name: _estimate(value, drawn[name], sizes, _crossed(sheets, [run[name] for run in runs]), (0.0, 1.0))
        for name, value in known.items()
    }


def contrasts(ours: Sequence[Rows], theirs: Sequence[Rows], seed: int = 0, draws: int = DRAWS) -> dict[str, Contrast]:
    """Every metric of an arm against its control, on matched repetitions of the same images.

    Both are resampled jointly: a resampled study holds the same images, and the same seeds, of both.

    Args:
        ours: What every run of the arm says.
        theirs: What every run of the control says, in the same order.
        seed: Of the draws.
        draws: Resampled studies.

    Raises:
        ValueError: As `sheets_of`.
    """
    classes = classes_in([*ours, *theirs])
    pair = sheets_of(ours, classes), sheets_of(theirs, classes)
    values = [_values(sheets, classes) for sheets in pair]
    drawn = [_drawn(sheets, classes, seed, draws) for sheets in pair]
    runs = [[_values(sheets_of([rows], classes), classes) for rows in some] for some in (ours, theirs)]
    p, sizes, found = _exchanged(*pair, classes, seed), _sizes(pair[0], len(ours)), {}
    for name, value in values[0].items():
        if np.isnan(value):
            continue
        each = [a[name] - b[name] for a, b in zip(*runs, strict=True)]
        drawn_differences, crossed = drawn[0][name] - drawn[1][name], _crossed(pair[0], each)
        difference = _estimate(value - values[1][name], drawn_differences, sizes, crossed)
        found[name] = Contrast(
            difference=difference,
            p=p[name] if difference.p_crossed is None else difference.p_crossed,
            means=(value, values[1][name]),
            per_repetition=tuple(each),
        )
    return found


def _crossed(sheets: Sequence[Sheet], values: Sequence[float]) -> list[Array]:
    """The values of all seeds, where they scored one and the same images; none under k-fold."""
    return [np.array(values)] if len(sheets) == 1 and len(values) > 1 else []


def _estimate(
    value: float,
    drawn: Array,
    sizes: tuple[int, int, int],
    crossed: Sequence[Array],
    within: tuple[float, float] = (-np.inf, np.inf),
) -> Estimate:
    """Resampled sets in which a metric is undefined do not count."""
    defined = drawn[~np.isnan(drawn)]
    if len(defined) < 2:
        return Estimate(value, None, None, *sizes)
    return estimate_of(value, defined, sizes, within, crossed)


def _sizes(sheets: Sequence[Sheet], n_repetitions: int) -> tuple[int, int, int]:
    subjects = {subject for sheet in sheets for subject in sheet.subjects}
    return sum(len(sheet.truth) for sheet in sheets), len(subjects), n_repetitions


def _passes(sheets: Sequence[Sheet]) -> list[Array]:
    """(N, K) probabilities of all images, once for every crossed seed."""
    n = max(len(sheet.probabilities) for sheet in sheets)
    return [np.concatenate([s.probabilities[r % len(s.probabilities)] for s in sheets]) for r in range(n)]


def _values(sheets: Sequence[Sheet], classes: Sequence[str]) -> dict[str, float]:
    passes, truth = _passes(sheets), np.concatenate([sheet.truth for sheet in sheets])
    once, equal = np.ones((1, len(truth)), dtype=np.int64), np.full((1, len(passes)), 1 / len(passes))
    found = _scores([(p, truth) for p in passes], once, equal, classes)
    return {name: float(values[0]) for name, values in found.items()}


def _drawn(sheets: Sequence[Sheet], classes: Sequence[str], seed: int, draws: int) -> dict[str, Array]:
    """Metric -> (draws,) its values in resampled studies; NaN where there are fewer than two subjects."""
    if _sizes(sheets, 0)[1] < 2:
        return {name: np.full(draws, np.nan) for name in _names(classes)}
    counts = [np.zeros((draws, len(sheet.truth)), dtype=np.int64) for sheet in sheets]
    seeds = np.ones((draws, 1))
    blocks = [(sheet.subjects, len(sheet.probabilities)) for sheet in sheets]
    for part in resample(blocks, np.random.default_rng(seed), draws):
        counts[part.block][:, part.columns] = part.images
        seeds = max(seeds, part.repetitions, key=lambda weights: weights.shape[1])
    truth = np.concatenate([sheet.truth for sheet in sheets])
    return _scores([(p, truth) for p in _passes(sheets)], np.concatenate(counts, axis=1), seeds, classes)


def _names(classes: Sequence[str]) -> list[str]:
    return [*METRICS, *(f"{RECALL}{name}" for name in classes)]


def _scores(
    sets: Sequence[tuple[Array, NDArray[np.int64]]], weights: NDArray[Any], seeds: Array, classes: Sequence[str]
) -> dict[str, Array]:
    """Metric -> (D,) its mean over the sets, each weighted by its column of `seeds` (D, R)."""
    total = dict.fromkeys(_names(classes), np.zeros(len(weights)))
    for (probabilities, truth), seed in zip(sets, seeds.T, strict=True):
        found = weighted_scores(probabilities, truth, weights)
        recall = found.pop("recall")
        found |= {f"{RECALL}{name}": recall[:, k] for k, name in enumerate(classes)}
        total = {name: values + seed * found[name] for name, values in total.items()}
    return total


def _exchanged(ours: Sequence[Sheet], theirs: Sequence[Sheet], classes: Sequence[str], seed: int) -> dict[str, float]:
    """Metric -> two-sided p that exchanging the arms, subject by subject, changes the difference as much.

    All 2^S exchanges for up to 14 subjects; else random ones, what was observed counted among them.
    """
    of_image = np.array([subject for sheet in ours for subject in sheet.subjects])
    subjects, index = np.unique(of_image, return_inverse=True)
    exact = len(subjects) <= EXACT_SUBJECTS
    if exact:
        swaps = (np.arange(2 ** len(subjects))[:, None] >> np.arange(len(subjects))) & 1
    else:
        swaps = np.random.default_rng(seed).integers(0, 2, (EXCHANGES, len(subjects)))
        swaps[0] = 0
    swapped = swaps[:, index]
    truth = np.concatenate([sheet.truth for sheet in (*ours, *theirs)])
    sets = [(np.concatenate(both), truth) for both in zip(_passes(ours), _passes(theirs), strict=True)]
    equal = np.full((len(swaps), len(sets)), 1 / len(sets))
    sides = [np.concatenate(side, axis=1) for side in ((1 - swapped, swapped), (swapped, 1 - swapped))]
    first, second = (_scores(sets, side, equal, classes) for side in sides)
    found = {}
    for name, values in first.items():
        difference = np.abs(values - second[name])
        found[name] = float((difference >= difference[0] * (1 - 1e-12)).mean())
    return found
