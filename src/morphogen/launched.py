"""Several processes that a launcher (torchrun, accelerate) has started together: which one this is, and who speaks."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

PATIENCE = 5.0
"""Seconds within which a launcher ends the other processes once one has failed."""


@dataclass(frozen=True)
class Place:
    """This process among `world`: `rank` among all, `local_rank` among those of its machine, both from 0."""

    rank: int = 0
    local_rank: int = 0
    world: int = 1


def place() -> Place:
    """What the launcher says in the environment; the only process where there was none."""
    world = int(os.environ.get("WORLD_SIZE") or 1)
    if world == 1:
        return Place()
    rank = int(os.environ.get("RANK") or 0)
    return Place(rank, int(os.environ.get("LOCAL_RANK") or rank), world)


def tells_of_failure(known: bool = True, everywhere: bool = False) -> bool:
    """Whether this process is the one to tell the user of its failure; it returns when it is its turn.

    What all processes of a machine find, the first of them says at once. Any other one waits: if the first has failed
    too, the launcher ends it meanwhile. So does the first where it does not know its fault, which may be that another
    process has gone.

    Args:
        known: The fault is one that the package names, as opposed to an exception that nobody foresaw.
        everywhere: Every process is sure to fail alike, so that only the first need speak.
    """
    here = place()
    if here.world > 1 and (here.local_rank or not known):
        if everywhere:
            return not here.local_rank
        time.sleep(PATIENCE if here.local_rank else PATIENCE / 2)
    return True
