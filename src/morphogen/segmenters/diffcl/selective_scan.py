"""The selective scan of Mamba in plain PyTorch, with a backward pass of its own.

The sequence is cut into segments, which follow one another, and a segment into chunks, whose positions are computed
side by side. Between passes only the inputs and the state before each chunk are kept; all else is made again.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_CPU_SEGMENT = 1 << 19
"""Numbers of a segment's states on a CPU: a few buffers of 2 MiB, which stay in its cache. Measured."""
_CPU_STEP = 1 << 14
"""Numbers of one step on a CPU, up to which chunks are added: below, calling it costs more than computing it."""
_FEWEST = 4
"""Chunks; the pass that finds where they begin costs more than fewer save."""
_GPU_SEGMENT = 1 << 26
"""On a GPU: a few buffers of 256 MiB. Its cache is not waited for, and the larger a segment, the fewer the kernels."""
_LEAST_STEPS = 16
"""Of a segment, however wide the states: one state in as many is kept for the backward pass."""

_Steps = tuple[Tensor, ...]


def selective_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """S6, the selective state-space layer (Gu and Dao 2023, arXiv:2312.00752, algorithm 2).

    ``h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t`` with ``h_0 = 0``, and ``y_t = C_t . h_t + D u_t``: A by
    zero-order hold, B by Euler's rule, as in the authors' code. Computed in float32, in float64 where u has it, also
    under autocast. Each y_t follows from nothing after t, to the last bit. There are no second derivatives. Where
    `mamba_ssm` is installed and the tensors are on a GPU, its fused kernel does the work.

    Args:
        u: (Bt, L, ED) inputs.
        delta: (Bt, L, ED) step sizes, not negative.
        A: (ED, N), not positive.
        B: (Bt, L, N).
        C: (Bt, L, N).
        D: (ED,).

    Returns:
        (Bt, L, ED) of u's type.
    """
    kind = torch.float64 if u.dtype == torch.float64 else torch.float32
    args = [x.to(kind) for x in (u, delta, A, B, C, D)]
    fused = _fused() if u.is_cuda and kind == torch.float32 else None
    with torch.autocast(u.device.type, enabled=False):
        y: Tensor = _by_fused(fused, *args) if fused else _Scan.apply(*args)
    return y.to(u.dtype)


def _fused() -> Callable[..., Tensor] | None:
    try:
        module = importlib.import_module("mamba_ssm.ops.selective_scan_interface")
        found: Callable[..., Tensor] = module.selective_scan_fn
    except (ImportError, AttributeError, OSError):  # also where its compiled part was made for another PyTorch
        return None
    return found


def _by_fused(
    fused: Callable[..., Tensor], u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor
) -> Tensor:
    """mamba_ssm's layout has the sequence last."""
    u, delta, B, C = (x.transpose(1, 2).contiguous() for x in (u, delta, B, C))
    return fused(u, delta, A.contiguous(), B, C, D.contiguous()).transpose(1, 2)


