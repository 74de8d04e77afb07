"""Quality gates: which synthetic pairs to leave out, by limits that the training images set.

| gate | score | dropped |
|---|---|---|
| ``adherence`` | ``dice`` of a segmenter on the image against the mask that was asked for | below the 10th percentile |
| ``agreement`` | ``iou`` of the same | below the 10th percentile or 0.5, whichever is less; above 0.95 |
| ``copies`` | ``nearness`` to the nearest training image, in units of the audit's threshold | below 1 |
| ``blur`` | ``sharpness``: variance of the Laplacian of the grey image | below the 1st percentile |
| ``saturation`` | ``clipped``: share of pixels with a channel at 255 or all at 0; ``colourfulness`` | outside |
| ``drawn`` | ``drawn``: change inside the mask, in units of what the autoencoder alone changes there | at 1 or below |
| ``untouched`` | ``outside``: largest change of a pixel where nothing was to be painted | above 0 |
| ``class-agreement`` | ``probability`` that a classifier gives the class that was asked for | below 0.3 |
| ``area`` | ``area``: share of the image under the mask that the generator made | below 1 % or above 85 % |
| ``ambiguous`` | ``ambiguous``: unclear pixels off the outline of that mask, per pixel of lesion | above 15 % |

``agreement``'s window is meant for lesions painted into images: a lesion that no segmenter finds was not painted, and
one that it finds to the pixel is likely a copy. That is in the manner of DiffAug, SynDiff's follow-up (Nazir et al.,
ICCV workshops 2025, arXiv 2508.17844), which keeps samples by their spatial accuracy, as its single-step latent
segmenter sees it; 0.5 and 0.95 are ours. In a study whose generator makes image and mask together there is no upper
end: there the mask follows the image, and a close fit is what is asked for.
``drawn`` and ``untouched`` are scores that a generator which paints into images notes with every pair (``origin`` in
manifest.jsonl), ``area`` and ``ambiguous`` (`morphogen.data.mask_cleaning`) those of one that makes the mask itself.

Percentiles are those of the training images' own scores; nothing else is looked at. ``slack`` is what cannot be seen: a
single clipped pixel is no fault where the training images have none.

A gate says, it does not delete: images and masks stay where they are, every row of manifest.jsonl gets its scores
(``gates``) and the gates that it failed (``dropped``), and gates.json holds the limits. What trains passes over the
dropped ones.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from morphogen.data.picture_quality import clipped, colourfulness, sharpness
from morphogen.data.records import Record
from morphogen.data.split import ids_hash
from morphogen.errors import InputError
from morphogen.files import write_json, write_text
from morphogen.metrics.overlap import class_counts, dice_from_counts, iou_from_counts
from morphogen.sampling.manifest import MERGED, Row, read_rows

RESULT = "gates.json"


@dataclass(frozen=True)
class Score:
    """One score and how training images limit it: percentiles for ``low`` and ``high``, None where all values pass.

    ``least`` and ``most`` are limits whatever the training images say: the percentile counts where it is below
    ``least``.
    """

    gate: str
    low: float | None = None
    high: float | None = None
    slack: float = 0.0
    least: float | None = None
    most: float | None = None


SCORES: dict[str, Score] = {
    "dice": Score("adherence", 10, None),
    "iou": Score("agreement", 10, None, least=0.5, most=0.95),
    "nearness": Score("copies", 1, None),
    "sharpness": Score("blur", 1, None),
    "clipped": Score("saturation", None, 99, 0.01),
    "colourfulness": Score("saturation", 1, 99, 1.0),
    "drawn": Score("drawn", least=math.nextafter(1.0, 2.0)),  # more than 1
    "outside": Score("untouched", most=0.0),
    "area": Score("area", least=0.01, most=0.85),
    "ambiguous": Score("ambiguous", most=0.15),
    "probability": Score("class-agreement", least=0.3),
}
GATES = tuple(dict.fromkeys(score.gate for score in SCORES.values()))
INTO_IMAGES = {"drawn": "drawn", "untouched": "outside"}
"""Gate -> its score, which a generator that paints into images notes with every pair."""
OWN_MASKS = {"area": "area", "ambiguous": "ambiguous"}
"""The same for generators that make the masks themselves."""
RECORDED = {**INTO_IMAGES, **OWN_MASKS}
SEGMENTED = {"adherence": "dice", "agreement": "iou"}
"""Gate -> its score, which a segmenter gives."""
CLASSIFIED = {"class-agreement": "probability"}
"""Gate -> its score, which a classifier gives."""


@dataclass(frozen=True)
class Limit:
    """What a score may be; `percentiles` of the scores of `n` training images said so.

    Attributes:
        score: Key of `SCORES`.
        gate: Its gate.
        low: Lowest value that passes, or None.
        high: Highest value that passes, or None.
        percentiles: Those that `low` and `high` are.
        n: Training images that they rest on; 0 for limits of their own.
    """

    score: str
    gate: str
    low: float | None
    high: float | None
    percentiles: tuple[float | None, float | None]
    n: int

    @classmethod
    def of(cls, name: str, training: Sequence[float] | np.ndarray) -> Limit:
        """The limit that the scores of the training images set.

        Raises:
            InputError: There are none.
        """
        score, values = SCORES[name], np.asarray(training, dtype=np.float64)
        if not len(values):
            raise InputError(f"--gates {score.gate}: there are no training images to set its limit; leave it out")
        low = None if score.low is None else float(np.percentile(values, score.low)) - score.slack
        high = None if score.high is None else float(np.percentile(values, score.high)) + score.slack
        low = low if low is None or score.least is None else min(low, score.least)
        return cls(name, score.gate, low, score.most if high is None else high, (score.low, score.high), len(values))

    @classmethod
    def fixed(cls, name: str) -> Limit:
        """The limit of a score that no training image has."""
        score = SCORES[name]
        return cls(name, score.gate, score.least, score.most, (None, None), 0)

    @classmethod
    def of_copies(cls, n: int) -> Limit:
        """Nearness has its percentile within: the audit's threshold, made by `n` training images, is 1."""
        return cls("nearness", "copies", 1.0, None, (SCORES["nearness"].low, None), n)

    def passes(self, value: float) -> bool:
        """Whether a score lies within."""
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)


