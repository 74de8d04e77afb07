"""Progress with time left: a bar on a terminal, plain lines every few seconds elsewhere.

Of several processes that were launched together, the first one speaks.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TYPE_CHECKING, TypeVar

from morphogen.launched import place

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

T = TypeVar("T")

SECONDS_BETWEEN_LINES = 10.0


def say(line: str) -> None:
    """Print one line for the reader, above any bar that is showing."""
    if place().rank:
        return
    if _BARS:
        _BARS[0].console.print(line, markup=False, highlight=False, soft_wrap=True)
    else:
        print(line, flush=True)


def track(iterable: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield from `iterable` and show how far it is.

    Args:
        iterable: The work, one item a step.
        description: What is being done, a few words.
        total: Number of items; `len(iterable)` where it has one.
    """
    total = len(iterable) if total is None and isinstance(iterable, Sized) else total
    with Stage(description, total) as stage:
        for item in iterable:
            yield item
            stage.advance()


class Stage:
    """One stage of the work, to be used in a ``with``; stages may lie within one another.

    Args:
        description: What is being done, a few words.
        total: Number of steps, or None where unknown.
        start: Steps that an earlier run has done; they do not count in the estimate of the time left.
    """

    def __init__(self, description: str, total: int | None = None, start: int = 0) -> None:
        self.description = description
        self.total = total
        self.start = self.done = start
        self._task: TaskID | None = None

    def __enter__(self) -> Stage:
        self._began = self._said = time.monotonic()
        self._silent = place().rank > 0
        if sys.stdout.isatty() and not self._silent:
            bar = _BARS[-1] if _BARS else _new_bar()
            _BARS.append(bar)
            self._task = bar.add_task(self.description, total=self.total, completed=self.done)
        return self

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Count `steps` as done; `note` (a loss, a file) stands beside the description."""
        self.done += steps
        text = f"{self.description}  {note}" if note else self.description
        if self._task is not None:
            _BARS[-1].update(self._task, completed=self.done, description=text)
        elif not self._silent and time.monotonic() - self._said >= SECONDS_BETWEEN_LINES:
            self._said = time.monotonic()
            print(plain_line(text, self.done, self.total, self.start, self._said - self._began), flush=True)

    def __exit__(self, *_: object) -> None:
        if self._task is not None:
            bar = _BARS.pop()
            bar.remove_task(self._task)
            if not _BARS:
                bar.stop()


_BARS: list[RichProgress] = []
"""The live bar, once for every open stage: a terminal can show only one live display."""


def plain_line(description: str, done: int, total: int | None, start: int, seconds: float) -> str:
    """``description: 40 % (4/10), 1:05 left``; the time left follows from the steps of this run alone.

    Args:
        description: What is being done.
        done: Steps done, `start` included.
        total: Steps in all, or None where unknown.
        start: Steps done before this run.
        seconds: Time that this run has spent.
    """
    if not total:
        return f"{description}: {done}"
    line = f"{description}: {100 * done // total} % ({done}/{total})"
    if done > start:
        line += f", {clock(seconds * (total - done) / (done - start))} left"
    return line


def clock(seconds: float) -> str:
    """Seconds as ``m:ss`` or ``h:mm:ss``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _new_bar() -> RichProgress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar.start()
    return bar
