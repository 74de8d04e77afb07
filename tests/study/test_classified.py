"""Statistics of classified images, against literal versions: sets written out, exchanges one by one."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from morphogen.metrics.classification import METRICS, classification_scores
from morphogen.study import classified
from morphogen.study.classified import confusion, contrasts, estimates, sheets_of
from morphogen.study.stats import estimate, sign_flip, subject_means

CLASSES = ("melanoma", "nevus", "scar")


def rows_of(seed: int, subjects: int = 6, images: int = 3, skill: float = 1.0, first: int = 0) -> dict[str, Any]:
    """What one run says; the classes of the images do not follow from `seed`."""
    rng, found = np.random.default_rng(seed), {}
    for s in range(first, first + subjects):
        for i in range(images):
            true = (s + i * i) % 3
            p = rng.dirichlet(np.ones(3) + skill * np.eye(3)[true]).round(3)
            p[0] += 1 - p.sum()
            row = {"subject": f"s{s}", "class": CLASSES[true], "p": dict(zip(CLASSES, p.tolist(), strict=True))}
            found[f"s{s}_{i}"] = row
    return found


def literal(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The scores of a list of rows."""
    p = np.array([[row["p"][name] for name in CLASSES] for row in rows])
    found = classification_scores(p, np.array([CLASSES.index(row["class"]) for row in rows]), CLASSES)
    recalls = {f"recall/{name}": found["per_class"][name]["recall"] for name in CLASSES}
    return {**{name: found[name] for name in METRICS}, **recalls}


def test_crossed_seeds_are_averaged_and_folds_pooled() -> None:
    first, second, third = rows_of(0), rows_of(1), rows_of(2, first=6)
    for repetitions, sets in (
        ([first, second], [[*first.values()], [*second.values()]]),
        ([first, third], [[*first.values(), *third.values()]]),
    ):
        found = estimates(repetitions, draws=20)
        for name in found:
            expected = np.mean([literal(some)[name] for some in sets])
            assert found[name].mean == pytest.approx(expected, abs=1e-12), name
    assert (found["auc"].n_images, found["auc"].n_subjects, found["auc"].n_repetitions) == (36, 12, 2)
    assert confusion([first, second], CLASSES).sum() == 36


def test_accuracy_has_the_interval_of_a_mean_over_images() -> None:
    repetitions = [rows_of(seed, subjects=9) for seed in range(3)]
    found = estimates(repetitions, draws=300)["accuracy"]
    right = [
        {i: (r["subject"], float(max(r["p"], key=r["p"].get) == r["class"])) for i, r in rows.items()}
        for rows in repetitions
    ]
    expected = estimate(right, draws=300)
    # the crossed seeds' weights go with other rows there, which are sorted
    assert found.mean == pytest.approx(expected.mean)
    assert found.se == pytest.approx(expected.se, rel=0.15)
    one = estimate(right[:1], draws=300)
    assert estimates(repetitions[:1], draws=300)["accuracy"].ci95 == pytest.approx(one.ci95)


def test_differences_are_resampled_jointly() -> None:
    ours, theirs = [rows_of(5, subjects=9, skill=2.0)], [rows_of(6, subjects=9)]
    found = contrasts(ours, theirs, draws=200)
    assert found["macro_f1"].difference.mean == pytest.approx(
        literal([*ours[0].values()])["macro_f1"] - literal([*theirs[0].values()])["macro_f1"]
    )
    alone = contrasts(ours, ours, draws=50)["macro_f1"]
    assert (alone.difference.ci95, alone.difference.se, alone.p) == ((0.0, 0.0), 0.0, 1.0)
    apart = np.hypot(estimates(ours)["accuracy"].se, estimates(theirs)["accuracy"].se)
    assert found["accuracy"].difference.se != pytest.approx(apart, rel=1e-3)


def test_p_is_that_of_all_exchanges_of_subjects() -> None:
    ours, theirs = rows_of(5, subjects=5, skill=3.0), rows_of(6, subjects=5, skill=0.2)
    found = contrasts([ours], [theirs], draws=20)
    differences: dict[str, list[float]] = {name: [] for name in found}
    for swap in product((False, True), repeat=5):
        swapped = {f"s{s}" for s in range(5) if swap[s]}
        sides = [
            [(b if a["subject"] in swapped else a) for a, b in zip(one.values(), other.values(), strict=True)]
            for one, other in ((ours, theirs), (theirs, ours))
        ]
        scores = [literal(side) for side in sides]
        for name, values in differences.items():
            values.append(abs(scores[0][name] - scores[1][name]))
    for name, values in differences.items():
        assert found[name].p == pytest.approx(np.mean(np.array(values) >= values[0] * (1 - 1e-9))), name


def test_p_of_accuracy_is_that_of_sign_flips() -> None:
    ours, theirs = rows_of(5, subjects=8), rows_of(6, subjects=8)
    right = [
        {i: (r["subject"], float(max(r["p"], key=r["p"].get) == r["class"])) for i, r in rows.items()}
        for rows in (ours, theirs)
    ]
    differences = [{i: (s, v - right[1][i][1]) for i, (s, v) in right[0].items()}]
    assert contrasts([ours], [theirs], draws=20)["accuracy"].p == sign_flip(subject_means(differences))


def test_many_subjects_are_exchanged_at_random(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = [rows_of(5, skill=3.0)], [rows_of(6, skill=0.0)]
    exact = contrasts(ours, theirs, draws=20)["macro_f1"].p
    monkeypatch.setattr(classified, "EXACT_SUBJECTS", 2)
    assert contrasts(ours, theirs, draws=20)["macro_f1"].p == pytest.approx(exact, abs=0.04)


def test_what_is_undefined_is_left_out() -> None:
    rows = {i: row for i, row in rows_of(0).items() if row["class"] != "scar"}
    found = estimates([rows], draws=50)
    assert {*found} == {*METRICS, "recall/melanoma", "recall/nevus"}
    single = {i: {**row, "subject": "one"} for i, row in rows.items()}
    assert {e.ci95 for e in estimates([single], draws=50).values()} == {None}


def test_repetitions_that_share_some_images_are_refused() -> None:
    rows = rows_of(0)
    with pytest.raises(ValueError, match="share some images"):
        sheets_of([rows, dict(list(rows.items())[:4])], CLASSES)
