"""What raters have sent back, checked against the key, as one table."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from morphogen.errors import InputError
from morphogen.rating.draw import REAL
from morphogen.rating.page import CONFIDENCES, SCORES, VERSION

Array = NDArray[np.float64]
REMEDY = "ask the rater to save the answers again"


@dataclass(frozen=True)
class Answer:
    """Score 1 to 5, confidence 1 to 3, and the seconds for which the picture was in view."""

    score: int
    confidence: int
    seconds: float


@dataclass(frozen=True)
class Rater:
    """One rater's finished answers by showing."""

    name: str
    answers: Mapping[str, Answer]


@dataclass(frozen=True)
class Ratings:
    """First showings of all pictures by all raters.

    Attributes:
        scores: (R, n) float64, NaN where a rater gave none.
        weights: (R, n) float64, how much each score counts; 0 where there is none.
        real: (n,) bool.
    """

    scores: Array
    weights: Array
    real: NDArray[np.bool_]

    def without_rater(self, index: int) -> Ratings:
        return Ratings(np.delete(self.scores, index, 0), np.delete(self.weights, index, 0), self.real)

    def without_picture(self, index: int) -> Ratings:
        kept = np.arange(len(self.real)) != index
        return Ratings(self.scores[:, kept], self.weights[:, kept], self.real[kept])

    def of_rater(self, index: int) -> Ratings:
        return Ratings(self.scores[[index]], self.weights[[index]], self.real)


def read_answers(files: Sequence[Path], key: Mapping[str, Any]) -> tuple[list[Rater], list[str]]:
    """Raters, ordered by name, and notes on what is unfinished or given twice.

    Raises:
        InputError: A file is damaged, belongs to another page or contradicts another file of the same rater, or there
            is no answer at all.
    """
    found: dict[str, tuple[Path, Rater]] = {}
    notes = []
    for file in files:
        rater = _read(file, key)
        name = unicodedata.normalize("NFC", " ".join(rater.name.split())).lower()
        if name in found:
            notes.append(_same(found[name], (file, rater)))
            if len(rater.answers) < len(found[name][1].answers):
                continue
        found[name] = file, rater
    if not any(rater.answers for _, rater in found.values()):
        raise InputError(f"{files[0]}: holds no finished answer; {REMEDY} when some images are rated")
    for file, rater in found.values():
        if missing := len(key["showings"]) - len(rater.answers):
            notes.append(f"{file}: {rater.name} has left {missing} of {len(key['showings'])} images unrated")
    raters = [rater for _, (_, rater) in sorted(found.items()) if rater.answers]
    return raters, notes


def _same(first: tuple[Path, Rater], second: tuple[Path, Rater]) -> str:
    """The note on two files of one rater, an earlier and a later state of the same answers."""
    one, two = first[1].answers, second[1].answers
    differing = sum(
        (one[i].score, one[i].confidence) != (two[i].score, two[i].confidence) for i in one.keys() & two.keys()
    )
    if differing:
        fault = f"holds other answers of {second[1].name} than {first[0]} to {differing} images"
        raise InputError(f"{second[0]}: {fault}; give the one that counts")
    return f"{first[0]} and {second[0]} are both of {second[1].name}; the one with more answers is taken"


def _read(file: Path, key: Mapping[str, Any]) -> Rater:
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"{file}: does not exist; give the files that the raters have saved") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: is not JSON ({' '.join(str(error).split())}); {REMEDY}") from error
    if not isinstance(content, dict) or content.get("format") != "morphogen-rating-answers":
        raise InputError(f"{file}: holds no answers of a rating page; give a file that the page has saved")
    if content.get("version") != VERSION:
        raise InputError(f"{file}: is of version {content.get('version')!r}, not {VERSION}; {REMEDY}")
    if content.get("study") != key["study"]:
        fault = f"belongs to the page {content.get('study')!r}, the key to {key['study']!r}"
        raise InputError(f"{file}: {fault}; give the --out of that page")
    name, answers = content.get("rater"), content.get("answers")
    if not isinstance(name, str) or not name.strip() or not isinstance(answers, list):
        raise InputError(f"{file}: lacks the rater's name or the answers; {REMEDY}")
    return Rater(name.strip(), _answers(file, answers, key["showings"]))


def _answers(file: Path, rows: Sequence[Any], known: Mapping[str, Any]) -> dict[str, Answer]:
    """The finished ones: score and confidence given."""
    answers: dict[str, Answer] = {}
    seen = set()
    for row in rows:
        if not isinstance(row, dict) or not isinstance(row.get("id"), str) or row["id"] not in known:
            raise InputError(f"{file}: answers something that the page does not show ({row!r:.80}); {REMEDY}")
        name, score, confidence = row["id"], row.get("score"), row.get("confidence")
        if name in seen:
            raise InputError(f"{file}: answers {name} twice; {REMEDY}")
        seen.add(name)
        if not _within(score, len(SCORES)) or (confidence is not None and not _within(confidence, len(CONFIDENCES))):
            raise InputError(f"{file}: the answer {score!r}, {confidence!r} to {name} is on no scale; {REMEDY}")
        seconds = row.get("seconds", 0)
        if not isinstance(seconds, (int, float)) or not 0 <= seconds < 1e9:
            raise InputError(f"{file}: {seconds!r} seconds for {name} are no time; {REMEDY}")
        if confidence is not None:
            answers[name] = Answer(score, confidence, float(seconds))
    return answers


def _within(value: Any, most: int) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def ratings(raters: Sequence[Rater], key: Mapping[str, Any], weighted: bool = False) -> Ratings:
    """Table of the first showings.

    Args:
        raters: Its rows.
        key: Its columns, in the key's order.
        weighted: Let every score count by its confidence instead of once.
    """
    shown = first_showings(key)
    given = [[rater.answers.get(name) for name in shown] for rater in raters]
    scores = np.array([[np.nan if a is None else a.score for a in row] for row in given], dtype=np.float64)
    weights = np.array([[0 if a is None else a.confidence if weighted else 1 for a in row] for row in given])
    return Ratings(scores, weights.astype(np.float64), np.array([key["showings"][n]["origin"] == REAL for n in shown]))


def first_showings(key: Mapping[str, Any]) -> list[str]:
    """Names of the pictures, repeats left out."""
    return [name for name, showing in key["showings"].items() if showing["repeats"] is None]
