"""The ordered list of synthetic pairs to make; each job is built from its id alone, at the moment when it is wanted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np

from morphogen.data.mask_transforms import MASK_TRANSFORMS, transform_mask
from morphogen.data.mask_transforms import VERSION as MASK_VERSION
from morphogen.data.masks import load_mask, resize_labels
from morphogen.data.records import Dataset, Record
from morphogen.errors import InputError
from morphogen.sampling.jobs import Job
from morphogen.training.rng import numpy_rng, seed_of

BINARY = ("background", "lesion")


class Plan(Sequence[Job]):
    """Jobs that are made on demand, so that a million of them do not sit in memory.

    Attributes:
        ids: Id of every job, in order; each is the stem of the files written for it.
        classes: Class names by label id of the masks; empty where images alone are to be made.
        digest: SHA-256 of everything that the jobs follow from; no path is part of it.
    """

    def __init__(self, ids: Sequence[str], make: Callable[[int], Job], classes: Sequence[str], digest: str) -> None:
        self.ids = tuple(ids)
        self.classes = tuple(classes)
        self.digest = digest
        self._make = make
        _check_ids(self.ids)

    @classmethod
    def of(cls, jobs: Sequence[Job], classes: Sequence[str] = BINARY) -> Plan:
        """A plan of jobs that exist already."""
        digest = hashlib.sha256(repr(tuple(classes)).encode())
        for job in jobs:
            facts = [job.id, job.seed, job.prompt, job.params, *([] if job.label is None else [job.label])]
            digest.update(json.dumps(facts, sort_keys=True, default=str).encode())
            if job.mask is not None:
                digest.update(repr(job.mask.shape).encode() + job.mask.astype("<i8").tobytes())
            if job.image is not None:
                digest.update(repr(job.image.shape).encode() + job.image.tobytes())
        return cls([job.id for job in jobs], jobs.__getitem__, classes, digest.hexdigest())

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Job: ...
    @overload
    def __getitem__(self, index: slice) -> list[Job]: ...
    def __getitem__(self, index: int | slice) -> Job | list[Job]:
        if isinstance(index, slice):
            return [self._make(i) for i in range(len(self))[index]]
        return self._make(range(len(self))[index])


def plan_jobs(
    masks: Dataset,
    per_mask: int,
    transform: str,
    seed: int,
    prompt: str | Sequence[str] | None = None,
    size: int | None = None,
) -> Plan:
    """Plan `per_mask` pairs for every annotated record of `masks`.

    The job of id ``{mask id}_{copy:02d}`` has the seed ``seed_of(seed, id)``, and its mask is the record's, transformed
    by that seed, then resized to (size, size) by nearest neighbour (the aspect is not kept, as in training).

    Args:
        masks: Records without a mask are passed over.
        per_mask: Pairs per mask, at least 1.
        transform: Name of a mask transform (`morphogen.data.mask_transforms`).
        seed: Seed of the run.
        prompt: One text for all jobs, or several which the jobs take in turn.
        size: Side length in pixels; None keeps the native size.

    Raises:
        InputError: Nothing is annotated, the transform is unknown, or `per_mask` is below 1.
    """
    records = masks.annotated.records
    if not records:
        raise InputError(f"{masks.root}: holds no masks; give a folder with masks to sample for")
    if transform not in MASK_TRANSFORMS:
        raise InputError(f"--mask-transform: {transform!r} is none of {', '.join(MASK_TRANSFORMS)}; choose one of them")
    _check_copies(per_mask)
    ids = [f"{record.id}_{copy:02d}" for record in records for copy in range(per_mask)]
    prompts = [prompt] if prompt is None or isinstance(prompt, str) else list(prompt)

    def make(index: int) -> Job:
        record, id_ = records[index // per_mask], ids[index]
        job_seed = seed_of(seed, id_)
        mask, params = transform_mask(load_mask(record, masks.mask_values), transform, job_seed)
        mask = mask if size is None else resize_labels(mask, (size, size)).astype(np.int64)
        return Job(id_, job_seed, mask, record, prompts[index % len(prompts)], params=dict(params))

    facts = [
        ids,
        masks.classes,
        content_of(records),
        sorted(masks.mask_values.items()),
        transform,
        MASK_VERSION,
        seed,
        prompts,
        size,
    ]
    return Plan(ids, make, masks.classes, hashlib.sha256(json.dumps(facts).encode()).hexdigest())


def cyclic(count: int, n: int, seed: int) -> list[tuple[int, int]]:
    """`n` draws from `count` masks: all of them in a seeded order, and again from the start.

    Returns:
        (index of the mask, copy) of every draw; the first k are the same for every n >= k.
    """
    order = numpy_rng(seed, "order of masks").permutation(count).tolist()
    return [(order[draw % count], draw // count) for draw in range(n)]


def plan_cycle(
    masks: Dataset, n: int, transform: str, seed: int, prompt: str | None = None, size: int | None = None
) -> Plan:
    """Plan `n` pairs for the masks in turn (`cyclic`); each is the pair that `plan_jobs` plans under its id.

    Args:
        masks: Records without a mask are passed over.
        n: Pairs, at least 1.
        transform: Name of a mask transform (`morphogen.data.mask_transforms`).
        seed: Seed of the run.
        prompt: One text for all jobs.
        size: Side length in pixels; None keeps the native size.

    Raises:
        InputError: Nothing is annotated, the transform is unknown, or `n` is below 1.
    """
    count = len(masks.annotated)
    copies = -(-n // max(count, 1))
    every = plan_jobs(masks, copies, transform, seed, prompt, size)
    positions = [index * copies + copy for index, copy in cyclic(count, n, seed)]
    digest = hashlib.sha256(json.dumps([every.digest, positions]).encode()).hexdigest()
    return Plan([every.ids[p] for p in positions], lambda i: every[positions[i]], masks.classes, digest)


def plan_prompts(prompts: Sequence[str], per_prompt: int, seed: int, classes: Sequence[str] = BINARY) -> Plan:
    """Plan `per_prompt` pairs for every text, for generators that make their own mask, or images alone.

    The ids are ``text{line:04d}_{copy:02d}``, lines counted from 1.

    Args:
        prompts: The texts.
        per_prompt: Pairs per text, at least 1.
        seed: Seed of the run.
        classes: Class names by label id of the masks; empty for images alone.

    Raises:
        InputError: There is no text, or `per_prompt` is below 1.
    """
    if not prompts:
        raise InputError("--prompts: holds no text; write one prompt a line")
    _check_copies(per_prompt)
    ids = [f"text{line:04d}_{copy:02d}" for line in range(1, len(prompts) + 1) for copy in range(per_prompt)]

    def make(index: int) -> Job:
        return Job(ids[index], seed_of(seed, ids[index]), prompt=prompts[index // per_prompt])

    digest = hashlib.sha256(json.dumps([ids, seed, list(prompts)]).encode()).hexdigest()
    return Plan(ids, make, classes, digest)


def _check_copies(copies: int) -> None:
    if copies < 1:
        raise InputError(f"--per-mask: is {copies}; give 1 or more")


def _check_ids(ids: Sequence[str]) -> None:
    """Ids become file names in a folder, so each must be a plain and unique one."""
    for id_ in ids:
        if not id_ or id_.startswith(".") or any(c in id_ for c in "/\\\0"):
            raise InputError(f"{id_!r}: is no name for a file; rename the record")
    if len(set(ids)) != len(ids):
        twice = next(a for a, b in zip(sorted(ids), sorted(ids)[1:], strict=False) if a == b)
        raise InputError(f"{twice}: two pairs have this id; rename one of the records")


def content_of(records: Sequence[Record], part: Literal["mask", "image"] = "mask") -> list[Any]:
    """What the masks (or images) hold, each file hashed once (slices of one volume share it)."""
    hashes: dict[Path, str] = {}
    content: list[Any] = []
    for record in records:
        path = record.mask if part == "mask" else record.image
        if path is None:
            continue
        if path not in hashes:
            hashes[path] = hashlib.sha256(path.read_bytes()).hexdigest()
        content.append([hashes[path], record.plane])
    return content
