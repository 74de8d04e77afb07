"""The sampling runner's batches on Ray Data: a pool of actors, each with a sampler on a device of its own.

The batches are the rows of a data set, and an actor makes one as the plain runner does (`runner.Share.make`): the same
files with the same bytes, in a folder that all machines share. Only the rows of the manifest lie in other files until
they are merged. A batch whose actor is lost is made again by another one, over what was left of it.
"""

from __future__ import annotations

import socket
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from morphogen.cluster import Crew, crew, plain_faults
from morphogen.errors import MorphogenError, WorkError
from morphogen.progress import Stage
from morphogen.sampling import manifest
from morphogen.sampling.jobs import Sampler
from morphogen.sampling.plan import Plan
from morphogen.sampling.runner import RunSummary, Share, check_batch_size, disk_faults, versions

Load = Callable[[], tuple[Sampler, Plan]]
"""Makes the sampler and the plan anew wherever it is called; Ray sends it to the actors."""
MOST_BLOCKS = 10_000
"""Blocks of the data set. A block is what is made again with a lost actor, and each costs Ray some milliseconds."""
LIVES = 3
"""How often an actor may be lost, and a block with it, before the run fails: what kills every actor ends it."""


def run_on_ray(
    load: Load, here: Load, out: Path, batch_size: int = 8, address: str = "local", workers: int | None = None
) -> RunSummary:
    """Make all pairs of a plan as `runner.run_jobs` does, by the workers of a Ray cluster.

    Args:
        load: Sampler and plan, on the device of a worker; paths in it are absolute, and the same on all machines.
        here: The same on this machine, which samples nothing.
        out: Folder of the run, absolute, on a file system that all machines share.
        batch_size: Pairs per call of the sampler; equal ones give equal bytes.
        address: See `morphogen.cluster.crew`.
        workers: The same.

    Raises:
        InputError: As of `run_jobs` and `crew`.
        WorkError: The files cannot be written, a worker sees other inputs than this machine, or none survives.
    """
    check_batch_size(batch_size)
    with crew(address, workers) as found:
        sampler, plan = here()
        share = Share(plan, out, sampler.hash, batch_size)
        del sampler  # of which the workers have their own
        with disk_faults(out), share.held():
            return share.summary(_make(share, load, found))


def _make(share: Share, load: Load, found: Crew) -> int:
    """Have the workers make what is missing; returns how many pairs that is."""
    import ray.data

    todo = share.todo()
    if not todo:
        return 0
    rows = [{"batch": list(batch), "missing": sorted(missing)} for batch, missing in todo]
    size = min(found.size, len(rows))
    expected = {**share.identity, "versions": versions()}
    options: dict[str, Any] = {**found.each, "max_restarts": LIVES, "max_task_retries": LIVES}
    made = 0
    with plain_faults(), warnings.catch_warnings(), Stage("sampling", len(rows)) as stage:
        warnings.filterwarnings(
            "ignore", "`ray_remote_args` is deprecated"
        )  # there until 2.64, without another way yet
        done = ray.data.from_items(rows, override_num_blocks=min(len(rows), MOST_BLOCKS)).map_batches(
            Actor,
            fn_constructor_args=(load, share.out, share.batch_size, expected),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=2),
            **options,
        )
        for row in done.iter_rows():
            if row["fault"]:
                raise WorkError(row["fault"])
            made += row["made"]
            stage.advance()
    return made


class Actor:
    """One worker. What it needs is loaded with its first batch, so that a fault of that is told like any other.

    Args:
        load: Makes the sampler and the plan.
        out: Folder of the run.
        batch_size: Of the run; the batches themselves come as rows.
        expected: The run's identity and versions as the command's machine has them.
    """

    def __init__(self, load: Load, out: Path, batch_size: int, expected: Mapping[str, Any]) -> None:
        self._load, self._out, self._batch_size, self._expected = load, out, batch_size, dict(expected)
        self._ready: tuple[Sampler, Share] | None = None

    def __call__(self, rows: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Make the batch of one row: ``batch`` and ``missing`` positions.

        Returns:
            How many pairs were ``made``, and the ``fault`` that kept it from that, if any: Ray adds words of its own to
            what is raised.
        """
        batch, missing = ([int(position) for position in rows[name][0]] for name in ("batch", "missing"))
        try:
            with disk_faults(self._out):
                sampler, share = self._ready = self._ready or self._prepare()
                share.make(sampler, batch, missing)
        except MorphogenError as error:
            return {"made": [0], "fault": [str(error)]}
        return {"made": [len(missing)], "fault": [""]}

    def _prepare(self) -> tuple[Sampler, Share]:
        sampler, plan = self._load()
        writer = f"ray-{uuid4().hex[:12]}"
        share = Share(plan, self._out, sampler.hash, self._batch_size, writer=writer)
        found = {**share.identity, "versions": versions()}
        for name, value in self._expected.items():
            if found[name] != value:
                fault = f"has another {name.replace('_', ' ')} than the machine of the command"
                raise WorkError(f"{socket.gethostname()}: {fault}; give all machines the same folders and packages")
        if not (self._out / manifest.CLAIM).is_file():
            raise WorkError(
                f"{self._out}: is not to be seen from {socket.gethostname()}; name a shared folder for --out"
            )
        return sampler, share
