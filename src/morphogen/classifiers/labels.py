"""The classes of a classifier: the labels of the records, by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from morphogen.data.records import Dataset
from morphogen.errors import InputError


def classes_of(train: Iterable[Dataset], given: Sequence[str] = (), absent: bool = False) -> tuple[str, ...]:
    """The classes that are told apart, in the order of their ids.

    Args:
        train: What is trained on; every class must occur in it, unless `absent`.
        given: The classes in their order; where empty, all labels that occur, sorted.
        absent: Whether a class of `given` may have no records: it is told apart, and never learnt.

    Raises:
        InputError: A record has no label or one that is not among `given`; a class is given twice or has no records;
            there are fewer than two, or no records.
    """
    datasets = list(train)
    roots = " ".join(dict.fromkeys(str(data.root) for data in datasets))
    found = {label for data in datasets for label in _labels(data)}
    if not found:
        raise InputError(f"{roots}: there is nothing to train on; the training part is empty")
    classes = tuple(given) or tuple(sorted(found))
    for name in classes:
        if classes.count(name) > 1:
            raise InputError(f"classes: {name!r} is given twice; give every class once")
        if name not in found and not absent:
            raise InputError(f"{roots}: holds no training record of class {name!r}; add some, or leave the class out")
    for data in datasets:
        class_ids(data, classes)
    if len(classes) < 2:
        raise InputError(f"{roots}: all records are of class {classes[0]!r}; a classifier needs two classes or more")
    return classes


def refuse_rare(data: Dataset) -> None:
    """Refuse classes that cannot be both learnt and validated.

    Raises:
        InputError: A class has a single image.
    """
    counts = Counter(_labels(data))
    for record in data:
        if counts[str(record.label)] == 1:
            fault = f"a single image ({record.id!r}) is of class {record.label!r}, too few to learn and to validate"
            raise InputError(f"{data.root}: {fault}; add some, or leave it out")


def class_ids(data: Dataset, classes: Sequence[str]) -> list[int]:
    """The class id of every record, in order.

    Raises:
        InputError: A record has no label, or one that is not among `classes`.
    """
    ids = {name: k for k, name in enumerate(classes)}
    labels = _labels(data)
    for record, label in zip(data, labels, strict=True):
        if label not in ids:
            raise InputError(
                f"{data.root}: record {record.id!r} is of class {label!r}, which is none of {', '.join(classes)}; "
                "correct its class, or give all classes"
            )
    return [ids[label] for label in labels]


def _labels(data: Dataset) -> list[str]:
    labels = [record.label for record in data if record.label]
    if len(labels) < len(data):
        record = next(record for record in data if not record.label)
        raise InputError(
            f"{data.root}: {len(data) - len(labels)} of {len(data)} records have no class (first {record.id!r}); "
            "fill the column class of records.csv, or leave these records out"
        )
    return labels
