"""Exponential moving average of the trained parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class EMA:
    """Moving average theta' <- d theta' + (1 - d) theta, with d = min(decay, (1 + n) / (10 + n)) after n updates.

    The growing d keeps the random initial weights from lingering in short runs.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.live = dict(parameters)
        self.shadow = {name: p.detach().clone() for name, p in self.live.items()}

    @torch.no_grad()
    def update(self) -> None:
        self.updates += 1
        d = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(list(self.shadow.values()), [p.detach() for p in self.live.values()], 1 - d)

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Within the context the modules hold the averaged weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self.live.items():
            kept = parameter.detach().clone()
            parameter.copy_(self.shadow[name])
            self.shadow[name].copy_(kept)

    def state(self) -> dict[str, Tensor]:
        return self.shadow

    def load(self, shadow: Mapping[str, Tensor], updates: int) -> None:
        for name, value in shadow.items():
            self.shadow[name].copy_(value)
        self.updates = updates
