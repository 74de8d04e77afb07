"""Mucosa phantoms: a lit, folded wall with one or two polyps, as a colonoscope would see it.

Everything is a height field towards the scope: the wall falls away into the lumen, folds and polyps rise from it, and
one lamp at the scope shades it (Lambert's law, fall-off with distance) and glints on it where it is wet.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from morphogen.data.phantom_fields import Blob, Field, draw_waves, fractal, mix, pixel_grid, smoothstep, to_uint8

_WALL = np.array([[0.84, 0.46, 0.37], [0.87, 0.55, 0.28], [0.78, 0.57, 0.42], [0.76, 0.38, 0.34]], dtype=np.float32)
"""Wall colours to mix: salmon, orange, beige, deep pink."""
_SHIFT = np.array([[1.10, 0.72, 0.72], [1.22, 1.28, 1.30], [0.98, 0.84, 1.00], [1.10, 0.90, 0.66]], dtype=np.float32)
"""Factors on the wall's colour that a polyp may carry: reddish, pale, livid, brownish."""
_VESSEL = np.array([0.62, 0.17, 0.15], dtype=np.float32)
_GLINT = np.array([1.0, 0.99, 0.95], dtype=np.float32)
_CANDIDATES = 24
_MARGIN = 0.02
"""A polyp keeps this distance from the edge of the visible field, in units of the image side."""


