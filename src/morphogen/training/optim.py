"""A phase's optimiser: AdamW, a learning rate that is a function of the step alone, and its state as plain tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from morphogen.training.task import Phase, Progress


class PhaseOptimizer:
    """AdamW over one phase's parameters, its moments in 32 bits or, by bitsandbytes, in 8."""

    def __init__(self, phase: Phase, kind: str = "adamw") -> None:
        self.phase = phase
        self.parameters = list(phase.parameters)
        options: dict[str, Any] = {"lr": phase.lr, "betas": phase.betas, "weight_decay": phase.weight_decay}
        self.adamw: torch.optim.Optimizer
        if kind == "adamw8bit":
            from bitsandbytes.optim import AdamW8bit

            self.adamw = AdamW8bit(self.parameters, **options)
        else:
            self.adamw = torch.optim.AdamW(self.parameters, **options, fused=True)

    def step(self, progress: Progress, max_grad_norm: float) -> Tensor:
        """Clip, update, and return the gradient norm before clipping (scalar)."""
        bound = max_grad_norm or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, bound)
        for group in self.adamw.param_groups:
            group["lr"] = learning_rate(self.phase, progress)
        self.adamw.step()
        return norm

    def state(self) -> dict[str, Tensor]:
        """Named tensors: ``{parameter index}.{exp_avg | exp_avg_sq | step}``, or those of the 8-bit state."""
        rows = self.adamw.state_dict()["state"]
        return {f"{i}.{key}": torch.as_tensor(value) for i, row in rows.items() for key, value in _flat(row).items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        rows: dict[int, dict[str, Any]] = {}
        for name, value in tensors.items():
            index, key = name.split(".", 1)
            outer, inner = key.split(_NESTED) if _NESTED in key else (key, None)
            row = rows.setdefault(int(index), {})
            if inner is not None:
                row.setdefault(outer, {})[inner] = value
            elif isinstance(self.adamw, torch.optim.AdamW):
                like = self.parameters[int(index)]
                # The fused kernel walks raw memory: state has to lie as the parameter does (channels-last, say).
                row[key] = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
            else:
                row[key] = int(value)  # a count of steps; all else is nested
        self.adamw.load_state_dict({"state": rows, "param_groups": self.adamw.state_dict()["param_groups"]})


_NESTED = "/"
"""Between the two names of a value that bitsandbytes keeps in a dict within the state."""


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            found |= {f"{key}{_NESTED}{inner}": part for inner, part in value.items()}
        else:
            found[key] = value
    return found


def learning_rate(phase: Phase, progress: Progress) -> float:
    """Linear growth over `warmup` steps, then constant or half a cosine down to 0 at max_steps."""
    step, end = progress.step, progress.max_steps
    if step < phase.warmup:
        return phase.lr * (step + 1) / phase.warmup
    if phase.schedule == "constant":
        return phase.lr
    return phase.lr * 0.5 * (1 + math.cos(math.pi * (step - phase.warmup) / max(1, end - phase.warmup)))
