"""High-frequency operators against their literal forms."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from morphogen.segmenters.diffcl.high_frequency import fft_high, haar_high, laplacian_high

CUT = 0.1
OPERATORS: dict[str, Callable[[Tensor], Tensor]] = {
    "fft": lambda f: fft_high(f, CUT), "haar": haar_high, "laplacian": laplacian_high,
}  # fmt: skip
SHAPES = [(8, 6), (7, 5), (1, 4), (6, 4, 8), (5, 7, 3), (7, 6, 5), (2, 1, 3)]
names = pytest.mark.parametrize("name", OPERATORS)
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@names
@shapes
def test_linear_without_constants(name: str, shape: tuple[int, ...]) -> None:
    operator, f, g = OPERATORS[name], noise(2, 3, *shape), noise(2, 3, *shape).flip(0)
    assert operator(f).shape == f.shape
    assert operator(torch.full_like(f, 7.3)).abs().max() < 1e-12
    assert operator(torch.full_like(f, 7.3).float()).abs().max() < 1e-5
    torch.testing.assert_close(operator(2 * f - 3 * g), 2 * operator(f) - 3 * operator(g))
    torch.testing.assert_close(operator(f)[1:, 2:], operator(f[1:, 2:]))  # each row and channel by itself


@names
@shapes
def test_flips_with_its_input(name: str, shape: tuple[int, ...]) -> None:
    """Blocks of an odd size begin at one end, so that Haar's are flipped where all sizes are even."""
    operator, f = OPERATORS[name], noise(1, 2, *shape)
    if name != "haar" or all(size % 2 == 0 for size in shape):
        axes = tuple(range(2, f.ndim))
        torch.testing.assert_close(operator(f.flip(axes)), operator(f).flip(axes))
    torch.testing.assert_close(operator(f.transpose(2, 3)), operator(f).transpose(2, 3))


@shapes
def test_fft_is_a_sum_over_waves(shape: tuple[int, ...]) -> None:
    f = noise(1, 1, *shape)[0, 0].numpy()
    places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")).reshape(len(shape), -1)
    out = np.zeros(f.size, dtype=complex)
    for k in product(*map(range, shape)):
        frequency = np.array([i / n if 2 * i <= n else i / n - 1 for i, n in zip(k, shape, strict=True)])
        wave = np.exp(2j * np.pi * frequency @ places)
        gain = 1 - np.exp(-(frequency @ frequency) / (2 * CUT**2))
        out += gain * (f.ravel() * wave.conj()).sum() / f.size * wave
    assert np.abs(out.imag).max() < 1e-10
    found = fft_high(torch.from_numpy(f)[None, None], CUT)[0, 0].numpy()
    np.testing.assert_allclose(found, out.real.reshape(shape), atol=1e-12)


def test_fft_is_all_but_a_gaussian_blur() -> None:
    """Far from wrapping around: the Gaussian of width cut has one of 1 / (2 pi cut) voxels as its transform."""
    f = noise(48, 40)
    blur = ndimage.gaussian_filter(f.numpy(), 1 / (2 * np.pi * CUT), mode="wrap", truncate=8)
    np.testing.assert_allclose(fft_high(f[None, None], CUT)[0, 0].numpy(), f.numpy() - blur, atol=1e-4)


def haar_matrix(size: int) -> tuple[np.ndarray, np.ndarray]:
    """(size, size) of the orthonormal transform of an even size, low band first, and which rows are low."""
    rows = np.zeros((size, size))
    for i in range(size // 2):
        rows[i, 2 * i : 2 * i + 2] = 0.5**0.5, 0.5**0.5
        rows[size // 2 + i, 2 * i : 2 * i + 2] = 0.5**0.5, -(0.5**0.5)
    return rows, np.arange(size) < size // 2


@shapes
def test_haar_is_the_transform_without_its_low_band(shape: tuple[int, ...]) -> None:
    f = noise(1, 1, *shape)
    x = np.pad(f[0, 0].numpy(), [(0, size % 2) for size in shape], mode="edge")
    bands, low = x, np.ones(x.shape, dtype=bool)
    for axis, size in enumerate(x.shape):
        matrix, is_low = haar_matrix(size)
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(size), atol=1e-12)
        bands = np.moveaxis(np.tensordot(matrix, bands, (1, axis)), 0, axis)
        low &= is_low.reshape([-1 if a == axis else 1 for a in range(x.ndim)])
    bands[low] = 0
    for axis, size in enumerate(x.shape):
        bands = np.moveaxis(np.tensordot(haar_matrix(size)[0].T, bands, (1, axis)), 0, axis)
    cut = bands[tuple(slice(size) for size in shape)]
    np.testing.assert_allclose(haar_high(f)[0, 0].numpy(), cut, atol=1e-12)


@shapes
def test_laplacian_is_less_a_uniform_filter(shape: tuple[int, ...]) -> None:
    f = noise(1, 1, *shape)[0, 0]
    mean = ndimage.uniform_filter(f.numpy(), 3, mode="nearest")
    np.testing.assert_allclose(laplacian_high(f[None, None])[0, 0].numpy(), f.numpy() - mean, atol=1e-12)


@pytest.mark.parametrize("dims", [2, 3])
def test_white_noise_keeps_its_share(dims: int) -> None:
    """Energy: that of the gain at even frequencies; all bands but one of 2^d; 1 - 1 / 3^d away from the border."""
    side = 192 if dims == 2 else 40
    f = noise(1, 4, *([side] * dims))
    r2 = sum(np.square(axis) for axis in np.meshgrid(*[np.fft.fftfreq(side)] * dims))
    shares = {
        "fft": np.square(1 - np.exp(-r2 / (2 * CUT**2))).mean(), "haar": 1 - 0.5**dims, "laplacian": 1 - 1 / 3**dims,
    }  # fmt: skip
    for name, share in shares.items():
        kept = (OPERATORS[name](f).square().mean() / f.square().mean()).item()
        assert kept == pytest.approx(share, rel=0.02), name


@names
def test_half_precision_is_computed_in_full(name: str) -> None:
    f = noise(1, 2, 7, 6, 5).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = OPERATORS[name](f)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, OPERATORS[name](f.float()).bfloat16())


@names
def test_gradients(name: str) -> None:
    assert torch.autograd.gradcheck(OPERATORS[name], noise(1, 1, 3, 4, 2).requires_grad_())
