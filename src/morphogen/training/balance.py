"""Class-balanced sampling: which item a draw takes, where rare classes shall come up more often than they occur."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from morphogen.training.rng import numpy_rng
from morphogen.training.task import Draw


class Balance:
    """A class by its share, then one of its items, both by the draw's seed alone.

    A row is of class c with a probability proportional to n_c^(1 - exponent), n_c the items of the class: an item's
    weight is n_c^-exponent.

    Args:
        classes: Class of every item, by its name or number; None is a class too.
        exponent: 0 takes items as the loop walks through them, each once an epoch; 1 draws every class equally often.
    """

    def __init__(self, classes: Sequence[Any], exponent: float) -> None:
        self.exponent = exponent
        names = sorted(set(classes), key=lambda name: (name is not None, name))
        self.members = [[k for k, name in enumerate(classes) if name == own] for own in names]
        shares = np.array([len(group) for group in self.members], dtype=np.float64) ** (1 - exponent)
        self.shares = shares / shares.sum()

    def item(self, draw: Draw) -> int:
        """Index of the item that a draw takes."""
        if not self.exponent:
            return draw.index
        rng = numpy_rng(draw.seed, "class balance")
        group = self.members[int(rng.choice(len(self.members), p=self.shares))]
        return group[int(rng.integers(len(group)))]
