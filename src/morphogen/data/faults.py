"""One fault of a data set, and the two ways to treat it: stop at the first, or collect them all."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from morphogen.errors import InputError

logger = logging.getLogger("morphogen.data")


@dataclass(frozen=True)
class Fault:
    """What is wrong with one file.

    Attributes:
        file: The file or folder.
        fault: What is wrong, as the rest of a sentence that begins with the file name.
        remedy: What to do about it, in the imperative.
        fatal: Whether it stops a study; the others are notes.
    """

    file: Path
    fault: str
    remedy: str
    fatal: bool = True

    def __str__(self) -> str:
        return f"{self.file}: {self.fault}; {self.remedy}"


Sink = Callable[[Fault], None]
"""Receives faults as they are found. A sink that returns asks the reader to go on without the faulty record."""


def stop(fault: Fault) -> None:
    """The sink of every consumer: raise at the first fatal fault, log the notes.

    Raises:
        InputError: The fault is fatal.
    """
    if fault.fatal:
        raise InputError(str(fault))
    logger.warning("%s", fault)


class FaultError(InputError):
    """An `InputError` that keeps its fault, so that `check` can collect what a loader raised."""

    def __init__(self, file: Path, fault: str, remedy: str) -> None:
        self.fault = Fault(file, fault, remedy)
        super().__init__(str(self.fault))
