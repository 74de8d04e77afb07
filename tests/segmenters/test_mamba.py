"""The Mamba block against its equations, token by token."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from morphogen.segmenters.diffcl.mamba import Mamba


@torch.no_grad()
def literal(net: Mamba, tokens: Tensor, state: int, conv: int) -> Tensor:
    """One row (L, C), every sum written out."""
    inner, rank = net.D.numel(), net.dt_proj.in_features
    h, seen, out = torch.zeros(inner, state, dtype=tokens.dtype), [], []

    def silu(x: Tensor) -> Tensor:
        return x / (1 + torch.exp(-x))

    for token in tokens:
        both = net.in_proj.weight @ token
        x, z = both[:inner], both[inner:]
        seen.append(x)
        u = net.conv.bias.clone()
        for back in range(min(conv, len(seen))):
            u += net.conv.weight[:, 0, conv - 1 - back] * seen[-1 - back]
        u = silu(u)
        mixed = net.x_proj.weight @ u
        delta = torch.log1p(torch.exp(net.dt_proj.weight @ mixed[:rank] + net.dt_proj.bias))
        B, C = mixed[rank : rank + state], mixed[rank + state :]
        y = torch.zeros_like(u)
        for d in range(inner):
            for n in range(state):
                A = -torch.exp(net.A_log[d, n])
                h[d, n] = torch.exp(delta[d] * A) * h[d, n] + delta[d] * B[n] * u[d]
                y[d] += C[n] * h[d, n]
            y[d] += net.D[d] * u[d]
        out.append(net.out_proj.weight @ (y * silu(z)))
    return torch.stack(out)


@pytest.mark.parametrize(("channels", "state", "expand", "conv"), [(6, 3, 2, 4), (17, 2, 1, 1)])
def test_is_its_equations(channels: int, state: int, expand: int, conv: int) -> None:
    torch.manual_seed(0)
    net = Mamba(channels, state, expand, conv).double()
    tokens = torch.randn(2, 9, channels, dtype=torch.float64)
    found = net(tokens)
    for row in range(2):
        torch.testing.assert_close(found[row], literal(net, tokens[row], state, conv))


@pytest.mark.parametrize(("channels", "state", "expand", "conv"), [(64, 16, 2, 4), (20, 8, 3, 2)])
def test_parameters(channels: int, state: int, expand: int, conv: int) -> None:
    inner, rank = expand * channels, math.ceil(channels / 16)
    parts = {
        "in_proj": channels * 2 * inner, "conv": inner * conv + inner, "x_proj": inner * (rank + 2 * state),
        "dt_proj": rank * inner + inner, "A and D": inner * state + inner, "out_proj": inner * channels,
    }  # fmt: skip
    assert sum(p.numel() for p in Mamba(channels, state, expand, conv).parameters()) == sum(parts.values())


def test_initial_values() -> None:
    torch.manual_seed(0)
    net = Mamba(256).requires_grad_(False)
    torch.testing.assert_close(net.A_log.exp(), torch.arange(1.0, 17).expand(512, 16))
    assert (net.D == 1).all()
    assert net.dt_proj.weight.abs().max() <= 16**-0.5
    assert net.dt_proj.weight.std() == pytest.approx(16**-0.5 / 3**0.5, rel=0.05)
    steps = torch.nn.functional.softplus(net.dt_proj.bias).log10()
    assert steps.min() == pytest.approx(-3, abs=0.05)
    assert steps.max() == pytest.approx(-1, abs=0.05)
    assert steps.mean() == pytest.approx(-2, abs=0.1)  # evenly in the logarithm
    marked = {name for name, p in net.named_parameters() if getattr(p, "no_decay", False)}
    assert marked == {"A_log", "D"}


def test_tokens_see_those_before_them() -> None:
    torch.manual_seed(0)
    net, tokens = Mamba(8).double(), torch.randn(1, 30, 8, dtype=torch.float64)
    changed = tokens.clone()
    changed[:, 12] += 1
    before, after = net(tokens), net(changed)
    torch.testing.assert_close(before[:, :12], after[:, :12], rtol=0, atol=1e-14)
    assert ((before - after)[0, 12:].abs().amax(dim=1) > 0).all()


def test_every_parameter_learns_also_in_half_precision() -> None:
    torch.manual_seed(0)
    net, tokens = Mamba(8), torch.randn(2, 20, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = net(tokens)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), net(tokens), rtol=0.1, atol=0.02)
    out.float().square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name
