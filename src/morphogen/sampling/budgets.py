"""How many pairs of each class to make, and the plan of pairs that a generator makes from captions of its own."""

from __future__ import annotations

import difflib
import hashlib
import heapq
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from morphogen.errors import InputError
from morphogen.sampling.jobs import Job
from morphogen.sampling.plan import BINARY, Plan, cyclic
from morphogen.training.rng import seed_of

NONE, LARGEST = "none", "largest"
Label = str | None
Budget = Mapping[Label, int]
"""Class -> pairs to make; the key None stands for images whose class nobody stated."""


@dataclass(frozen=True)
class Caption:
    """What one training image was described with: its class, or None, and the text."""

    label: Label
    text: str


def check_balance(words: str, option: str = "--balance") -> None:
    """Refuse what is no way to balance, before any class is known.

    Args:
        words: As for `budget`.
        option: What the user wrote it after, for the error.

    Raises:
        InputError: `words` is none of the ways, or a number is none.
    """
    if words in (NONE, LARGEST) or _count(words):
        return
    for part in words.split(","):
        name, sign, n = part.partition("=")
        if not (name.strip() and sign):
            hint = "give none, largest, a number to fill every class up to, or class=number,class=number"
            raise InputError(f"{option} {words}: {hint}")
        if not _count(n):
            raise InputError(f"{option} {words}: {n!r} is no whole number from 1 on; write for example {name}=20")


def budget(
    labels: Sequence[Label], words: str, n: int | None = None, option: str = "--balance", which: str = ""
) -> dict[Label, int]:
    """The pairs to make of each class.

    Args:
        labels: Class of every real training image, None where it has none.
        words: ``none``: `n` pairs, in proportion to the real images. ``largest``: as many as fill every class up to the
            largest one. A number: as many as fill every class up to it. ``melanoma=100,nevus=20``: these. Classes that
            need none are left out, and images without a class count for ``none`` alone.
        n: Pairs for ``none``; as many as there are labels by default.
        option: What the user wrote `words` after, for errors.
        which: What else is true of those images, where they are not all, for errors; as " with a mask".

    Returns:
        Class -> pairs, at least 1 each.

    Raises:
        InputError: `words` is none of the above, names an unknown class, or asks for no pair at all.
    """
    check_balance(words, option)
    if words == NONE:
        return dict(Counter(apportion(Counter(labels), len(labels) if n is None else n)))
    counts = Counter(label for label in labels if label is not None)
    if not counts:
        raise InputError(f"{option} {words}: the training images{which} have no classes (column class of records.csv)")
    if words != LARGEST and not _count(words):
        return {_class(name, counts, option, which): int(n_) for name, n_ in _stated(words, option).items()}
    target = max(counts.values()) if words == LARGEST else int(words)
    found: dict[Label, int] = {label: target - counts[label] for label in sorted(counts) if counts[label] < target}
    if not found:
        least = min(counts.values())
        raise InputError(f"{option} {words}: every class has {least} images{which} or more already; ask for more")
    return found


def apportion(weights: Mapping[Label, int], n: int) -> list[Label]:
    """`n` seats among classes by Webster's and Sainte-Lague's divisors, in the order in which they are given.

    The first k are the same for every n >= k, and as near to the proportions as k seats can be.

    Args:
        weights: Class -> weight above 0.
        n: Seats.
    """
    queue = [(1 / (2 * weight), "" if label is None else label, label, 0) for label, weight in weights.items()]
    heapq.heapify(queue)
    found: list[Label] = []
    while queue and len(found) < n:
        _, name, label, given = heapq.heappop(queue)
        found.append(label)
        heapq.heappush(queue, ((2 * given + 3) / (2 * weights[label]), name, label, given + 1))
    return found


def plan_captions(captions: Sequence[Caption], pairs: Budget, seed: int, classes: Sequence[str] = BINARY) -> Plan:
    """Plan pairs from captions, for generators that make their own masks.

    A class's captions are taken in an order that the seed shuffles, over and over; its pairs have the ids
    ``CLASS_0001``, ..., so that a pair is the same one in every budget. The classes come in turn, in proportion to the
    budget; where the budget is in proportion to the captions, the first k jobs are the same for every number of pairs.

    Args:
        captions: Those of the training images.
        pairs: Class -> pairs (`budget`).
        seed: Seed of the run.
        classes: Class names by label id of the masks.

    Raises:
        InputError: A class has no captions.
    """
    own: dict[Label, list[str]] = {}
    for caption in captions:
        own.setdefault(caption.label, []).append(caption.text)
    for empty in (label for label, n in pairs.items() if n and label not in own):
        known = ", ".join(sorted(label for label in own if label is not None)) or "none"
        raise InputError(f"{empty!r} is an empty class: no caption is of it; the classes with captions are {known}")
    queues = {label: _queue(label, own[label], n, seed) for label, n in pairs.items() if n}
    taken = Counter[Label]()
    rows: list[tuple[str, str, Label]] = []
    for label in _turns(Counter(caption.label for caption in captions), pairs):
        rows.append((*queues[label][taken[label]], label))
        taken[label] += 1

    def make(index: int) -> Job:
        id_, text, label = rows[index]
        return Job(id_, seed_of(seed, id_), prompt=text, label=label)

    digest = hashlib.sha256(json.dumps([rows, seed, list(classes)]).encode()).hexdigest()
    return Plan([id_ for id_, _, _ in rows], make, classes, digest)


def _turns(counts: Mapping[Label, int], pairs: Budget) -> list[Label]:
    """The order of classes."""
    n = sum(pairs.values())
    in_proportion = apportion(counts, n)
    if Counter(in_proportion) == Counter({label: k for label, k in pairs.items() if k}):
        return in_proportion
    return apportion({label: k for label, k in pairs.items() if k}, n)


def _queue(label: Label, texts: Sequence[str], n: int, seed: int) -> list[tuple[str, str]]:
    """(id, text) of the pairs of one class, in order."""
    slug = re.sub(r"[\W_]+", "-", (label or "").lower()).strip("-") or "pair"
    order = cyclic(len(texts), n, seed_of(seed, f"captions of {label}"))
    return [(f"{slug}_{k:04d}", texts[position]) for k, (position, _) in enumerate(order, start=1)]


def _count(word: str) -> bool:
    return word.isascii() and word.isdigit() and int(word) > 0


def _stated(words: str, option: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in words.split(","):
        name, _, n = part.partition("=")
        if (plain := _plain(name)) in found:
            raise InputError(f"{option} {words}: names {plain!r} twice; name it once")
        found[plain] = n
    return found


def _class(name: str, counts: Mapping[str, int], option: str, which: str) -> str:
    """The class of the data that a user means, whose case and underscores may differ."""
    known = {_plain(label): label for label in counts}
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {known[near[0]]}?" if near else f"the classes are {', '.join(sorted(counts))}"
        raise InputError(f"{option} {name}: no training image{which} is of this class; {hint}")
    return known[name]


def _plain(label: str) -> str:
    return " ".join(label.replace("_", " ").lower().split())
