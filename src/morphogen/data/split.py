"""Which records train and which test: whole subjects on one side.

Groups are subjects; a record without one is grouped with its near-duplicates, and so with their subject.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from morphogen.data.duplicates import groups_of, near_duplicate_pairs, signatures
from morphogen.data.records import Dataset
from morphogen.errors import InputError

FEW_SUBJECTS = 150
TEST_FRACTION, VAL_FRACTION = 0.2, 0.1
_LEAST_SUBJECTS = 5


@dataclass(frozen=True)
class Fold:
    """One division into parts, by record ids in the order of the dataset. `val_ids` is empty under k-fold."""

    train_ids: tuple[str, ...]
    test_ids: tuple[str, ...]
    val_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Division:
    """All divisions of a data set for a study.

    Attributes:
        kind: ``kfold`` (every record is tested once), ``fixed`` (drawn once), or ``given`` (stated by the data).
        grouped_by: ``subject`` or ``near-duplicates``: what never parts (what the data state may part it).
        seed: What it was drawn from.
        fingerprint: SHA-256 of the sorted record ids.
        notes: What a reader of the split should know.
        folds: One fold where the split is fixed or given.
    """

    kind: str
    grouped_by: str
    seed: int
    fingerprint: str
    notes: tuple[str, ...]
    folds: tuple[Fold, ...]


def ids_hash(ids: Iterable[str]) -> str:
    """SHA-256 of the sorted ids: the same set of records, whatever their order."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()


def groups(dataset: Dataset) -> list[str]:
    """Group of every record: its subject, or where it has none that of its near-duplicates, or the id of their first.

    Two subjects with near-duplicates of one record that has none are one group, named after the first of them.

    Raises:
        InputError: An image cannot be read.
    """
    subjects = [record.subject for record in dataset]
    if all(subjects):
        return [str(subject) for subject in subjects]
    # subjects are as stated: only a pair with a record that has none says anything new
    pairs = [(i, j) for i, j in near_duplicate_pairs(signatures(dataset)) if not (subjects[i] and subjects[j])]
    first: dict[str, int] = {}
    pairs += [(first.setdefault(subject, i), i) for i, subject in enumerate(subjects) if subject]
    numbers, names = groups_of(len(dataset), pairs), dict[int, str]()
    for number, subject in zip(numbers, subjects, strict=True):
        if subject:
            names.setdefault(number, subject)
    return [names.setdefault(number, i) for number, i in zip(numbers, dataset.ids, strict=True)]


def _groups_by_id(dataset: Dataset) -> dict[str, str]:
    return dict(zip(dataset.ids, groups(dataset), strict=True))


def grouped_folds(dataset: Dataset, k: int = 5, seed: int = 0) -> list[Fold]:
    """k folds with every group tested once, balanced by the number of images.

    Groups are taken from the largest to the smallest, ties in a seeded order, each into the smallest fold so far.

    Raises:
        InputError: Fewer groups than folds, or k below 2.
    """
    return _folds(dataset, _groups_by_id(dataset), k, seed)


def _folds(dataset: Dataset, group_of: dict[str, str], k: int, seed: int) -> list[Fold]:
    ids, members = dataset.ids, _members(dataset.ids, group_of)
    if k < 2:
        raise InputError(f"--folds: {k} is not enough; give 2 or more")
    if len(members) < k:
        fault = f"has {len(members)} subjects or groups of near-duplicates, too few for {k} folds"
        raise InputError(f"{dataset.root}: {fault}; give --folds {max(len(members), 2)}, or more subjects")
    tested: list[set[str]] = [set() for _ in range(k)]
    for group in sorted(_shuffled(members, seed, "folds"), key=lambda group: -len(members[group])):
        min(tested, key=len).update(members[group])
    return [Fold(tuple(i for i in ids if i not in test), tuple(i for i in ids if i in test)) for test in tested]


def make_splits(dataset: Dataset, seed: int = 0, k: int = 5) -> Division:
    """The division for a study: the one that the data state, else k-fold below 150 groups, else a fixed one.

    A fixed split tests a fifth of the images and validates on a tenth, by whole groups.

    Raises:
        InputError: Only some records state their split, a stated part is missing, or there are too few groups.
    """
    grouped_by = "subject" if all(record.subject for record in dataset) else "near-duplicates"
    group_of = _groups_by_id(dataset)
    folds: tuple[Fold, ...]
    if any(record.split for record in dataset):
        kind, folds = "given", (_given(dataset),)
    elif len(set(group_of.values())) < FEW_SUBJECTS:
        kind, folds = "kfold", tuple(_folds(dataset, group_of, k, seed))
    else:
        kind, folds = "fixed", (_fixed(dataset, group_of, seed),)
    notes = tuple(note for fold in folds for note in _shared(fold, group_of, grouped_by))
    return Division(kind, grouped_by, seed, ids_hash(dataset.ids), notes, folds)


def _fixed(dataset: Dataset, group_of: dict[str, str], seed: int) -> Fold:
    test = _take(dataset.ids, group_of, TEST_FRACTION, seed, "test")
    rest = [i for i in dataset.ids if i not in test]
    val = _take(rest, group_of, VAL_FRACTION * len(dataset) / len(rest), seed, "val")
    train = (i for i in rest if i not in val)
    return Fold(tuple(train), tuple(i for i in dataset.ids if i in test), tuple(i for i in rest if i in val))


