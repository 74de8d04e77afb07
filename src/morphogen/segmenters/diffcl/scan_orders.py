"""Images and volumes as sequences of tokens, in several orders, and back."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Size, Tensor

from morphogen.errors import InputError


@dataclass(frozen=True)
class Order:
    """One way through a grid.

    Attributes:
        axes: Spatial axes from the one that changes last to the one that changes at every token.
        backward: From the end to the beginning, which is the same way through the grid flipped along all axes.
    """

    axes: tuple[int, ...]
    backward: bool

    def flatten(self, x: Tensor) -> Tensor:
        """(B, C, *S) -> (B, L, C), L the number of positions of S."""
        tokens = x.permute(0, *(axis + 2 for axis in self.axes), 1).flatten(1, -2)
        return tokens.flip(1) if self.backward else tokens

    def unflatten(self, tokens: Tensor, shape: Size | tuple[int, ...]) -> Tensor:
        """(B, L, C) -> (B, C, *S), S being `shape`."""
        forward = tokens.flip(1) if self.backward else tokens
        grid = forward.unflatten(1, [shape[axis] for axis in self.axes])
        return grid.permute(0, grid.ndim - 1, *(self.axes.index(axis) + 1 for axis in range(len(shape))))


def scan_orders(dims: int, count: int | None = None) -> tuple[Order, ...]:
    """Orders of a grid: the cyclic shifts of its axes, each forward and backward.

    The whole set (2 axes: 4; 3 axes: 6) is closed under flipping all axes at once and under cyclic shifts of the axes
    (in 2D: transposition), and so is the mean over it of what one network makes of the sequences. It is not closed
    under a flip of one axis, nor in 3D under an exchange of two. An even `count` keeps the flip of all axes alone.

    Args:
        dims: 2 or 3.
        count: Only the first so many; None for all. Two are forward and backward along the axes as they are.

    Raises:
        InputError: There are no such orders.
    """
    if dims not in (2, 3):
        raise InputError(f"scan orders: dims={dims}: must be 2 or 3")
    shifts = [tuple((axis + shift) % dims for axis in range(dims)) for shift in range(dims)]
    orders = tuple(Order(axes, backward) for axes in shifts for backward in (False, True))
    if count is not None and not 1 <= count <= len(orders):
        raise InputError(f"scan orders: directions={count}: {dims} axes have 1 to {len(orders)}")
    return orders[:count]
