"""Building blocks of the phantoms: lattice noise, blobby outlines, and small blending helpers.

A scene lives on the unit square, x to the right and y down, and is evaluated at the pixel centres of whatever size is
asked for; noise is interpolated from lattices of fixed resolution. So one seed is one scene, at every size.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

Field = np.ndarray
"""(size, size) float32, a value per pixel."""

_UNIT_STD = 315.0 / 151.0
"""A cubic B-spline keeps on average (151/315)^2 of a white lattice's variance in two dimensions."""


@lru_cache(maxsize=64)
def pixel_grid(size: int) -> tuple[Field, Field]:
    """Coordinates (x, y) of the pixel centres, each (size, size) float32 in (0, 1)."""
    centres = (np.arange(size, dtype=np.float32) + 0.5) / size
    x, y = np.meshgrid(centres, centres)
    return x, y


@lru_cache(maxsize=256)
def spline_basis(cells: int, size: int) -> np.ndarray:
    """(size, cells + 3) float32 weights of the uniform cubic B-spline of `cells` cells at the pixel centres."""
    position = (np.arange(size) + 0.5) / size * cells
    cell = np.floor(position).astype(int)
    t = position - cell
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1) / 6
    basis = np.zeros((size, cells + 3), dtype=np.float32)
    basis[np.arange(size)[:, None], cell[:, None] + np.arange(4)] = weights
    return basis


def lattice(rng: np.random.Generator, cells: tuple[int, int], size: int) -> Field:
    """Smooth noise of about zero mean and unit variance that changes over 1/cells (rows, columns) of the image."""
    values = rng.standard_normal((cells[0] + 3, cells[1] + 3), dtype=np.float32)
    return _UNIT_STD * (spline_basis(cells[0], size) @ values @ spline_basis(cells[1], size).T)


def fractal(rng: np.random.Generator, size: int, first: int, octaves: int, gain: float = 0.5) -> Field:
    """Sum of lattice noises of first, 2 first, 4 first, ... cells, of about zero mean and unit variance.

    Octaves finer than two pixels a cell are drawn (so that the scene is the same at every size) but left out.
    """
    total = np.zeros((size, size), dtype=np.float32)
    for octave in range(octaves):
        cells = first * 2**octave
        if 2 * cells <= size or octave == 0:
            total += gain**octave * lattice(rng, (cells, cells), size)
        else:
            rng.standard_normal((cells + 3, cells + 3), dtype=np.float32)
    return total / np.float32(np.sqrt(sum(gain ** (2 * k) for k in range(octaves))))


def smoothstep(low: float, high: float, value: Field) -> Field:
    """0 below `low`, 1 above `high`, a smooth cubic between."""
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def mix(image: np.ndarray, colour: np.ndarray, weight: Field) -> np.ndarray:
    """Blend (H, W, 3) towards `colour`, (3,) or (H, W, 3), by a weight in [0, 1] a pixel."""
    w = weight[..., None]
    return image * (1.0 - w) + colour * w


def to_uint8(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) float in [0, 1], clipped, to uint8."""
    return np.rint(np.clip(image, 0.0, 1.0) * 255.0).astype(np.uint8)


@dataclass(frozen=True)
class Blob:
    """A closed outline: an ellipse whose radius is perturbed by harmonics of the angle.

    Attributes:
        centre: (x, y) on the unit square.
        radii: The two half axes, in units of the image side.
        angle: Rotation of the first axis, in radians.
        waves: (K, 2) amplitudes of cos(k a) and sin(k a), k = 2 .. K + 1, relative to the radius.
    """

    centre: tuple[float, float]
    radii: tuple[float, float]
    angle: float
    waves: np.ndarray

    def _radius(self, angle: np.ndarray) -> np.ndarray:
        radius = np.ones_like(angle)
        for k, (a, b) in enumerate(self.waves, start=2):
            radius = radius + a * np.cos(k * angle) + b * np.sin(k * angle)
        return np.maximum(radius, 0.3)

    def level(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """0 at the centre, 1 on the outline, above 1 outside; grows linearly along every ray."""
        dx, dy = x - self.centre[0], y - self.centre[1]
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        u, v = (cos * dx + sin * dy) / self.radii[0], (-sin * dx + cos * dy) / self.radii[1]
        return np.asarray(np.hypot(u, v) / self._radius(np.arctan2(v, u)))

    def outline(self, points: int = 96) -> np.ndarray:
        """(points, 2) float (x, y) on the outline."""
        angle = np.linspace(0.0, 2.0 * np.pi, points, endpoint=False)
        radius = self._radius(angle)
        u, v = self.radii[0] * radius * np.cos(angle), self.radii[1] * radius * np.sin(angle)
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return np.stack([self.centre[0] + cos * u - sin * v, self.centre[1] + sin * u + cos * v], axis=1)


def draw_waves(rng: np.random.Generator, count: int, roughness: float) -> np.ndarray:
    """(count, 2) harmonics that fade as 1/k, with a total amplitude of about `roughness`."""
    order = np.arange(2, count + 2)[:, None]
    return roughness * rng.standard_normal((count, 2)) / order
