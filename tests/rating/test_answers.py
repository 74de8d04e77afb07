"""Files of answers are checked against the key before anything is computed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from morphogen.errors import InputError
from morphogen.rating.answers import first_showings, ratings, read_answers
from morphogen.rating.page import read_key

Write = Callable[..., Path]


def rows(file: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(file.read_text())["answers"]
    return found


def test_the_table_holds_first_showings(page: Path, answer: Write) -> None:
    key = read_key(page)
    score = {name: 1 + i % 5 for i, name in enumerate(key["showings"])}
    raters, notes = read_answers([answer("b", lambda name, _: score[name]), answer("a")], key)
    assert [rater.name for rater in raters] == ["a", "b"]
    assert not notes
    table = ratings(raters, key)
    shown = first_showings(key)
    assert len(shown) == 10
    assert table.scores.tolist() == [[3.0] * 10, [float(score[name]) for name in shown]]
    assert table.real.tolist() == [key["showings"][name]["origin"] == "real" for name in shown]
    assert table.weights.tolist() == [[1.0] * 10] * 2
    confidences = {row["id"]: row["confidence"] for row in rows(answer("c"))}
    assert ratings(raters, key, weighted=True).weights[0].tolist() == [confidences[name] for name in shown]


def test_unfinished_answers_count_as_far_as_they_go(page: Path, answer: Write) -> None:
    full = rows(answer("a"))
    part = [*full[:4], full[4] | {"confidence": None}]
    raters, notes = read_answers([answer("a", answers=part), answer("b", answers=[])], read_key(page))
    assert [len(rater.answers) for rater in raters] == [4]
    assert "a has left 9 of 13 images unrated" in notes[0]
    assert "b has left 13 of 13 images unrated" in notes[1]
    table = ratings(raters, read_key(page))
    assert np.isnan(table.scores).sum() + len([r for r in full[:4] if r["id"] in first_showings(read_key(page))]) == 10
    np.testing.assert_array_equal(table.weights == 0, np.isnan(table.scores))


def test_two_files_of_one_rater(page: Path, answer: Write) -> None:
    early, late = answer("Dr  Ada", answers=rows(answer("x"))[:5]), answer("dr ada")
    for files in ([early, late], [late, early]):
        raters, notes = read_answers(files, read_key(page))
        assert [len(rater.answers) for rater in raters] == [13]
        assert len(notes) == 1
        assert "both of" in notes[0]
    with pytest.raises(InputError, match=r"holds other answers of DR ADA.*to 13 images"):
        read_answers([late, answer("DR ADA", lambda *_: 4)], read_key(page))


BAD: dict[str, Callable[[list[dict[str, Any]]], dict[str, Any]]] = {
    "belongs to the page 'f00'": lambda _: {"study": "f00"},
    "version 2": lambda _: {"version": 2},
    "no answers of a rating page": lambda _: {"format": "something"},
    "lacks the rater": lambda _: {"rater": " "},
    "lacks the rater's name or the answers": lambda _: {"answers": None},
    "does not show": lambda r: {"answers": [r[0] | {"id": "nonsense"}]},
    "twice": lambda r: {"answers": [r[0], r[0]]},
    "answer 6, 1 to": lambda r: {"answers": [r[0] | {"score": 6}]},
    "answer True, 1": lambda r: {"answers": [r[0] | {"score": True}]},
    "answer '3', 1": lambda r: {"answers": [r[0] | {"score": "3"}]},
    "answer 3, 4": lambda r: {"answers": [r[0] | {"confidence": 4}]},
    "no time": lambda r: {"answers": [r[0] | {"seconds": -1}]},
    "no finished answer": lambda _: {"answers": []},
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_file_is_refused_by_name(fault: str, page: Path, answer: Write) -> None:
    file = answer("a", **BAD[fault](rows(answer("x"))))
    with pytest.raises(InputError, match=fault) as error:
        read_answers([file], read_key(page))
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["", '{"format": ', "\udcff", "[" * 100_000, "[]", "3"])
def test_a_file_that_is_no_json_or_no_object(content: str, page: Path) -> None:
    file = page.parent / "bad.json"
    file.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=r"bad\.json"):
        read_answers([file], read_key(page))


def test_a_missing_file(page: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.json: does not exist"):
        read_answers([page / "gone.json"], read_key(page))