def _shared(fold: Fold, group_of: dict[str, str], grouped_by: str) -> list[str]:
    """How far a stated split leaks; those that are drawn here keep groups together."""
    learnt = {group_of[i] for i in (*fold.train_ids, *fold.val_ids)}
    both = learnt & {group_of[i] for i in fold.test_ids}
    if not both:
        return []
    inside = sum(group_of[i] in both for i in fold.test_ids)
    where = f"{len(both)} groups ({grouped_by}) are in both the training and the test part"
    return [f"{where}: the stated split leaks, {inside} of {len(fold.test_ids)} test images are of these groups"]


def _given(dataset: Dataset) -> Fold:
    for record in dataset:
        if record.split is None:
            fault = f"{record.id!r} has no split although others have"
            raise InputError(f"{dataset.root}: {fault}; give one to all or to none")
    parts = {name: tuple(r.id for r in dataset if r.split == name) for name in ("train", "test", "val")}
    for name in ("train", "test"):
        if not parts[name]:
            raise InputError(f"{dataset.root}: its stated split has no {name} part; add it, or drop the split column")
    return Fold(parts["train"], parts["test"], parts["val"])


def draw_annotated(dataset: Dataset, n: int, seed: int = 0) -> tuple[str, ...]:
    """n annotated records, spread evenly over the subjects, nested: a smaller n is the beginning of a larger one.

    The order is fixed by the seed: subjects are shuffled, so are the records of each, and every round takes one record
    of each subject that has one left.

    Raises:
        InputError: More are asked for than there are, or none.
    """
    annotated = dataset.annotated
    if not 0 < n <= len(annotated):
        fault = f"{n} pairs cannot be drawn from the {len(annotated)} annotated ones of {dataset.root}"
        raise InputError(f"--annotated: {fault}; give a number from 1 to that")
    members = _members(annotated.ids, {r.id: r.subject or r.id for r in annotated})
    queues = [_shuffled(members[g], seed, "record", g) for g in _shuffled(members, seed, "annotated")]
    rounds = range(max(map(len, queues)))
    return tuple(queue[i] for i in rounds for queue in queues if i < len(queue))[:n]


def take_validation(
    dataset: Dataset, ids: Sequence[str], fraction: float = 0.2, seed: int = 0, by_class: bool = False
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Divide these records into training and validation ids, by whole subjects.

    With fewer than five subjects, near-duplicate groups are kept together instead.

    Args:
        dataset: Holds the records.
        ids: What to divide; both results keep its order.
        fraction: Aimed-at part of the images for validation; at least one group, and never all.
        seed: Chooses the groups.
        by_class: Take that part of the images of every class, so far as it has two groups or more; a group counts for
            the rarest class in it.

    Returns:
        (train ids, validation ids).

    Raises:
        InputError: Fewer than two groups.
    """
    chosen = dataset.select(ids)
    group_of = _groups_by_id(chosen)
    if len(set(group_of.values())) < min(_LEAST_SUBJECTS, len(ids)):
        group_of = _groups_by_id(replace(chosen, records=tuple(replace(record, subject=None) for record in chosen)))
    if len(set(group_of.values())) < 2:
        raise InputError(f"{dataset.root}: {len(ids)} images cannot be divided for validation; annotate more")
    strata = _strata(chosen, group_of) if by_class else [list(ids)]
    val = set().union(*(_take(part, group_of, fraction, seed, "validation") for part in strata))
    return tuple(i for i in ids if i not in val), tuple(i for i in ids if i in val)


def _strata(dataset: Dataset, group_of: dict[str, str]) -> list[list[str]]:
    """The ids by the rarest class of their group, without the classes that have one group."""
    counts = Counter(record.label for record in dataset)
    rarest: dict[str, str] = {}
    for record in dataset:
        known = rarest.setdefault(group_of[record.id], str(record.label))
        rarest[group_of[record.id]] = min(known, str(record.label), key=lambda name: (counts[name], name))
    parts = [[i for i in dataset.ids if rarest[group_of[i]] == name] for name in sorted(set(rarest.values()))]
    return [part for part in parts if len({group_of[i] for i in part}) > 1]


def _take(ids: Sequence[str], group_of: dict[str, str], fraction: float, seed: int, use: str) -> set[str]:
    """Ids of whole groups, in a seeded order, each taken where it brings the count nearer to the fraction."""
    members = _members(ids, group_of)
    wanted = fraction * len(ids)
    taken: set[str] = set()
    order = _shuffled(members, seed, use)
    for group in order:
        if len(taken) + len(members[group]) / 2 <= wanted:
            taken.update(members[group])
    return taken or set(members[min(order, key=lambda group: len(members[group]))])


def _members(ids: Iterable[str], group_of: dict[str, str]) -> dict[str, list[str]]:
    members: dict[str, list[str]] = defaultdict(list)
    for i in ids:
        members[group_of[i]].append(i)
    return dict(members)


def _shuffled(items: Iterable[str], seed: int, *use: str) -> list[str]:
    ordered = sorted(items)
    rng = np.random.default_rng([seed, *"\x1f".join(use).encode()])
    return [ordered[i] for i in rng.permutation(len(ordered))]
