"""The one sampling runner: ordered ids, any number of workers, and restarts that go on where the last one stopped."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from morphogen.errors import InputError, WorkError
from morphogen.files import write_text
from morphogen.progress import track
from morphogen.sampling import manifest
from morphogen.sampling.jobs import Job, Pair, Sampler
from morphogen.sampling.plan import Plan
from morphogen.sampling.shares import hold_share


@dataclass(frozen=True)
class RunSummary:
    """What one worker did: `total` pairs are its share, `made` of them new; `n` and `complete` are of the whole run.

    `what` they are: pairs, or images alone.
    """

    out: Path
    n: int
    total: int
    made: int
    complete: bool
    what: str


def run_jobs(
    sampler: Sampler,
    jobs: Plan | Sequence[Job],
    out: Path,
    batch_size: int = 8,
    shard: tuple[int, int] = (0, 1),
) -> RunSummary:
    """Make the pairs of one worker: ``images/ID.png``, ``masks/ID.png`` and a manifest row each.

    A plan without classes gives images alone: no ``masks/``, no ``classes.txt``, and rows that state one hash.

    Worker r of w takes ``jobs[r::w]``. A pair whose row and files verify is kept; the others are made in the batches
    in which an undisturbed run makes them, so a restart ends with the same bytes. The worker that finds every id
    present merges the rows into ``manifest.jsonl``. Masks are written as 0 and 255 where there are two classes, else
    as label ids; ``mask_values`` in every row says which.

    Args:
        sampler: The generator.
        jobs: The whole plan, the same for every worker.
        out: Folder of the run; workers share it.
        batch_size: Pairs per call of the sampler.
        shard: (r, w), r counting from 0.

    Raises:
        InputError: `out` holds something else, another run is making some of these pairs, or an option is out of range.
        WorkError: The files cannot be written (a full disk).
    """
    plan = jobs if isinstance(jobs, Plan) else Plan.of(jobs)
    worker, workers = shard
    if not 0 <= worker < workers:
        raise InputError(f"--shard: {worker}/{workers} names no worker; give I/N with I from 0 to N-1")
    check_batch_size(batch_size)
    share = Share(plan, out, sampler.hash, batch_size, worker, workers)
    with disk_faults(out), share.held():
        batches = share.todo()
        for batch, missing in track(batches, "sampling", len(batches)):
            share.make(sampler, batch, missing)
        return share.summary(sum(len(missing) for _, missing in batches))


def check_batch_size(batch_size: int) -> None:
    """Refuse a batch without pairs.

    Raises:
        InputError: It is one.
    """
    if batch_size < 1:
        raise InputError(f"--batch-size: is {batch_size}; give 1 or more")


@contextmanager
def disk_faults(out: Path) -> Iterator[None]:
    """Tell what keeps the block from writing into `out` in one line.

    Raises:
        WorkError: Something does.
    """
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        fault = "the disk is full; free some space" if full else f"{error.strerror or error}; make the folder writable"
        raise WorkError(f"{out}: {fault} and run the same command again") from error


@dataclass(frozen=True)
class Share:
    """The pairs of one worker, in batches: what is to be made, and how a batch is made and kept.

    Attributes:
        plan: The whole plan.
        out: Folder of the run.
        generator_hash: Of the sampler that makes the pairs.
        batch_size: Pairs per call of it.
        worker: r; the share is every w-th position from r on.
        workers: w.
        writer: Who writes the rows, into ``manifest-WRITER.jsonl``; of those at work at one time each has its own.
    """

    plan: Plan
    out: Path
    generator_hash: str
    batch_size: int
    worker: int = 0
    workers: int = 1
    writer: str = ""

    @property
    def positions(self) -> range:
        return range(self.worker, len(self.plan), self.workers)

    @property
    def identity(self) -> dict[str, Any]:
        """What tells this run from any other; the batch size and the number of workers do not."""
        return {
            "generator_hash": self.generator_hash,
            "plan": self.plan.digest,
            "n": len(self.plan),
            "classes": list(self.plan.classes),
            "mask_values": _mask_values(self.plan.classes),
        }

    @contextmanager
    def held(self) -> Iterator[None]:
        """Claim the folder, make what every worker needs in it, and keep other runs from this share.

        Raises:
            InputError: `out` holds something else, or another run is making some of these pairs.
        """
        manifest.claim_folder(self.out, self.identity)
        with hold_share(self.out, self.worker, self.workers):
            if self.plan.classes:
                write_text(self.out / "classes.txt", "\n".join(self.plan.classes) + "\n")
            for part in self._parts:
                (self.out / f"{part}s").mkdir(exist_ok=True)
            yield

    def todo(self) -> list[tuple[range, set[int]]]:
        """The batches in which something is missing, as an undisturbed run has them, with the positions that are."""
        rows, positions = manifest.read_rows(self.out), self.positions
        missing = {p for p in positions if not self._finished(rows.get(self.plan.ids[p]))}
        batches = [positions[i : i + self.batch_size] for i in range(0, len(positions), self.batch_size)]
        return [(batch, missing.intersection(batch)) for batch in batches if not missing.isdisjoint(batch)]

    def make(self, sampler: Sampler, batch: Sequence[int], missing: Collection[int]) -> None:
        """Sample one batch whole, and write what is missing of it: files first, then their rows."""
        jobs = [self.plan[position] for position in batch]
        pairs = sampler.sample(jobs)
        rows = []
        for position, job, pair in zip(batch, jobs, pairs, strict=True):
            if position in missing:
                _check(job, pair, len(self.plan.classes))
                rows.append(self._write(position, job, pair))
        manifest.append_rows(self.out / f"manifest-{self.writer or self.worker}.jsonl", rows)

    def _merge_if_complete(self) -> bool:
        rows = manifest.read_rows(self.out)
        complete = all(id_ in rows for id_ in self.plan.ids)
        if complete:
            manifest.merge(self.out, rows)
        return complete

    def summary(self, made: int) -> RunSummary:
        """Close a run in which `made` pairs were made: where every pair of the plan is there, merge the rows."""
        what = "pairs" if self.plan.classes else "images"
        return RunSummary(self.out, len(self.plan), len(self.positions), made, self._merge_if_complete(), what)

    @property
    def _parts(self) -> tuple[str, ...]:
        return ("image", "mask") if self.plan.classes else ("image",)

    def _finished(self, row: manifest.Row | None) -> bool:
        return row is not None and manifest.verifies(self.out, row, self._parts)

    def _write(self, position: int, job: Job, pair: Pair) -> manifest.Row:
        pngs = {"image": manifest.encode_png(pair.image)}
        if pair.mask is not None:
            raw = np.array([int(value) for value in _mask_values(self.plan.classes)], dtype=np.uint8)
            pngs["mask"] = manifest.encode_png(raw[pair.mask])
        for part, png in pngs.items():
            manifest.write_file(self.out / manifest.file_name(part, job.id), png)
        return {
            "id": job.id,
            "position": position,
            "seed": job.seed,
            "source_mask": job.source.id if job.source is not None else None,
            "prompt": pair.origin.get("prompt", job.prompt),  # as it was used: slots filled, or the sampler's own words
            "label": job.label,
            "generator_hash": self.generator_hash,
            "sha256": {part: hashlib.sha256(png).hexdigest() for part, png in pngs.items()},
            "mask_transform": job.params,
            "mask_values": _mask_values(self.plan.classes),
            "origin": pair.origin,
            "versions": versions(),
        }


def versions() -> dict[str, str]:
    """Releases of what the bytes of a pair may depend on."""
    return {name: version(name) for name in ("morphogen", "numpy", "pillow", "torch")}


def _mask_values(classes: Sequence[str]) -> dict[str, int]:
    """Raw value in the PNG (as text, for JSON) -> label id, in the order of the labels."""
    return {"0": 0, "255": 1} if len(classes) == 2 else {str(label): label for label in range(len(classes))}


def _check(job: Job, pair: Pair, classes: int) -> None:
    """A generator that breaks its promise is caught before its work reaches a training set."""
    image, mask = pair.image, pair.mask
    if (mask is None) != (classes == 0):
        made = "no mask" if mask is None else "a mask"
        raise WorkError(f"{job.id}: the generator made {made} for {classes} classes; report this fault")
    wanted = image.shape[:2] if mask is None else mask.shape
    if image.dtype != np.uint8 or image.shape != (*wanted, 3):
        raise WorkError(f"{job.id}: the generator made {image.dtype} {image.shape} for {wanted}; report this fault")
    if mask is not None and mask.size and not 0 <= mask.min() <= mask.max() < classes:
        raise WorkError(f"{job.id}: the generator made label {mask.max()} of {classes} classes; report this fault")
