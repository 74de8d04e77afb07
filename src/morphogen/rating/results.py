"""The result of a rating: opinion scores, how well real and synthetic were told apart, agreement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np

from morphogen.rating.agreement import alpha_ordinal, icc, kappa
from morphogen.rating.answers import Rater, Ratings, first_showings, ratings
from morphogen.rating.draw import REAL, SYNTHETIC
from morphogen.rating.opinion import (
    Estimate,
    area_under_curve,
    estimate,
    real_score,
    score_difference,
    synthetic_score,
)
from morphogen.rating.page import SCORES

SCALE = (float(SCORES[0].value), float(SCORES[-1].value))
SPAN = (SCALE[0] - SCALE[1], SCALE[1] - SCALE[0])
OPINIONS = ((SYNTHETIC, synthetic_score, SCALE), (REAL, real_score, SCALE), ("difference", score_difference, SPAN))
PROTOCOL = (
    "mos: realism from 1 (bad) to 5 (excellent), mean of all scores of first showings; difference: synthetic minus "
    "real; weighted: every score counts by its confidence, 1 to 3; auc: chance that a real picture gets a higher score "
    "than a synthetic one, ties half, mean over raters; ci95: two-way jackknife, Student's t with Satterthwaite's "
    "degrees of freedom, "
)
AGREEMENT = (
    "; agreement: on first showings, intervals over pictures; alpha: Krippendorff, ordinal; icc: absolute agreement, "
    "two-way random, of one rater (2,1) and of the mean (2,k), on pictures that all have scored; kappa: quadratic "
    "weights"
)


def summarise(raters: Sequence[Rater], key: Mapping[str, Any], notes: Sequence[str] = ()) -> dict[str, Any]:
    """The machine-readable result of ``rate --import``.

    Args:
        raters: Their answers.
        key: Where each picture comes from.
        notes: What was noticed about the answers.
    """
    table = ratings(raters, key)
    random = "raters and pictures at random" if len(raters) > 1 else "pictures at random, this one rater"
    notes = [*key["notes"], *notes]
    if len(raters) == 1:
        notes.append("one rater: the intervals say nothing about other raters, and there is no agreement to measure")
    return {
        "study": key["study"],
        "n_raters": len(raters),
        "n_pictures": {SYNTHETIC: int((~table.real).sum()), REAL: int(table.real.sum())},
        "mos": _opinions(table),
        "weighted": _opinions(ratings(raters, key, weighted=True)),
        "auc": _plain(estimate(table, area_under_curve, (0.0, 1.0))),
        "agreement": _agreement(raters, table),
        "raters": {rater.name: _of_rater(rater, table.of_rater(i), key) for i, rater in enumerate(raters)},
        "pictures": _pictures(raters, key),
        "notes": notes,
        "protocol": PROTOCOL + random + AGREEMENT,
    }


def _opinions(table: Ratings) -> dict[str, Any]:
    return {name: _plain(estimate(table, statistic, within)) for name, statistic, within in OPINIONS}


def _agreement(raters: Sequence[Rater], table: Ratings) -> dict[str, Any]:
    """Between raters; empty for one."""
    if len(raters) < 2:
        return {}
    everything = (-np.inf, 1.0)
    found = {
        "alpha": estimate(table, lambda t: alpha_ordinal(t.scores), everything, over_raters=False),
        "icc_single": estimate(table, lambda t: icc(t.scores)[0], everything, over_raters=False),
        "icc_mean": estimate(table, lambda t: icc(t.scores)[1], everything, over_raters=False),
    }
    pairs = [
        {"raters": [raters[i].name, raters[j].name], "kappa": _number(kappa(table.scores[i], table.scores[j]))}
        for i, j in combinations(range(len(raters)), 2)
    ]
    return {name: _plain(value) for name, value in found.items()} | {"pairs": pairs}


def _of_rater(rater: Rater, table: Ratings, key: Mapping[str, Any]) -> dict[str, Any]:
    given = [answer for name, answer in rater.answers.items() if key["showings"][name]["repeats"] is None]
    return {
        "n": len(given),
        "mos": _opinions(table),
        "auc": _plain(estimate(table, area_under_curve, (0.0, 1.0))),
        "mean_confidence": float(np.mean([answer.confidence for answer in given])) if given else None,
        "median_seconds": float(np.median([answer.seconds for answer in rater.answers.values()])),
        "repeats": _repeats(rater, key),
    }


def _repeats(rater: Rater, key: Mapping[str, Any]) -> dict[str, Any] | None:
    """Agreement of a rater with himself; None where nothing was shown to him twice."""
    twice = [
        (rater.answers[showing["repeats"]].score, rater.answers[again].score)
        for again, showing in key["showings"].items()
        if showing["repeats"] in rater.answers and again in rater.answers
    ]
    if not twice:
        return None
    first, second = np.array(twice, dtype=np.float64).T
    return {
        "n": len(twice),
        "same": float((first == second).mean()),
        "mean_absolute_difference": float(np.abs(first - second).mean()),
        "kappa": _number(kappa(first, second)),
    }


def _pictures(raters: Sequence[Rater], key: Mapping[str, Any]) -> dict[str, Any]:
    """By picture: what it is and how each rater scored it."""
    found = {}
    for name in first_showings(key):
        scores = {rater.name: rater.answers[name].score for rater in raters if name in rater.answers}
        showing = key["showings"][name]
        found[name] = {
            "origin": showing["origin"],
            "id": showing["id"],
            "mean": float(np.mean(list(scores.values()))) if scores else None,
            "scores": scores,
        }
    return found


def _plain(found: Estimate | None) -> dict[str, Any] | None:
    return None if found is None else asdict(found)


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None