Scores = Mapping[str, Sequence[float] | np.ndarray]


@dataclass(frozen=True)
class Verdicts:
    """Scores of every pair and the gates that it failed.

    Attributes:
        gates: Names of the gates that were asked for.
        limits: One a score.
        scores: Id -> score -> value.
        dropped: Id -> the gates that it failed, in the order of `gates`.
        training: SHA-256 of the ids of the training images that set the limits.
        segmenter: Who judged the adherence, where anyone did.
        classifier: Who judged the classes, where anyone did.
    """

    gates: tuple[str, ...]
    limits: tuple[Limit, ...]
    scores: Mapping[str, Mapping[str, float]]
    dropped: Mapping[str, list[str]]
    training: str
    segmenter: Mapping[str, Any] | None = None
    classifier: Mapping[str, Any] | None = None

    @property
    def kept(self) -> list[str]:
        """Ids that passed every gate."""
        return [i for i, gates in self.dropped.items() if not gates]

    def summary(self) -> dict[str, Any]:
        """``gates``, ``n``, ``accepted``, ``rejected``, ``reasons`` (gate -> pairs that failed it), ``limits``,
        ``training``, ``segmenter``, and ``classifier`` where there was one.
        """
        reasons = Counter(gate for gates in self.dropped.values() for gate in gates)
        return {
            "gates": list(self.gates),
            "n": len(self.dropped),
            "accepted": len(self.kept),
            "rejected": len(self.dropped) - len(self.kept),
            "reasons": {gate: reasons[gate] for gate in self.gates},
            "limits": [{**asdict(limit), "percentiles": list(limit.percentiles)} for limit in self.limits],
            "training": self.training,
            "segmenter": None if self.segmenter is None else dict(self.segmenter),
            **({} if self.classifier is None else {"classifier": dict(self.classifier)}),
        }


def judge(
    gates: Sequence[str], limits: Sequence[Limit], ids: Sequence[str], scores: Scores, training: Sequence[str]
) -> Verdicts:
    """Hold the scores of synthetic pairs against the limits.

    Args:
        gates: Gates that were asked for.
        limits: One a score.
        ids: Ids of the pairs.
        scores: Score -> one value a pair.
        training: Ids of the training images that set the limits.
    """
    rows = {id_: {limit.score: float(scores[limit.score][k]) for limit in limits} for k, id_ in enumerate(ids)}
    failed = {i: {limit.gate for limit in limits if not limit.passes(row[limit.score])} for i, row in rows.items()}
    dropped = {i: [gate for gate in gates if gate in found] for i, found in failed.items()}
    return Verdicts(tuple(gates), tuple(limits), rows, dropped, ids_hash(training))


