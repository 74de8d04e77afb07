"""Budgets by class, and the plan of pairs from captions."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.data.readers import read_dataset
from morphogen.errors import InputError
from morphogen.sampling.budgets import Caption, apportion, budget, check_balance, plan_captions
from morphogen.sampling.jobs import Job, Pair
from morphogen.sampling.manifest import read_rows
from morphogen.sampling.plan import Plan
from morphogen.sampling.runner import run_jobs
from morphogen.study.synthesis import read_synthetic
from morphogen.training.rng import numpy_rng, seed_of

LABELS = ["nevus"] * 7 + ["melanoma"] * 2 + ["seborrheic_keratosis"]
CAPTIONS = [Caption(label, f"{label} {k}") for k, label in enumerate(LABELS)]


def refused(labels: list[str | None], words: str, n: int | None = None) -> str:
    with pytest.raises(InputError) as caught:
        budget(labels, words, n)
    return str(caught.value)


def test_in_proportion() -> None:
    assert budget(LABELS, "none") == Counter(LABELS)
    assert budget(LABELS, "none", 20) == {"nevus": 14, "melanoma": 4, "seborrheic_keratosis": 2}
    assert budget([None, None, "nevus"], "none", 6) == {None: 4, "nevus": 2}


def test_up_to_the_largest_class() -> None:
    found = budget([*LABELS, None, None], "largest")
    assert found == {"melanoma": 5, "seborrheic_keratosis": 6}
    assert set((Counter(LABELS) + Counter(found)).values()) == {7}


def test_up_to_a_number() -> None:
    assert budget(LABELS, "9") == {"nevus": 2, "melanoma": 7, "seborrheic_keratosis": 8}
    assert budget(LABELS, "2") == {"seborrheic_keratosis": 1}


def test_as_stated() -> None:
    assert budget(LABELS, "Melanoma=3,seborrheic keratosis=1") == {"melanoma": 3, "seborrheic_keratosis": 1}


FAULTS = {
    "biggest": "--balance biggest: give none, largest, a number to fill every class up to, or class=number",
    "0": "--balance 0: give none, largest",
    "": "--balance : give none, largest",
    "melanoma=0": "--balance melanoma=0: '0' is no whole number from 1 on; write for example melanoma=20",
    "melanoma=many": "'many' is no whole number",
    "melanoma": "give none, largest",
    "=4": "give none, largest",
    "melanoma=1,Melanoma=2": "names 'melanoma' twice; name it once",
    "melanomas=4": "--balance melanomas: no training image is of this class; did you mean melanoma?",
    "wart=4": "no training image is of this class; the classes are melanoma, nevus, seborrheic_keratosis",
    "1": "--balance 1: every class has 1 images or more already; ask for more",
}


@pytest.mark.parametrize("words", FAULTS)
def test_words_that_are_no_budget(words: str) -> None:
    assert FAULTS[words] in refused([*LABELS], words)


def test_classes_that_are_balanced_or_absent() -> None:
    assert "every class has 2 images or more already" in refused(["a", "a", "b", "b"], "largest")
    assert "--balance largest: the training images have no classes" in refused([None, None], "largest")
    assert "have no classes" in refused([None], "nevus=3")
    with pytest.raises(InputError, match="no training image with a mask is of this class; the classes are a"):
        budget(["a"], "wart=3", which=" with a mask")


def test_words_are_checked_without_classes() -> None:
    for words in ("none", "largest", "30", "nevus=3,melanoma=4"):
        check_balance(words)
    with pytest.raises(InputError, match="--arms x: give none"):
        check_balance("x", "--arms")


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 40), min_size=1), st.integers(0, 90))
def test_seats_by_the_divisors_of_webster(weights: dict[str, int], n: int) -> None:
    """Literally: every seat goes to the class of the highest weight / (2 seats + 1), ties to the first name."""
    seats = dict.fromkeys(weights, 0)
    expected = []
    for _ in range(n):
        best = min(weights, key=lambda name: (-Fraction(weights[name], 2 * seats[name] + 1), name))
        seats[best] += 1
        expected.append(best)
    assert apportion(weights, n) == expected


def jobs_of(plan: Plan) -> list[tuple[str, int, str | None, str | None]]:
    return [(job.id, job.seed, job.prompt, job.label) for job in plan]


def test_a_plan_in_proportion_is_the_same_for_every_number_of_pairs() -> None:
    long = jobs_of(plan_captions(CAPTIONS, budget(LABELS, "none", 40), 3))
    assert Counter(label for *_, label in long) == budget(LABELS, "none", 40)
    for n in (1, 5, 10, 23):
        assert jobs_of(plan_captions(CAPTIONS, budget(LABELS, "none", n), 3)) == long[:n]
    assert long != jobs_of(plan_captions(CAPTIONS, budget(LABELS, "none", 40), 4))


def test_a_pair_is_the_same_in_every_budget() -> None:
    plans = [plan_captions(CAPTIONS, budget(LABELS, words), 3) for words in ("none", "largest", "30", "melanoma=9")]
    found: dict[str, tuple[object, ...]] = {}
    for plan in plans:
        for row in jobs_of(plan):
            assert found.setdefault(row[0], row) == row
    assert len({plan.digest for plan in plans}) == len(plans)


def test_captions_come_up_equally_often_and_say_their_class() -> None:
    plan = plan_captions(CAPTIONS, {"nevus": 15, "melanoma": 4}, 3)
    assert all(job.prompt is not None and job.label == job.prompt.split()[0] for job in plan)
    times = Counter(job.prompt for job in plan)
    assert sorted(times[c.text] for c in CAPTIONS if c.label == "nevus") == [2] * 6 + [3]
    assert {times[c.text] for c in CAPTIONS if c.label == "melanoma"} == {2}
    assert [job.seed for job in plan] == [seed_of(3, i) for i in plan.ids]


def test_ids_are_of_the_class() -> None:
    plan = plan_captions([Caption("Bowen's disease", "x"), Caption(None, "y")], {"Bowen's disease": 2, None: 1}, 0)
    assert sorted(plan.ids) == ["bowen-s-disease_0001", "bowen-s-disease_0002", "pair_0001"]


def test_any_prefix_of_a_balanced_plan_is_balanced() -> None:
    plan = plan_captions(CAPTIONS, {"nevus": 20, "melanoma": 20, "seborrheic_keratosis": 20}, 0)
    for k in range(3, 60, 3):
        assert set(Counter(job.label for job in plan[:k]).values()) == {k // 3}


def test_an_empty_class() -> None:
    with pytest.raises(
        InputError, match="'wart' is an empty class: no caption is of it; the classes with captions are m"
    ):
        plan_captions(CAPTIONS, {"wart": 3}, 0)


class Dual:
    """Noise and a square, whatever the words are."""

    needs: frozenset[str] = frozenset()
    resolution = 16
    hash = "dual"

    def sample(self, jobs: list[Job]) -> list[Pair]:
        mask = np.zeros((16, 16), np.int64)
        mask[4:9, 4:9] = 1
        return [Pair(numpy_rng(job.seed).integers(0, 250, (16, 16, 3), dtype=np.uint8), mask) for job in jobs]


def test_classes_and_prompts_come_back(tmp_path: Path) -> None:
    plan = plan_captions(CAPTIONS, budget(LABELS, "largest"), 0)
    run_jobs(Dual(), plan, tmp_path / "out")
    rows = read_rows(tmp_path / "out")
    assert Counter(row["label"] for row in rows.values()) == budget(LABELS, "largest")
    data = read_dataset(tmp_path / "out")
    for again in (data, read_synthetic(tmp_path / "out", data)):
        for record in again:
            job = plan[plan.ids.index(record.id)]
            assert (record.label, record.caption) == (job.label, job.prompt)
            assert record.origin is not None
            assert (record.origin["label"], record.origin["prompt"]) == (job.label, job.prompt)


def test_a_class_is_part_of_a_plan() -> None:
    plain, classed = (Plan.of([Job("a", 1, label=label)]).digest for label in (None, "nevus"))
    assert plain != classed
