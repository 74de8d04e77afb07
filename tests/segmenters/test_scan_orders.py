"""Orders of tokens: their inverses, and the symmetries that a mean over them has."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations, product

import pytest
import torch
from torch import Tensor

from morphogen.errors import InputError
from morphogen.segmenters.diffcl.mamba import Mamba
from morphogen.segmenters.diffcl.scan_orders import Order, scan_orders

SHAPES = {2: (3, 5), 3: (3, 5, 2)}
ALL = {2: 4, 3: 6}


@pytest.mark.parametrize("dims", [2, 3])
def test_literal_order_and_inverse(dims: int) -> None:
    shape = SHAPES[dims]
    x = torch.randn(2, 4, *shape)
    orders = scan_orders(dims)
    assert len(set(orders)) == ALL[dims]
    for order in orders:
        ways = list(product(*(range(shape[axis]) for axis in order.axes)))
        rows = []
        for place in reversed(ways) if order.backward else ways:
            index = dict(zip(order.axes, place, strict=True))
            rows.append(x[(slice(None), slice(None), *(index[axis] for axis in range(dims)))])
        tokens = order.flatten(x)
        assert torch.equal(tokens, torch.stack(rows, dim=1))
        assert torch.equal(order.unflatten(tokens, shape), x)


def test_the_first_two_are_there_and_back() -> None:
    x = torch.arange(24.0).reshape(1, 1, 2, 3, 4)
    there, back = scan_orders(3, 2)
    assert there.flatten(x).flatten().tolist() == list(range(24))
    assert back.flatten(x).flatten().tolist() == list(range(24))[::-1]
    assert scan_orders(3, 6) == scan_orders(3)


@pytest.mark.parametrize(("dims", "count"), [(1, None), (4, 2), (2, 5), (3, 0), (3, 7)])
def test_others_are_refused(dims: int, count: int | None) -> None:
    with pytest.raises(InputError, match="scan orders"):
        scan_orders(dims, count)


def mean_over(orders: tuple[Order, ...]) -> Callable[[Tensor], Tensor]:
    """One Mamba of random weights, all orders sharing it."""
    torch.manual_seed(0)
    net = Mamba(4, state=3).double()
    with torch.no_grad():
        net.dt_proj.bias += 3  # a memory short enough for these few tokens

    def function(x: Tensor) -> Tensor:
        return torch.stack([order.unflatten(net(order.flatten(x)), x.shape[2:]) for order in orders]).mean(dim=0)

    return function


def commutes(function: Callable[[Tensor], Tensor], move: Callable[[Tensor], Tensor], x: Tensor) -> bool:
    return torch.allclose(function(move(x)), move(function(x)), rtol=0, atol=1e-12)


def flips(dims: int) -> dict[tuple[int, ...], Callable[[Tensor], Tensor]]:
    every = [axes for axes in product((False, True), repeat=dims) if any(axes)]
    chosen = [tuple(axis + 2 for axis in range(dims) if axes[axis]) for axes in every]
    return {axes: (lambda x, axes=axes: x.flip(axes)) for axes in chosen}


def shifts(dims: int) -> dict[tuple[int, ...], Callable[[Tensor], Tensor]]:
    others = [order for order in permutations(range(dims)) if order != tuple(range(dims))]
    return {order: (lambda x, order=order: x.permute(0, 1, *(axis + 2 for axis in order))) for order in others}


@pytest.mark.parametrize("dims", [2, 3])
def test_symmetries_of_the_whole_set(dims: int) -> None:
    """Flips of all axes at once and cyclic shifts of the axes; no other flip and no other order of the axes."""
    function, x = mean_over(scan_orders(dims)), torch.randn(1, 4, *SHAPES[dims], dtype=torch.float64)
    held = {axes for axes, move in flips(dims).items() if commutes(function, move, x)}
    assert held == {tuple(range(2, 2 + dims))}
    held = {order for order, move in shifts(dims).items() if commutes(function, move, x)}
    assert held == ({(1, 0)} if dims == 2 else {(1, 2, 0), (2, 0, 1)})


@pytest.mark.parametrize("dims", [2, 3])
def test_symmetries_of_fewer(dims: int) -> None:
    x = torch.randn(1, 4, *SHAPES[dims], dtype=torch.float64)
    moves = {**flips(dims), **shifts(dims)}
    assert not any(commutes(mean_over(scan_orders(dims, 1)), move, x) for move in moves.values())
    held = {axes for axes, move in moves.items() if commutes(mean_over(scan_orders(dims, 2)), move, x)}
    assert held == {tuple(range(2, 2 + dims))}
