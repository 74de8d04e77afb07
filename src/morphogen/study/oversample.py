"""Real images over and over: what a balance of classes gives by itself, without synthetic images."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from morphogen.data.records import Dataset
from morphogen.training.rng import numpy_rng


def oversampled(dataset: Dataset, n: int, seed: int) -> Dataset:
    """The records, and copies of them up to `n` in all, by which the classes come as near to one size as they can.

    Every copy is of the class that is smallest so far. The records of a class are copied in a seeded order, all of them
    before any is copied again; a copy has the id ``ID~2``, ``ID~3``, ...

    Args:
        dataset: Every record has a class.
        n: Records in all, at least those that there are.
        seed: Of the order.
    """
    members: dict[str, list[int]] = {}
    for index, record in enumerate(dataset):
        members.setdefault(str(record.label), []).append(index)
    order = {name: numpy_rng(seed, "oversample", name).permutation(some).tolist() for name, some in members.items()}
    sizes, copies = Counter({name: len(some) for name, some in members.items()}), []
    for _ in range(n - len(dataset)):
        name = min(sizes, key=lambda name: (sizes[name], name))
        turn, position = divmod(sizes[name] - len(members[name]), len(members[name]))
        record = dataset[order[name][position]]
        copies.append(replace(record, id=f"{record.id}~{turn + 2}"))
        sizes[name] += 1
    return replace(dataset, records=(*dataset.records, *copies))
