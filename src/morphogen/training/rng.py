"""Random numbers as functions of (seed, step, position): no process count, batch size or restart changes them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def seed_of(*parts: object) -> int:
    """A 63-bit seed from any printable parts: ``seed_of(seed, "noise", step, position)``.

    The same parts give the same seed on every machine and in every process (SHA-256, not Python's salted hash).
    """
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def numpy_rng(*parts: object) -> np.random.Generator:
    """NumPy generator for `seed_of(*parts)`."""
    return np.random.default_rng(seed_of(*parts))


def torch_rng(*parts: object) -> torch.Generator:
    """CPU torch generator for `seed_of(*parts)`; CPU, so that a GPU draws the same numbers."""
    return torch.Generator().manual_seed(seed_of(*parts))


def normal(seeds: Sequence[int] | Tensor, shape: Sequence[int], stream: str) -> Tensor:
    """Standard normal noise, one independent generator per sample.

    Args:
        seeds: B sample seeds.
        shape: Shape of one sample.
        stream: Names the use ("eps", "z_T"), so that two uses of one seed are independent.

    Returns:
        (B, *shape) float32 on the CPU.
    """
    return torch.stack([torch.randn(tuple(shape), generator=torch_rng(int(s), stream)) for s in seeds])


def uniform(seeds: Sequence[int] | Tensor, stream: str) -> Tensor:
    """(B,) float64 in [0, 1), one independent generator per sample."""
    return torch.stack([torch.rand((), generator=torch_rng(int(s), stream), dtype=torch.float64) for s in seeds])


def permutation_index(seed: int, n: int, position: int) -> int:
    """Index in 0..n-1 of the `position`-th draw of an endless walk through n items, reshuffled every epoch."""
    epoch, offset = divmod(position, n)
    return int(_permutation(seed, n, epoch)[offset])


_CACHE: dict[tuple[int, int, int], np.ndarray] = {}


def _permutation(seed: int, n: int, epoch: int) -> np.ndarray:
    key = (seed, n, epoch)
    if key not in _CACHE:
        if len(_CACHE) > 64:
            _CACHE.clear()
        _CACHE[key] = numpy_rng(seed, "epoch", n, epoch).permutation(n)
    return _CACHE[key]
