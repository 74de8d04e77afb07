"""Work that several processes, launched together, divide: item i goes to process i modulo their number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from morphogen.launched import place
from morphogen.progress import track

T = TypeVar("T")
R = TypeVar("R")


def divided(items: Sequence[T], work: Callable[[T], R], description: str) -> list[R]:
    """``[work(item) for item in items]``: each process does its share, and all get the whole list in order.

    Args:
        items: The same in every process.
        work: Done once an item; its result must pickle.
        description: For the progress bar.
    """
    shares = gathered([work(item) for item in track(mine(items), description)])
    return [shares[index % len(shares)][index // len(shares)] for index in range(len(items))]


def mine(items: Sequence[T]) -> Sequence[T]:
    """The share of this process."""
    here = place()
    return items[here.rank :: here.world]


def gathered(value: Any) -> list[Any]:
    """The value of every process, in order of rank, in all of them."""
    if place().world == 1:
        return [value]
    from accelerate.utils import gather_object

    found: list[Any] = gather_object([value])
    return found
