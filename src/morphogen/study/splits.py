"""Which image is used for what in each repetition; frozen in ``splits.json`` before anything trains."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from morphogen.data.records import Dataset
from morphogen.data.split import Fold, draw_annotated, groups, ids_hash, make_splits, take_validation
from morphogen.errors import InputError
from morphogen.study.recipe import StudyConfig

FIXED_SEEDS = 3
"""Repetitions where the split is fixed; under k-fold there is one a fold."""


@dataclass(frozen=True)
class Repetition:
    """One retraining of generator and segmenters. All lists hold record ids, and no id is in two of them.

    Attributes:
        fold: Fold that is tested; 0 where the split is fixed.
        seed: Seed of everything that is trained; the fold's own number under k-fold.
        label: Its name in file names: ``fold2``, or ``fold0-seed2`` where the split is fixed.
        train: Annotated pairs that the generator sees and the segmenters train on.
        validation: Annotated pairs that choose a segmenter's checkpoint; never seen by the generator.
        extra: Real pairs for the arm `more-real` alone, of no validation group; as many as synthetic pairs, or fewer
            where the data ends.
        pool: The other training images; their masks are not used. Images of both, without masks, are what
            semi-supervised arms learn from beside `train`.
        test: Read by the scoring function and by the audit of leakage alone.
    """

    fold: int
    seed: int
    label: str
    train: tuple[str, ...]
    validation: tuple[str, ...]
    extra: tuple[str, ...]
    pool: tuple[str, ...]
    test: tuple[str, ...]

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Repetition:
        """From the JSON values that `asdict` gives."""
        known: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        return cls(**known)


@dataclass(frozen=True)
class Splits:
    """All repetitions of a study.

    Attributes:
        kind: ``kfold``, ``fixed`` (drawn once) or ``given`` (stated by the data).
        grouped_by: ``subject`` or ``near-duplicates``: what never parts.
        n_annotated: Annotated pairs of each repetition, or None for all.
        fingerprint: SHA-256 of the ids that were split.
        subjects: Subject of every id, or the first id of its near-duplicates where it has none.
        notes: What a reader of the splits should know.
        repetitions: One a fold, or one a seed.
    """

    kind: str
    grouped_by: str
    n_annotated: int | None
    fingerprint: str
    subjects: dict[str, str]
    notes: tuple[str, ...]
    repetitions: tuple[Repetition, ...]

    @property
    def hash(self) -> str:
        """SHA-256 of the content."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Splits:
        """From the JSON values that `asdict` gives."""
        known: dict[str, Any] = dict(values)
        known["notes"] = tuple(values["notes"])
        known["repetitions"] = tuple(Repetition.of(row) for row in values["repetitions"])
        return cls(**known)


def frozen_splits(config: StudyConfig, dataset: Dataset) -> Splits:
    """The splits of ``splits.json`` where a study has begun, else new ones; writes nothing.

    Raises:
        InputError: The data is not what the frozen splits were made from, or too small to be split.
    """
    path = config.out / "splits.json"
    if not path.exists():
        return make(config, dataset)
    try:
        splits = Splits.of(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: cannot be read; name another --out") from error
    if splits.fingerprint != ids_hash(dataset.ids):
        raise InputError(f"{path}: was made from other images than {config.data} holds now; name another --out")
    return splits


def make(config: StudyConfig, dataset: Dataset) -> Splits:
    """Divide `dataset` by the rules of evidence.

    Args:
        config: The study; `annotated`, `folds`, `seeds` and `per_mask` count.
        dataset: The annotated images of the study's folder.

    Raises:
        InputError: Too few images or subjects for what is asked.
    """
    division = make_splits(dataset, seed=0, k=config.folds)
    group_of = dict(zip(dataset.ids, groups(dataset), strict=True))
    if division.kind == "kfold":
        runs = [(fold, fold, f"fold{fold}") for fold in range(len(division.folds))]
        if config.seeds is not None and config.seeds > len(runs):
            raise InputError(f"--seeds {config.seeds}: there are {len(runs)} folds, a seed each; give at most that")
        runs = runs[: config.seeds]
    else:
        runs = [(0, seed, f"fold0-seed{seed}") for seed in range(config.seeds or FIXED_SEEDS)]
    repetitions = tuple(_repetition(config, dataset, group_of, division.folds[run[0]], run) for run in runs)
    return Splits(
        kind=division.kind,
        grouped_by=division.grouped_by,
        n_annotated=config.annotated,
        fingerprint=division.fingerprint,
        subjects=group_of,
        notes=(*division.notes, *_notes(dataset, repetitions, group_of, division.kind)),
        repetitions=repetitions,
    )


def _repetition(
    config: StudyConfig, dataset: Dataset, group_of: Mapping[str, str], fold: Fold, run: tuple[int, int, str]
) -> Repetition:
    """The parts of one repetition; `run` is (fold, seed, label)."""
    seed = run[1]
    if config.annotated is None and fold.val_ids:
        train, validation = fold.train_ids, fold.val_ids
    else:
        part = dataset.select(fold.train_ids + fold.val_ids)
        annotated = part.ids if config.annotated is None else draw_annotated(part, config.annotated, seed)
        train, validation = take_validation(dataset, annotated, seed=seed)
    used, held = {*train, *validation}, {group_of[i] for i in validation}
    rest = [i for i in fold.train_ids + fold.val_ids if i not in used]
    free = dataset.select(i for i in rest if group_of[i] not in held)
    wanted = min(config.per_mask * len(train), len(free))
    extra = draw_annotated(free, wanted, seed) if wanted else ()
    taken = frozenset(extra)
    pool = tuple(i for i in rest if i not in taken)
    return Repetition(*run, train, validation, extra, pool, fold.test_ids)


def _notes(dataset: Dataset, repetitions: Sequence[Repetition], group_of: Mapping[str, str], kind: str) -> list[str]:
    notes = ["one repetition: exploratory"] if len(repetitions) == 1 else []
    if planes := sorted({record.plane[0] for record in dataset if record.plane is not None}):
        axes = ", ".join(map(str, planes))
        notes.append(f"volumes are taken as slices along axis {axes}, a volume is a subject: every score is slice-wise")
    mixed = [
        r.label for r in repetitions if not {group_of[i] for i in r.train}.isdisjoint(group_of[i] for i in r.validation)
    ]
    if mixed:
        why = "the split as stated" if kind == "given" else "too few groups"
        notes.append(f"no validation part of its own, by {why}: it shares groups with training ({', '.join(mixed)})")
    return notes


def has_extra(splits: Splits, per_mask: int) -> bool:
    """Whether every repetition has as many extra real pairs as synthetic ones, which `more-real` needs."""
    return all(len(r.extra) == per_mask * len(r.train) for r in splits.repetitions)