@dataclass(frozen=True)
class _Layout:
    """How a sequence is cut: position ``(g K + k) S + s`` is step s of chunk k of segment g.

    Inside, tensors are (G, S, K, Bt, ...): the steps of a segment one after another, its chunks side by side. What is
    missing at the end is filled with zeros, and a step with delta = 0 leaves the state as it is.
    """

    length: int
    segments: int
    steps: int
    chunks: int

    @staticmethod
    def of(length: int, numbers: int, on_gpu: bool) -> _Layout:
        """For a state of so many numbers, all rows of the batch together."""
        most = max(_LEAST_STEPS, (_GPU_SEGMENT if on_gpu else _CPU_SEGMENT) // numbers)
        segments = -(-length // most)
        long = -(-length // segments)
        chunks = min(math.isqrt(long), long if on_gpu else _CPU_STEP // numbers)
        chunks = chunks if chunks >= _FEWEST else 1
        return _Layout(length, segments, -(-long // chunks), chunks)

    def cut(self, x: Tensor) -> Tensor:
        """(Bt, L, M) -> (G, S, K, Bt, M)."""
        missing = self.segments * self.chunks * self.steps - self.length
        cut = F.pad(x, (0, 0, 0, missing)).unflatten(1, (self.segments, self.chunks, self.steps))
        return cut.permute(1, 3, 2, 0, 4).contiguous()

    def joined(self, x: Tensor) -> Tensor:
        """(G, S, K, Bt, M) -> (Bt, L, M)."""
        return x.permute(3, 0, 2, 1, 4).flatten(1, 3)[:, : self.length]


def _begin(a: _Steps, h: _Steps, decay: Tensor, start: Tensor) -> None:
    """Makes h[0] the states before the chunks.

    Args:
        a: S steps of factors, (K, Bt, N, ED) each.
        h: S + 1 steps; those from 1 on hold the additions.
        decay: (K, Bt, N, ED), the product of the factors of each chunk.
        start: (Bt, N, ED), the state before the segment.
    """
    before = h[0]
    before[0] = start
    if len(before) > 1:  # where the chunks would end if they began with 0 tells where they begin
        ends = h[1].clone()
        for factor, added in zip(a[1:], h[2:], strict=True):
            torch.addcmul(added, factor, ends, out=ends)
        for k in range(len(before) - 1):
            torch.addcmul(ends[k], decay[k], before[k], out=before[k + 1])


def _advance(a: _Steps, h: _Steps) -> None:
    """Makes the additions of h, from 1 on, the states."""
    for factor, state, last in zip(a, h[1:], h[:-1], strict=True):
        state.addcmul_(factor, last)


def _adjoints(a: _Steps, g: _Steps, decay: Tensor, after: Tensor) -> None:
    """Both from the end, for the gradients of a segment's states.

    Args:
        a: S steps of factors, (K, Bt, N, ED) each.
        g: S steps that hold each state's gradient through its own output, and come to hold the whole gradient.
        decay: (K, Bt, N, ED), the product of the factors of each chunk.
        after: (Bt, N, ED), gradient of the last state through the segments behind.
    """
    come = g[-1]
    if len(come) > 1:
        starts = come.clone()
        for factor, own in zip(a[:0:-1], g[-2::-1], strict=True):
            torch.addcmul(own, factor, starts, out=starts)
        starts *= a[0]
        for k in range(len(come) - 1, 0, -1):
            come[k] += after
            after = torch.addcmul(starts[k], decay[k], after)
    come[0] += after
    for factor, own, behind in zip(a[:0:-1], g[-2::-1], g[:0:-1], strict=True):
        own.addcmul_(factor, behind)


def _over_states(rows: Tensor, states: Tensor) -> Tensor:
    """Sum over n of (..., N) times (..., N, ED)."""
    return torch.matmul(rows.unsqueeze(-2), states).squeeze(-2)


def _over_channels(states: Tensor, rows: Tensor) -> Tensor:
    """Sum over channels of (..., N, ED) times (..., ED)."""
    return torch.matmul(rows.unsqueeze(-2), states.mT).squeeze(-2)  # several times as fast as the states come first


class _Segment:
    """Buffers that serve all segments in turn, cut into steps once, and the states of one segment."""

    def __init__(self, layout: _Layout, A: Tensor, rows: int) -> None:
        """`A` is (N, ED) here, so that what is added up over n lies side by side."""
        shape = layout.chunks, rows, *A.shape
        self.A, self.decay = A, A.new_empty(shape)
        self.a, self.h = A.new_empty(layout.steps, *shape), A.new_empty(layout.steps + 1, *shape)
        self.factors, self.states = self.a.unbind(), self.h.unbind()

    def fill(self, delta: Tensor, w: Tensor, B: Tensor) -> None:
        """Factors and additions, from delta (S, K, Bt, ED), w = delta u (S, K, Bt, ED) and B (S, K, Bt, N)."""
        torch.mul(delta.unsqueeze(-2), self.A, out=self.a).exp_()
        torch.mul(B.unsqueeze(-1), w.unsqueeze(-2), out=self.h[1:])
        # A sum of what is not positive cannot overflow, where a quotient of products could.
        torch.mul(delta.sum(dim=0).unsqueeze(-2), self.A, out=self.decay).exp_()


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
        layout = _Layout.of(u.shape[1], u.shape[0] * A.numel(), u.is_cuda)
        step, w, B_, C_ = (layout.cut(x) for x in (delta, delta * u, B, C))
        segment = _Segment(layout, A.t().contiguous(), len(u))
        starts = u.new_empty(layout.segments, *segment.h.shape[1:])
        state, y = torch.zeros_like(starts[0, 0]), torch.empty_like(w)
        for i in range(layout.segments):
            segment.fill(step[i], w[i], B_[i])
            _begin(segment.factors, segment.states, segment.decay, state)
            _advance(segment.factors, segment.states)
            y[i] = _over_states(C_[i], segment.h[1:])
            starts[i] = segment.h[0]
            state.copy_(segment.h[-1, -1])
        ctx.layout = layout
        ctx.save_for_backward(u, delta, A, B, C, D, starts)
        return torch.addcmul(layout.joined(y), D, u)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, ...]:
        with torch.autocast(dy.device.type, enabled=False):
            return _gradients(ctx.layout, dy, *ctx.saved_tensors)


def _gradients(
    layout: _Layout, dy: Tensor, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, starts: Tensor
) -> tuple[Tensor, ...]:
    """Of u, delta, A, B, C and D; the segments from the last to the first."""
    step, w, B_, C_, dy_ = (layout.cut(x) for x in (delta, delta * u, B, C, dy))
    segment = _Segment(layout, A.t().contiguous(), len(u))
    a, h, g = segment.a, segment.h, torch.empty_like(segment.a)
    adjoints = g.unbind()
    after, dA = torch.zeros_like(starts[0, 0]), torch.zeros_like(segment.A)
    dstep, dw, dB, dC = (torch.empty_like(x) for x in (step, w, B_, C_))
    for i in reversed(range(layout.segments)):
        segment.fill(step[i], w[i], B_[i])
        h[0] = starts[i]
        _advance(segment.factors, segment.states)
        dC[i] = _over_channels(h[1:], dy_[i])
        torch.mul(C_[i].unsqueeze(-1), dy_[i].unsqueeze(-2), out=g)
        _adjoints(segment.factors, adjoints, segment.decay, after)
        dB[i] = _over_channels(g, w[i])
        dw[i] = _over_states(B_[i], g)
        g.mul_(a)
        after.copy_(g[0, 0])
        g.mul_(h[:-1])  # the gradient of delta A
        dstep[i] = torch.mul(g, segment.A, out=a).sum(dim=-2)
        dA += g.mul_(step[i].unsqueeze(-2)).sum(dim=(0, 1, 2))
    dw, dstep = layout.joined(dw), layout.joined(dstep)
    du = torch.addcmul(dw * delta, D, dy)
    return du, torch.addcmul(dstep, dw, u), dA.t(), layout.joined(dB), layout.joined(dC), (dy * u).sum(dim=(0, 1))