def write_verdicts(folder: Path, verdicts: Verdicts) -> None:
    """Note the verdicts in manifest.jsonl, in place of earlier ones, then the limits in gates.json.

    Raises:
        InputError: The folder has no manifest, or one that lacks a pair.
    """
    if not (folder / MERGED).is_file():
        raise InputError(
            f"{folder}: holds no {MERGED} to note verdicts in; sample with `morphogen sample`, or finish it"
        )
    rows = read_rows(folder)
    for id_ in verdicts.dropped:
        if id_ not in rows:
            raise InputError(f"{folder / MERGED}: has no row for {id_!r}; sample again into the same folder")
        scores = {name: round(value, 6) for name, value in verdicts.scores[id_].items()}
        rows[id_] = {**rows[id_], "gates": scores, "dropped": verdicts.dropped[id_]}
    write_text(folder / MERGED, "".join(json.dumps(rows[i], sort_keys=True) + "\n" for i in sorted(rows)))
    write_json(folder / RESULT, verdicts.summary())


def read_summary(folder: Path) -> dict[str, Any] | None:
    """The content of gates.json, or None where the folder has none (or a torn one)."""
    try:
        found: dict[str, Any] = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return found


PICTURE_SCORES: dict[str, Callable[[np.ndarray], float]] = {
    "sharpness": sharpness,
    "clipped": clipped,
    "colourfulness": colourfulness,
}
"""Scores that a picture has by itself."""


def picture_scores(images: Iterable[np.ndarray], gates: Sequence[str]) -> dict[str, list[float]]:
    """The scores of (H, W, 3) uint8 pictures that these gates look at, of `PICTURE_SCORES`."""
    scores: dict[str, list[float]] = {name: [] for name in PICTURE_SCORES if SCORES[name].gate in gates}
    for image in images if scores else ():
        for name, values in scores.items():
            values.append(PICTURE_SCORES[name](image))
    return scores


def recorded_scores(
    rows: Mapping[str, Row], ids: Iterable[str], gates: Sequence[str], folder: Path
) -> dict[str, list[float]]:
    """The scores that the generator noted with its pairs, of those that these gates look at.

    Args:
        rows: Id -> row of manifest.jsonl.
        ids: The pairs.
        gates: Gates that were asked for.
        folder: Where the pairs are, for the error.

    Raises:
        InputError: A pair has no such score.
    """
    wanted = {gate: RECORDED[gate] for gate in gates if gate in RECORDED}
    found: dict[str, list[float]] = {score: [] for score in wanted.values()}
    for id_ in ids if wanted else ():
        origin = rows.get(id_, {}).get("origin") or {}
        for gate, score in wanted.items():
            if not isinstance(origin.get(score), int | float):
                who = "paint into images" if gate in INTO_IMAGES else "make their own masks"
                fault = f"{id_} states no {score!r} in manifest.jsonl, as generators that {who} do"
                raise InputError(f"--gates {gate}: {folder}: {fault}; leave that gate out")
            found[score].append(float(origin[score]))
    return found


def class_scores(said: Sequence[Mapping[str, float]], records: Sequence[Record], folder: Path) -> list[float]:
    """The probability of the class that was asked for, of every pair.

    Args:
        said: What a classifier says of each image: class -> probability.
        records: The pairs.
        folder: Where they are, for the error.

    Raises:
        InputError: A pair states no class, or one that the classifier does not know.
    """
    found = []
    for record, one in zip(records, said, strict=True):
        if record.label is None or record.label not in one:
            fault = f"{record.id} is of class {record.label!r}" if record.label else f"{record.id} states no class"
            raise InputError(
                f"--gates class-agreement: {folder}: {fault}, and the classifier knows {', '.join(one)}; leave that "
                "gate out, or take a classifier of these classes"
            )
        found.append(one[record.label])
    return found


def overlap_scores(label: np.ndarray, mask: np.ndarray, n_classes: int) -> dict[str, float]:
    """``dice`` and ``iou`` of a label map against the mask that was asked for, means over the foreground classes."""
    counts = class_counts(label, mask, n_classes)[1:]
    return {"dice": float(dice_from_counts(counts).mean()), "iou": float(iou_from_counts(counts).mean())}


def dice_score(label: np.ndarray, mask: np.ndarray, n_classes: int) -> float:
    """Mean Dice over the foreground classes of one label map against the mask that was asked for."""
    return overlap_scores(label, mask, n_classes)["dice"]
