"""What a U-Net is told beside the latent and the timestep, as one object that the U-Net call takes whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Conditioning:
    """Text conditioning of B samples.

    Attributes:
        states: (B, L, D) text states for cross-attention.
        pooled: (B, P) pooled text, where the model wants it (SDXL), else None.
        time_ids: (B, 6) original size, crop corner and target size, where the model wants them (SDXL), else None.
    """

    states: Tensor
    pooled: Tensor | None = None
    time_ids: Tensor | None = None

    def __len__(self) -> int:
        return self.states.shape[0]

    def rows(self, index: Any) -> Conditioning:
        """The rows that a slice, a mask or an index tensor selects."""
        return self.map(lambda value: value[index])

    def to(self, *args: Any, **kwargs: Any) -> Conditioning:
        """As `Tensor.to`, on every part."""
        return self.map(lambda value: value.to(*args, **kwargs))

    @staticmethod
    def cat(parts: Sequence[Conditioning]) -> Conditioning:
        """Concatenate along the batch."""

        def join(values: list[Tensor | None]) -> Tensor | None:
            found = [value for value in values if value is not None]
            return torch.cat(found) if found else None

        states = torch.cat([part.states for part in parts])
        return Conditioning(states, join([part.pooled for part in parts]), join([part.time_ids for part in parts]))

    @property
    def added(self) -> dict[str, Tensor] | None:
        """diffusers' ``added_cond_kwargs``."""
        if self.pooled is None or self.time_ids is None:
            return None
        return {"text_embeds": self.pooled, "time_ids": self.time_ids}

    def map(self, function: Callable[[Tensor], Tensor]) -> Conditioning:
        """`function` of every part."""

        def maybe(value: Tensor | None) -> Tensor | None:
            return None if value is None else function(value)

        return Conditioning(function(self.states), maybe(self.pooled), maybe(self.time_ids))
