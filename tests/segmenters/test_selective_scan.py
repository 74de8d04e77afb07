"""The selective scan against a loop over tokens in float64."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from morphogen.segmenters.diffcl import selective_scan as module
from morphogen.segmenters.diffcl.selective_scan import selective_scan

NAMES = ("u", "delta", "A", "B", "C", "D")


def inputs(rows: int, length: int, inner: int, state: int, kind: torch.dtype = torch.float64) -> list[Tensor]:
    """As a Mamba block has them: step sizes of about 0.01 to 1, decays of about 0.5 to N."""
    rng = torch.Generator().manual_seed(length)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    made = [
        normal(rows, length, inner), F.softplus(2 * normal(rows, length, inner) - 2),
        -torch.arange(1.0, state + 1) * (0.3 * normal(inner, state)).exp(),
        normal(rows, length, state), normal(rows, length, state), normal(inner),
    ]  # fmt: skip
    return [x.to(kind).requires_grad_() for x in made]


def literal(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """Token by token, by autograd."""
    h, ys = u.new_zeros(len(u), *A.shape), []
    for u_t, delta_t, B_t, C_t in zip(*(x.unbind(1) for x in (u, delta, B, C)), strict=True):
        h = (delta_t[:, :, None] * A).exp() * h + (delta_t * u_t)[:, :, None] * B_t[:, None]
        ys.append((h * C_t[:, None]).sum(-1) + D * u_t)
    return torch.stack(ys, dim=1)


def values_and_gradients(scan: object, args: list[Tensor]) -> list[Tensor]:
    y = scan(*args)  # type: ignore[operator]
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(y.dtype)
    return [y, *torch.autograd.grad(y, args, weight)]


def compare(args: list[Tensor], tolerance: float) -> None:
    """Of float32 the exact values are those of the same numbers."""
    exact = [x.detach().double().requires_grad_() for x in args]
    for name, mine, true in zip(
        ("y", *NAMES), values_and_gradients(selective_scan, args), values_and_gradients(literal, exact), strict=True
    ):
        scale = max(1.0, true.abs().max().item())
        assert mine.dtype == args[0].dtype, name
        assert (mine - true).abs().max().item() <= tolerance * scale, name


@pytest.mark.parametrize("length", [1, 2, 3, 7, 64, 101])
@pytest.mark.parametrize("rows", [1, 3])
def test_is_the_loop(length: int, rows: int) -> None:
    compare(inputs(rows, length, 6, 4), 1e-12)
    compare(inputs(rows, length, 6, 4, torch.float32), 1e-5)


@pytest.mark.parametrize(("length", "inner"), [(245, 128), (1960, 64), (4001, 8)])
def test_long_sequences(length: int, inner: int) -> None:
    compare(inputs(1, length, inner, 16, torch.float32), 1e-5)


@pytest.mark.parametrize("segment", [1, 60, 200, 1000, 1 << 20])
@pytest.mark.parametrize("step", [1, 100, 250])
def test_however_the_sequence_is_cut(segment: int, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CPU_SEGMENT", segment)
    monkeypatch.setattr(module, "_CPU_STEP", step)
    monkeypatch.setattr(module, "_LEAST_STEPS", 1)
    compare(inputs(2, 53, 3, 2), 1e-12)


@pytest.mark.parametrize("length", [1, 5, 37, 1960])
def test_the_cut_of_a_gpu(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    of = module._Layout.of
    monkeypatch.setattr(module._Layout, "of", lambda length, numbers, on_gpu: of(length, numbers, True))
    compare(inputs(1, length, 4, 4), 1e-12)
    assert of(15680, 1 << 12, True).chunks == 125  # as many kernels as steps: about twice the root of the length
    assert of(15680, 1 << 13, True).segments == 2


def test_every_layout_holds_the_sequence() -> None:
    for length in (1, 2, 3, 31, 245, 1960, 15680):
        for numbers in (1, 16, 512, 2048, 8192, 1 << 21):
            layout = module._Layout.of(length, numbers, False)
            positions = layout.segments * layout.steps * layout.chunks
            assert length <= positions <= length + layout.segments * layout.chunks
            assert min(layout.segments, layout.steps, layout.chunks) >= 1
            x = torch.arange(length * 2.0).reshape(1, length, 2)
            assert torch.equal(layout.joined(layout.cut(x)), x)


def test_nothing_of_the_future_is_known() -> None:
    args = [x.detach() for x in inputs(1, 300, 64, 16, torch.float32)]
    before = selective_scan(*args)
    for t in (1, 77, 150, 299):
        for which in (0, 1, 3, 4):
            changed = list(args)
            changed[which] = args[which].clone()
            changed[which][:, t] += 1
            after = selective_scan(*changed)
            assert torch.equal(after[:, :t], before[:, :t])
            assert not torch.equal(after[:, t], before[:, t])


@pytest.mark.parametrize("scale", [1e3, 1e20])
def test_large_steps_neither_overflow_nor_give_nan(scale: float) -> None:
    u, delta, A, B, C, D = inputs(1, 200, 8, 4, torch.float32)
    found = values_and_gradients(
        selective_scan, [u, (delta.detach() * scale).requires_grad_(), A, (B.detach() / scale).requires_grad_(), C, D]
    )
    assert all(x.isfinite().all() for x in found)


def test_steps_of_nothing_keep_the_state() -> None:
    u, delta, A, B, C, D = (x.detach() for x in inputs(1, 40, 4, 3))
    delta[:, 20:] = 0
    y = selective_scan(u, delta, A, B, C.clone().index_copy_(1, torch.arange(20, 40), C[:, 19:20].repeat(1, 20, 1)), D)
    torch.testing.assert_close(y[:, 20:] - D * u[:, 20:], (y[:, 19:20] - D * u[:, 19:20]).expand(-1, 20, -1))


def test_gradients_by_differences() -> None:
    assert torch.autograd.gradcheck(selective_scan, inputs(2, 9, 3, 2))


def test_a_mean_over_a_long_time_has_a_closed_form() -> None:
    """A constant input: h_T = delta B u (1 - a^T) / (1 - a)."""
    T, delta, A = 500, 0.02, -0.5
    row = torch.ones(1, T, 1, dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    y = selective_scan(3 * row, delta * row, A * one[None], 2 * row, row, 0 * one)
    a = torch.tensor(A * delta, dtype=torch.float64).exp()
    t = torch.arange(1, T + 1)
    torch.testing.assert_close(y[0, :, 0], delta * 2 * 3 * (1 - a**t) / (1 - a))


def test_half_precision_is_computed_in_full() -> None:
    args = [x.detach().bfloat16() for x in inputs(1, 50, 8, 4)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = selective_scan(*args)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, selective_scan(*(x.float() for x in args)).bfloat16())
    half = inputs(1, 50, 8, 4, torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = torch.autograd.grad(selective_scan(*half).float().sum(), half)
    wide = [x.detach().float().requires_grad_() for x in half]
    for mine, true in zip(found, torch.autograd.grad(selective_scan(*wide).sum(), wide), strict=True):
        assert torch.equal(mine, true.bfloat16())


def test_what_is_kept_is_far_from_all_states() -> None:
    args = inputs(1, 1960, 64, 16, torch.float32)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        selective_scan(*args)
    assert sum(kept) < 1960 * 64 * 16 / 4


def test_the_fused_kernel_has_its_own_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    def fused(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
        assert u.shape == delta.shape == (2, 6, 11)
        assert B.shape == C.shape == (2, 4, 11)
        assert all(x.is_contiguous() for x in (u, delta, A, B, C, D))
        return literal(u.mT, delta.mT, A, B.mT, C.mT, D).mT

    args = inputs(2, 11, 6, 4)
    torch.testing.assert_close(module._by_fused(fused, *args), selective_scan(*args))
    stub = ModuleType("mamba_ssm.ops.selective_scan_interface")
    stub.selective_scan_fn = fused  # type: ignore[attr-defined]
    for name in ("mamba_ssm", "mamba_ssm.ops"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, stub.__name__, stub)
    assert module._fused() is fused
    del stub.selective_scan_fn
    assert module._fused() is None
