"""The high-frequency module."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from morphogen.errors import InputError
from morphogen.segmenters.diffcl.hfm import HFMConfig, HighFrequencyModule
from morphogen.segmenters.diffcl.high_frequency import laplacian_high

SHAPES = {2: (6, 4), 3: (6, 4, 2)}
SMALL = HFMConfig(state=3)
VARIANTS = [
    SMALL, replace(SMALL, operator="haar"), replace(SMALL, operator="laplacian"), replace(SMALL, mixer="conv"),
    replace(SMALL, directions=2),
]  # fmt: skip
variants = pytest.mark.parametrize("config", VARIANTS, ids=lambda c: f"{c.operator}-{c.mixer}-{c.directions}")
both_dims = pytest.mark.parametrize("dims", [2, 3])


def made(dims: int, config: HFMConfig = SMALL, gamma: bool = True) -> tuple[HighFrequencyModule, Tensor]:
    torch.manual_seed(0)
    net = HighFrequencyModule(5, dims, config).double()
    if gamma:
        torch.nn.init.normal_(net.gamma)
    if config.mixer == "mamba":
        with torch.no_grad():
            net.mixer.dt_proj.bias += 3  # a memory short enough for these few tokens
    return net, torch.randn(2, 5, *SHAPES[dims], dtype=torch.float64)


@variants
@both_dims
def test_starts_as_the_identity(config: HFMConfig, dims: int) -> None:
    net, f = made(dims, config, gamma=False)
    f.requires_grad_()
    out = net(f)
    assert torch.equal(out, f)
    weight = torch.randn_like(f)
    (out * weight).sum().backward()
    assert f.grad is not None
    torch.testing.assert_close(f.grad, weight)
    assert net.gamma.grad is not None
    assert (net.gamma.grad != 0).all()


@variants
@both_dims
def test_then_all_of_it_learns(config: HFMConfig, dims: int) -> None:
    net, f = made(dims, config)
    f.requires_grad_()
    (net(f) * torch.randn_like(f)).sum().backward()
    for name, parameter in [("f", f), *net.named_parameters()]:
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@both_dims
def test_is_its_equation(dims: int) -> None:
    net, f = made(dims, replace(SMALL, operator="laplacian"))
    high = laplacian_high(f)
    normed = net.norm(high.movedim(1, -1)).movedim(-1, 1)
    grids = [order.unflatten(net.mixer(order.flatten(normed)), f.shape[2:]) for order in net.orders]
    assert len(grids) == {2: 4, 3: 6}[dims]
    mixed = sum(grids) / len(grids)
    rows = []
    for row in range(len(f)):
        places = mixed[row].flatten(1)
        gate = 1 / (1 + (-(net.gate.weight.flatten(1) @ places + net.gate.bias[:, None])).exp())
        rows.append(f[row] + (net.gamma[:, None] * gate).reshape(f[row].shape) * high[row])
    torch.testing.assert_close(net(f), torch.stack(rows))


@variants
@both_dims
def test_is_flipped_with_its_input(config: HFMConfig, dims: int) -> None:
    """Along all axes at once; a convolution of random weights is not."""
    net, f = made(dims, config)
    axes = tuple(range(2, f.ndim))
    same = torch.allclose(net(f.flip(axes)), net(f).flip(axes), rtol=0, atol=1e-10)
    assert same == (config.mixer == "mamba")


@both_dims
def test_axes_are_shifted_with_those_of_the_input(dims: int) -> None:
    def shift(x: Tensor) -> Tensor:
        return x.movedim(2, -1)

    net, f = made(dims)
    torch.testing.assert_close(net(shift(f)), shift(net(f)))
    one, _ = made(dims, replace(SMALL, directions=1))
    assert (one(shift(f)) - shift(one(f))).abs().max() > 1e-6


@variants
def test_half_precision_and_odd_sizes(config: HFMConfig) -> None:
    net, _ = made(3, config)
    net, f = net.float(), torch.randn(1, 5, 7, 5, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        wide, half = net(f), net(f.bfloat16())
    assert (wide.dtype, half.dtype) == (torch.float32, torch.bfloat16)
    torch.testing.assert_close(wide, net(f), rtol=0.05, atol=0.05)
    wide.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("operator", "dct"), ("mixer", "attention"), ("cut", 0.0), ("cut", float("nan")), ("directions", 0),
        ("directions", 7), ("state", 0), ("expand", 0), ("conv", 0),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=name) as caught:
        HFMConfig(**{name: value})
    assert "\n" not in str(caught.value)


def test_axes_and_directions_are_refused_together() -> None:
    with pytest.raises(InputError, match="2 axes have 1 to 4"):
        HighFrequencyModule(4, 2, HFMConfig(directions=6))
    with pytest.raises(InputError, match="dims=1"):
        HighFrequencyModule(4, 1)
