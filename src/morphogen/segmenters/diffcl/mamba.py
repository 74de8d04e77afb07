"""The Mamba block: a gated selective state-space layer over a sequence."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from morphogen.segmenters.diffcl.selective_scan import selective_scan

_DT_LEAST, _DT_MOST, _DT_FLOOR = 1e-3, 1e-1, 1e-4


class Mamba(nn.Module):
    """Mamba (Gu and Dao 2023, arXiv:2312.00752, section 3.4 and figure 3), sizes and initial values as its authors'.

    ``x, z = W_in t``; ``u = SiLU(conv(x))``; ``delta = softplus(W_dt W_r u + b_dt)``, ``B = W_B u``, ``C = W_C u``;
    ``out = W_out (S6(u, delta, -exp(A_log), B, C, D) SiLU(z))``. The convolution is causal and by channel. A token's
    output follows from it and those before it.

    ``A_log`` and ``D`` say ``no_decay = True``, since a weight decay would draw the dynamics to another system.
    """

    not_exportable: ClassVar[str] = "its scan is no graph of fixed size; train with mixer=conv or operator=none"

    def __init__(self, channels: int, state: int = 16, expand: int = 2, conv: int = 4) -> None:
        """Random weights.

        Args:
            channels: C, of a token.
            state: N, numbers of the state of each inner channel.
            expand: Inner channels ED over C.
            conv: Tokens that the convolution sees.
        """
        super().__init__()
        inner, rank = expand * channels, math.ceil(channels / 16)
        self.sizes = rank, state, state
        self.in_proj = nn.Linear(channels, 2 * inner, bias=False)
        self.conv = nn.Conv1d(inner, inner, conv, groups=inner, padding=conv - 1)
        self.x_proj = nn.Linear(inner, sum(self.sizes), bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        self.out_proj = nn.Linear(inner, channels, bias=False)
        self.A_log = nn.Parameter(torch.arange(1.0, state + 1).log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        for parameter in (self.A_log, self.D):
            parameter.no_decay = True  # type: ignore[attr-defined]
        self._init_steps()

    @torch.no_grad()
    def _init_steps(self) -> None:
        """At first the step sizes spread evenly in the logarithm, from `_DT_LEAST` to `_DT_MOST`."""
        bound = self.dt_proj.in_features**-0.5
        nn.init.uniform_(self.dt_proj.weight, -bound, bound)
        low, high = math.log(_DT_LEAST), math.log(_DT_MOST)
        dt = (low + (high - low) * torch.rand(self.dt_proj.out_features)).exp().clamp(min=_DT_FLOOR)
        self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # softplus of it is dt

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, L, C) -> (B, L, C)."""
        x, z = self.in_proj(tokens).chunk(2, dim=-1)
        u = F.silu(self.conv(x.transpose(1, 2))[..., : tokens.shape[1]].transpose(1, 2))
        steps, B, C = self.x_proj(u).split(self.sizes, dim=-1)
        # The bias is added and the softplus taken in full precision: half would leave eight bits of a step size.
        raw = F.linear(steps, self.dt_proj.weight)
        wide = torch.promote_types(raw.dtype, self.dt_proj.bias.dtype)
        delta = F.softplus(raw.to(wide) + self.dt_proj.bias)
        y = selective_scan(u, delta, -self.A_log.exp(), B, C, self.D)
        out: Tensor = self.out_proj(y * F.silu(z))
        return out