@dataclass(frozen=True)
class Style:
    """What all frames of one subject share: the scope's mask, the lamp, the tissue."""

    aperture: str
    radius: float
    wall: np.ndarray
    lamp: float
    falloff: float
    vessels: float
    fold_frequency: float
    fold_height: float
    wetness: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Style:
        """Draw a style."""
        weights = rng.dirichlet(np.full(len(_WALL), 0.7))
        return cls(
            aperture=str(rng.choice(["full", "octagon", "circle", "notched"], p=[0.3, 0.35, 0.15, 0.2])),
            radius=float(rng.uniform(0.46, 0.52)),
            wall=(weights @ _WALL * rng.uniform(0.9, 1.08)).astype(np.float32),
            lamp=float(rng.uniform(0.55, 0.95)),
            falloff=float(rng.uniform(0.9, 1.7)),
            vessels=float(rng.uniform(0.0, 1.0)),
            fold_frequency=float(rng.uniform(3.0, 7.0)),
            fold_height=float(rng.uniform(0.02, 0.09)),
            wetness=float(rng.uniform(0.2, 1.0)),
        )

    def outside(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Signed depth beyond the visible field, in units of the image side: negative where the scope sees."""
        dx, dy = np.abs(x - 0.5), np.abs(y - 0.5)
        square = np.maximum(dx, dy)
        if self.aperture == "full":
            return square - 0.5
        if self.aperture == "circle":
            return np.maximum(np.hypot(dx, dy) - self.radius, square - 0.5)
        octagon = np.maximum(square - min(self.radius, 0.5), (dx + dy) / np.sqrt(2.0) - 1.12 * self.radius)
        if self.aperture == "notched":
            octagon = np.maximum(octagon, np.minimum(0.32 - x, y - 0.68))
        return octagon


@dataclass(frozen=True)
class Polyp:
    """One polyp.

    Attributes:
        blob: Its outline.
        height: Rise above the wall, in units of the image side.
        bulge: Exponent of the dome: 0.5 is a hemisphere, 1 is a flat hill.
        shift: (3,) factors on the wall's colour.
        contrast: 0 to 1: how much of `shift`, relief and rim is shown.
        rough: Strength of the polyp's own surface texture.
    """

    blob: Blob
    height: float
    bulge: float
    shift: np.ndarray
    contrast: float
    rough: float


def mucosa(style_rng: np.random.Generator, rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """One frame: image (size, size, 3) uint8 and mask (size, size) int64, 1 on the polyps."""
    style = Style.draw(style_rng)
    x, y = pixel_grid(size)
    polyps = _place(rng, style)
    levels = [polyp.blob.level(x, y).astype(np.float32) for polyp in polyps]
    wall, lumen = _wall(rng, style, size)
    cover = 1.0 - smoothstep(0.5, 1.0, np.minimum.reduce(levels))  # a polyp hides folds and lumen behind it
    wall = wall * (1.0 - 0.7 * cover) + 0.7 * cover * ndimage.gaussian_filter(wall, 0.08 * size)
    height = wall + np.maximum.reduce([_dome(p, f) for p, f in zip(polyps, levels, strict=True)])
    grain = fractal(rng, size, 16, 3, 0.8)
    colour = _tissue(rng, style, size)
    for polyp, level in zip(polyps, levels, strict=True):
        colour = _paint(colour, style.wall, polyp, level, grain)
        height = height + 0.0025 * polyp.rough * grain * (1.0 - smoothstep(0.8, 1.0, level))
    image = _light(rng, style, colour, height, lumen * (1.0 - 0.6 * cover), grain)
    image = _frame(image, style, size) + rng.normal(0.0, 0.008, (size, size, 3)).astype(np.float32)
    mask = (np.minimum.reduce(levels) < 1.0).astype(np.int64)
    return to_uint8(image), mask


def _draw_polyp(rng: np.random.Generator) -> Polyp:
    area = np.exp(rng.uniform(np.log(0.012), np.log(0.25)))
    aspect = rng.uniform(1.0, 1.7)
    radius = np.sqrt(area / np.pi)
    contrast = rng.uniform(0.3, 1.0)
    weights = rng.dirichlet(np.full(len(_SHIFT), 0.4))
    flat = rng.uniform() < 0.25
    return Polyp(
        blob=Blob(
            (0.5, 0.5),
            (float(radius * np.sqrt(aspect)), float(radius / np.sqrt(aspect))),
            float(rng.uniform(0, np.pi)),
            draw_waves(rng, 4, 0.10),
        ),
        height=float(radius * (rng.uniform(0.2, 0.35) if flat else rng.uniform(0.4, 0.85))),
        bulge=1.0 if flat else float(rng.uniform(0.5, 0.8)),
        shift=(weights @ _SHIFT).astype(np.float32),
        contrast=float(contrast),
        rough=float(rng.uniform(0.2, 1.5)),
    )


def _place(rng: np.random.Generator, style: Style) -> list[Polyp]:
    """One polyp, sometimes two that do not touch, each wholly inside the visible field."""
    placed: list[Polyp] = []
    for _ in range(2 if rng.uniform() < 0.18 else 1):
        polyp = _draw_polyp(rng)
        centres = np.concatenate([rng.uniform(0.05, 0.95, (_CANDIDATES, 2)), [[0.5, 0.5]]])
        fitting = (
            b for b in (replace(polyp.blob, centre=(cx, cy)) for cx, cy in centres.tolist()) if _fits(b, style, placed)
        )
        blob = next(fitting, None)
        if blob is None and not placed:
            small = min(polyp.blob.radii) / 2
            blob = Blob((0.5, 0.5), (small, small), 0.0, polyp.blob.waves)
        if blob is not None:
            placed.append(replace(polyp, blob=blob))
    return placed


def _fits(blob: Blob, style: Style, placed: list[Polyp]) -> bool:
    edge = blob.outline()
    if bool((style.outside(edge[:, 0], edge[:, 1]) > -_MARGIN).any()):
        return False
    if style.aperture == "notched" and edge[:, 0].min() < 0.34 and edge[:, 1].max() > 0.66:
        return False
    return all(
        np.hypot(blob.centre[0] - other.blob.centre[0], blob.centre[1] - other.blob.centre[1])
        > 1.4 * (max(blob.radii) + max(other.blob.radii))
        for other in placed
    )


def _wall(rng: np.random.Generator, style: Style, size: int) -> tuple[Field, Field]:
    """Height of the wall, and how deep in the lumen each pixel lies (0 to 1)."""
    x, y = pixel_grid(size)
    angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.15, 0.75)
    warp = fractal(rng, size, 2, 3)
    cx, cy = 0.5 + reach * np.cos(angle), 0.5 + reach * np.sin(angle)
    stretch = rng.uniform(0.75, 1.3)
    r = np.hypot((x - cx) * stretch, (y - cy) / stretch) * (1.0 + 0.18 * warp) + 0.04
    lumen = (1.0 - smoothstep(0.0, rng.uniform(0.3, 0.6), r)) ** 1.4
    phase = style.fold_frequency * np.log(r) * 2.0 + 1.1 * fractal(rng, size, 2, 2) + rng.uniform(0, 2 * np.pi)
    crest = (0.5 + 0.5 * np.cos(phase + 0.5 * np.sin(phase))) ** 2
    partial = smoothstep(-0.6, 0.8, fractal(rng, size, 2, 2))
    folds = style.fold_height * crest * partial * np.minimum(r, 0.7) * 1.6
    return folds + 0.012 * fractal(rng, size, 5, 3) + 0.25 * np.minimum(r, 0.9), lumen


def _dome(polyp: Polyp, level: Field) -> Field:
    rise = polyp.height * (0.35 + 0.65 * polyp.contrast)
    return rise * np.maximum(1.0 - level**2, 0.0) ** polyp.bulge


def _tissue(rng: np.random.Generator, style: Style, size: int) -> np.ndarray:
    """(size, size, 3) colour of the wall before light: blotches, vessels, now and then bile."""
    tint = fractal(rng, size, 3, 4, 0.6)
    colour = style.wall * (1.0 + tint[..., None] * np.array([0.035, 0.075, 0.07], dtype=np.float32))
    line = np.minimum(np.abs(fractal(rng, size, 4, 4, 0.6)), 1.3 * np.abs(fractal(rng, size, 7, 3, 0.6)))
    patch = smoothstep(-0.5, 1.0, fractal(rng, size, 3, 2))
    vessel = (1.0 - smoothstep(0.0, 0.2, line)) * patch
    colour = mix(colour, _VESSEL, 0.42 * style.vessels * vessel)
    bile = fractal(rng, size, 2, 4)
    if rng.uniform() < 0.15:
        colour = mix(colour, np.array([0.80, 0.62, 0.16], dtype=np.float32), 0.7 * smoothstep(1.0, 1.7, bile))
    return colour


def _paint(colour: np.ndarray, wall: np.ndarray, polyp: Polyp, level: Field, grain: Field) -> np.ndarray:
    """Give the polyp its colour, with a soft boundary and a dim rim where it meets the wall."""
    radius = min(polyp.blob.radii)
    soft = 0.06 + 0.25 * (1.0 - polyp.contrast) + 0.5 / (level.shape[0] * radius)
    inside = 1.0 - smoothstep(1.0 - soft, 1.0 + soft, level)
    shift = 1.0 + (polyp.shift - 1.0) * (0.25 + 0.75 * polyp.contrast)
    texture = 1.0 + 0.05 * polyp.rough * grain[..., None] * np.array([0.5, 1.0, 1.0], dtype=np.float32)
    own = (0.45 * colour + 0.55 * wall) * shift * texture
    rim = np.exp(-(((level - 1.03) / 0.10) ** 2))
    return mix(colour, own, inside) * (1.0 - 0.16 * polyp.contrast * rim[..., None])


def _light(
    rng: np.random.Generator, style: Style, colour: np.ndarray, height: Field, lumen: Field, grain: Field
) -> np.ndarray:
    """Shade the height field by a lamp at the scope and add glints."""
    size = height.shape[0]
    x, y = pixel_grid(size)
    lx, ly = 0.5 + rng.uniform(-0.25, 0.25), 0.5 + rng.uniform(-0.3, 0.2)
    smooth = ndimage.gaussian_filter(height, 0.012 * size)
    gy, gx = (g * size for g in np.gradient(smooth))
    to_lamp = np.stack([lx - x, ly - y, style.lamp - smooth])
    distance = np.sqrt((to_lamp**2).sum(0))

    def facing(ax: Field, ay: Field) -> Field:
        """Cosine between the surface normal (-ax, -ay, 1) and the direction of the lamp."""
        dot = -ax * to_lamp[0] - ay * to_lamp[1] + to_lamp[2]
        return np.maximum(dot / (distance * np.sqrt(ax**2 + ay**2 + 1.0)), 0.0)

    lambert = facing(gx, gy)
    gain = style.falloff * (style.lamp / distance) ** 1.6
    image = colour * (0.24 + 0.76 * lambert)[..., None] * np.minimum(gain, 1.5)[..., None]
    image = image * (1.0 - 0.85 * lumen[..., None])
    ripple = fractal(rng, size, 9, 3, 0.7)
    ry, rx = (g * size * 0.006 for g in np.gradient(ripple))
    wet = smoothstep(0.984, 0.998, facing(gx + rx, gy + ry)) * smoothstep(0.1, 0.7, ripple)
    image = image / (1.0 + 0.18 * np.maximum(image - 0.6, 0.0))
    return mix(image, _GLINT, 0.95 * style.wetness * wet * (1.0 - lumen))


def _frame(image: np.ndarray, style: Style, size: int) -> np.ndarray:
    """Black out what lies beyond the visible field."""
    x, y = pixel_grid(size)
    if style.aperture == "full":
        return image
    visible = 1.0 - smoothstep(-0.5 / size, 1.0 / size, style.outside(x, y))
    return mix(np.full_like(image, 0.02), image, visible)
