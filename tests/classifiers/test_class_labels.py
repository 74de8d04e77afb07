"""The classes of a classifier."""

from __future__ import annotations

from pathlib import Path

import pytest

from morphogen.classifiers.labels import class_ids, classes_of
from morphogen.data.records import Dataset, Record
from morphogen.errors import InputError


def data(*labels: str | None, root: str = "data") -> Dataset:
    records = [Record(f"r{i}", Path("x.png"), label=label) for i, label in enumerate(labels)]
    return Dataset("d", Path(root), tuple(records))


def test_sorted_where_none_are_given() -> None:
    assert classes_of([data("b", "a"), data("c")]) == ("a", "b", "c")


def test_in_the_order_given() -> None:
    classes = classes_of([data("b", "a", "b")], ["b", "a"])
    assert classes == ("b", "a")
    assert class_ids(data("a", "b"), classes) == [1, 0]


def test_a_stated_class_may_be_absent_where_the_caller_says_so() -> None:
    assert classes_of([data("a", "a")], ["a", "b"], absent=True) == ("a", "b")
    with pytest.raises(InputError, match="there is nothing to train on"):
        classes_of([data()], ["a", "b"], absent=True)
    with pytest.raises(InputError, match="is of class 'c', which is none of a, b"):
        classes_of([data("a", "c")], ["a", "b"], absent=True)


@pytest.mark.parametrize(
    ("labels", "given", "said"),
    [
        (("a", None, "b", None), (), r"data: 2 of 4 records have no class \(first 'r1'\); fill the column class"),
        (("a", "", "b"), (), "1 of 3 records have no class"),
        (("a", "b"), ("a", "b", "c"), "data: holds no training record of class 'c'; add some, or leave"),
        (("a", "b", "c"), ("a", "b"), "record 'r2' is of class 'c', which is none of a, b"),
        (("a", "b"), ("a", "b", "a"), "'a' is given twice"),
        (("a", "a"), (), "all records are of class 'a'; a classifier needs two"),
        ((), (), "data: there is nothing to train on"),
    ],
)
def test_what_cannot_be_learned(labels: tuple[str | None, ...], given: tuple[str, ...], said: str) -> None:
    with pytest.raises(InputError, match=said):
        classes_of([data(*labels)], given)
