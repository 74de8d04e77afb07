"""Class-balanced sampling: shares by closed form, and draws that follow from their seeds."""

from __future__ import annotations

from collections import Counter

import pytest

from morphogen.training.balance import Balance
from morphogen.training.task import Draw

CLASSES = ["b"] * 16 + ["a"] * 4 + [None]


@pytest.mark.parametrize("exponent", [0.25, 0.5, 1.0])
def test_an_item_weighs_the_size_of_its_class_to_minus_the_exponent(exponent: float) -> None:
    made, n = Balance(CLASSES, exponent), 4000
    drawn = Counter(made.item(Draw(0, seed)) for seed in range(n))
    weights = [CLASSES.count(name) ** -exponent for name in CLASSES]
    for name in ("a", "b", None):
        members = [k for k, own in enumerate(CLASSES) if own == name]
        wanted = sum(weights[k] for k in members) / sum(weights)
        assert sum(drawn[k] for k in members) / n == pytest.approx(wanted, abs=0.03)
        assert all(drawn[k] for k in members)


def test_without_an_exponent_the_loop_walks_through_them() -> None:
    assert [Balance(CLASSES, 0).item(Draw(k, 5)) for k in (3, 0, 20)] == [3, 0, 20]


def test_a_draw_depends_on_its_seed_alone() -> None:
    one, two = Balance(CLASSES, 0.5), Balance(CLASSES, 0.5)
    assert [one.item(Draw(k, 7 * k)) for k in range(30)] == [two.item(Draw(0, 7 * k)) for k in range(30)]
