"""What a U-Net is told beside the latent and the timestep, as one object that the U-Net call takes whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
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
        return self._map(lambda value: value[index])

    def to(self, *args: Any, **kwargs: Any) -> Conditioning:
        """As `Tensor.to`, on every part."""
        return self._map(lambda value: value.to(*args, **kwargs))

    @staticmethod
    def cat(parts: Sequence[Conditioning]) -> Conditioning:
        """Concatenate along the batch."""
        columns = {f.name: [getattr(part, f.name) for part in parts] for f in fields(Conditioning)}
        return Conditioning(**{k: None if v[0] is None else torch.cat(v) for k, v in columns.items()})

    @property
    def added(self) -> dict[str, Tensor] | None:
        """diffusers' ``added_cond_kwargs``."""
        if self.pooled is None or self.time_ids is None:
            return None
        return {"text_embeds": self.pooled, "time_ids": self.time_ids}

    def _map(self, function: Any) -> Conditioning:
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        return Conditioning(**{k: None if v is None else function(v) for k, v in found.items()})
