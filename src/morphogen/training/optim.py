"""A phase's optimiser, a learning rate that is a function of the step alone, and its state as plain tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from morphogen.training.task import Group, Phase, Progress


class PhaseOptimizer:
    """The optimiser of one phase's parameters: AdamW, its moments in 32 bits or in 8 (by bitsandbytes), or SGD."""

    def __init__(self, phase: Phase, kind: str = "adamw") -> None:
        self.phase, self.kind = phase, kind
        self.groups = phase.groups or [Group(phase.parameters, weight_decay=phase.weight_decay)]
        self.parameters = [p for group in self.groups for p in group.parameters]
        rows = [{"params": list(group.parameters), "weight_decay": group.weight_decay} for group in self.groups]
        self.inner = _OPTIMIZERS[kind](rows, phase)

    def step(self, progress: Progress, max_grad_norm: float) -> Tensor:
        """Clip, update, and return the gradient norm before its clipping (scalar)."""
        if self.phase.max_grad_value:
            torch.nn.utils.clip_grad_value_(self.parameters, self.phase.max_grad_value)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, max_grad_norm or math.inf)
        lr = learning_rate(self.phase, progress)
        for row, group in zip(self.inner.param_groups, self.groups, strict=True):
            row["lr"] = lr * group.lr_scale
        self.inner.step()
        return norm

    def state(self) -> dict[str, Tensor]:
        """Named tensors: ``{parameter index}.{exp_avg | exp_avg_sq | step | momentum_buffer}``, or the 8-bit state."""
        rows = self.inner.state_dict()["state"]
        return {f"{i}.{key}": torch.as_tensor(value) for i, row in rows.items() for key, value in _flat(row).items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        rows: dict[int, dict[str, Any]] = {}
        for name, value in tensors.items():
            index, key = name.split(".", 1)
            outer, inner = key.split(_NESTED) if _NESTED in key else (key, None)
            row = rows.setdefault(int(index), {})
            if inner is not None:
                row.setdefault(outer, {})[inner] = value
            elif self.kind != "adamw8bit":
                like = self.parameters[int(index)]
                # The fused kernel walks raw memory: state has to lie as the parameter does (channels-last, say).
                row[key] = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
            else:
                row[key] = int(value)  # a count of steps; all else is nested
        self.inner.load_state_dict({"state": rows, "param_groups": self.inner.state_dict()["param_groups"]})


def _adamw(rows: list[dict[str, Any]], phase: Phase) -> torch.optim.Optimizer:
    return torch.optim.AdamW(rows, lr=phase.lr, betas=phase.betas, fused=True)


def _adamw8bit(rows: list[dict[str, Any]], phase: Phase) -> torch.optim.Optimizer:
    from bitsandbytes.optim import AdamW8bit

    optimizer: torch.optim.Optimizer = AdamW8bit(rows, lr=phase.lr, betas=phase.betas)
    return optimizer


def _sgd(rows: list[dict[str, Any]], phase: Phase) -> torch.optim.Optimizer:
    return torch.optim.SGD(rows, lr=phase.lr, momentum=phase.betas[0], nesterov=True)


_OPTIMIZERS: Mapping[str, Callable[[list[dict[str, Any]], Phase], torch.optim.Optimizer]] = {
    "adamw": _adamw,
    "adamw8bit": _adamw8bit,
    "sgd": _sgd,
}

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


SCHEDULES: Mapping[str, Callable[[float], float]] = {
    "constant": lambda x: 1.0,
    "cosine": lambda x: 0.5 * (1 + math.cos(math.pi * x)),
    "linear": lambda x: 1 - x,
    "poly": lambda x: (1 - x) ** 0.9,
    "halving": lambda x: 0.5 ** ((x >= 0.5) + (x >= 0.75)),
    "drop": lambda x: 0.1 if x >= 0.8 else 1.0,
}
"""Schedule -> factor on the learning rate where a part x in [0, 1) of the steps after the warm-up is done."""


def learning_rate(phase: Phase, progress: Progress) -> float:
    """Linear growth over `warmup` steps, then the phase's schedule."""
    step, end = progress.step, progress.max_steps
    if step < phase.warmup:
        return phase.lr * (step + 1) / phase.warmup
    done, steps = step - phase.warmup, max(1, end - phase.warmup)
    return phase.lr * SCHEDULES[phase.schedule](done / steps)
