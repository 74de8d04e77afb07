"""A phase's optimiser: AdamW, a learning rate that is a function of the step alone, and its state as plain tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from morphogen.training.task import Phase, Progress


class PhaseOptimizer:
    """AdamW over one phase's parameters."""

    def __init__(self, phase: Phase) -> None:
        self.phase = phase
        self.parameters = list(phase.parameters)
        self.adamw = torch.optim.AdamW(
            self.parameters, lr=phase.lr, betas=phase.betas, weight_decay=phase.weight_decay, fused=True
        )

    def step(self, progress: Progress, max_grad_norm: float) -> Tensor:
        """Clip, update, and return the gradient norm before clipping (scalar)."""
        bound = max_grad_norm or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, bound)
        for group in self.adamw.param_groups:
            group["lr"] = learning_rate(self.phase, progress)
        self.adamw.step()
        return norm

    def state(self) -> dict[str, Tensor]:
        """Named tensors: ``{parameter index}.{exp_avg | exp_avg_sq | step}``."""
        rows = self.adamw.state_dict()["state"]
        return {f"{i}.{key}": torch.as_tensor(value) for i, row in rows.items() for key, value in row.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        rows: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            index, key = name.split(".", 1)
            like = self.parameters[int(index)]
            # The fused kernel walks raw memory: state has to lie as the parameter does (channels-last, say).
            rows.setdefault(int(index), {})[key] = (
                torch.empty_like(like).copy_(value) if value.shape == like.shape else value
            )
        self.adamw.load_state_dict({"state": rows, "param_groups": self.adamw.state_dict()["param_groups"]})


def learning_rate(phase: Phase, progress: Progress) -> float:
    """Linear growth over `warmup` steps, then constant or half a cosine down to 0 at max_steps."""
    step, end = progress.step, progress.max_steps
    if step < phase.warmup:
        return phase.lr * (step + 1) / phase.warmup
    if phase.schedule == "constant":
        return phase.lr
    return phase.lr * 0.5 * (1 + math.cos(math.pi * (step - phase.warmup) / max(1, end - phase.warmup)))
