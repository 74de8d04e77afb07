"""Skin phantoms: a pigmented lesion on skin, as a dermatoscope would see it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from morphogen.data.phantom_fields import (
    Blob,
    Field,
    draw_waves,
    fractal,
    lattice,
    mix,
    pixel_grid,
    smoothstep,
    to_uint8,
)

SKIN_CLASSES = ("melanocytic nevus", "melanoma", "benign keratosis")
"""Diagnoses that a skin phantom may show; the class decides border and colours."""

_TONES = np.array([[0.93, 0.78, 0.72], [0.90, 0.74, 0.62], [0.80, 0.58, 0.50], [0.72, 0.55, 0.44]], dtype=np.float32)
"""Skin tones to mix: fair pink, fair yellow, reddish, tan."""
_PIGMENT = {
    "light brown": (0.66, 0.42, 0.26),
    "dark brown": (0.36, 0.20, 0.13),
    "black": (0.13, 0.09, 0.09),
    "red": (0.72, 0.36, 0.32),
    "blue-gray": (0.38, 0.38, 0.44),
    "white": (0.86, 0.76, 0.72),
}
_RAGGED = 1.3
"""The noise that frays a border is clipped at this many standard deviations, so that its reach is known."""
_REACH = 0.48
"""No lesion reaches farther than this from the middle: never out of the frame, never under the vignette."""
_FADED = 0.45
"""Least contrast of a lesion; lower is easily missed even by eye."""


@dataclass(frozen=True)
class Style:
    """What all images of one subject share: skin, hair and instrument."""

    tone: np.ndarray
    mottle: float
    freckles: float
    hairs: int
    hair: tuple[int, int, int]
    vignette: float
    lamp: tuple[float, float]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Style:
        """Draw a style."""
        weights = rng.dirichlet(np.full(len(_TONES), 0.6))
        dark = rng.uniform(0.15, 0.5)
        return cls(
            tone=(weights @ _TONES * rng.uniform(0.85, 1.05)).astype(np.float32),
            mottle=float(rng.uniform(0.3, 1.3)),
            freckles=float(max(0.0, rng.uniform(-0.7, 0.5))),
            hairs=int(rng.integers(2, 16)) if rng.uniform() < 0.3 else 0,
            hair=(int(150 * dark), int(110 * dark), int(90 * dark)),
            vignette=float(rng.uniform(0.52, 0.68)) if rng.uniform() < 0.35 else 2.0,
            lamp=(float(rng.uniform(0.35, 0.65)), float(rng.uniform(0.35, 0.65))),
        )


@dataclass(frozen=True)
class Lesion:
    """Appearance of a lesion: its outline, pigments by decreasing share, and how they are laid out."""

    blob: Blob
    ragged: float
    pigments: tuple[str, ...]
    contrast: float
    soft: float
    network: float
    globules: float


def skin_class(rng: np.random.Generator) -> str:
    """The diagnosis; the first thing that is drawn from a scene's generator."""
    return str(rng.choice(SKIN_CLASSES, p=[0.5, 0.3, 0.2]))


def skin(style_rng: np.random.Generator, rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """One image: (size, size, 3) uint8 and mask (size, size) int64, 1 on the lesion."""
    style = Style.draw(style_rng)
    lesion = _draw_lesion(rng, skin_class(rng))
    x, y = pixel_grid(size)
    ragged = fractal(rng, size, 6, 3, 0.6)
    level = (lesion.blob.level(x, y) * (1.0 + lesion.ragged * np.clip(ragged, -_RAGGED, _RAGGED))).astype(np.float32)
    image = _pigment(rng, _background(rng, style, size), lesion, level)
    image = image * (1.04 - 0.5 * ((x - style.lamp[0]) ** 2 + (y - style.lamp[1]) ** 2))[..., None]
    image = _hairs(rng, image, style)
    rim = smoothstep(style.vignette - 0.02, style.vignette + 0.05, np.hypot(x - 0.5, y - 0.5))
    image = mix(image, np.array([0.03, 0.02, 0.03], dtype=np.float32), 0.95 * rim)
    image = image + rng.normal(0.0, 0.008, (size, size, 3)).astype(np.float32)
    return to_uint8(image), (level < 1.0).astype(np.int64)


def _draw_lesion(rng: np.random.Generator, name: str) -> Lesion:
    malignant, waxy = name == "melanoma", name == "benign keratosis"
    wild = rng.uniform(0.10, 0.26) if malignant else rng.uniform(0.02, 0.12)
    ragged = float(wild * rng.uniform(0.4, 0.8))
    return Lesion(
        blob=_draw_outline(rng, float(wild), ragged),
        ragged=ragged,
        pigments=_draw_pigments(rng, name),
        contrast=float(rng.uniform(_FADED, 1.0)),
        soft=float(rng.uniform(0.02, 0.12) if waxy or malignant else rng.uniform(0.05, 0.3)),
        network=float(0.0 if waxy else rng.uniform(0.0, 0.6)),
        globules=float(rng.uniform(0.3, 0.8) if waxy else rng.uniform(0.0, 0.4)),
    )


def _draw_outline(rng: np.random.Generator, wild: float, ragged: float) -> Blob:
    """An outline whose frayed border stays within `_REACH` of the middle of the image."""
    radius = np.sqrt(np.exp(rng.uniform(np.log(0.02), np.log(0.32))) / np.pi)
    aspect = np.sqrt(rng.uniform(1.0, 1.6))
    blob = Blob((0.0, 0.0), (radius * aspect, radius / aspect), float(rng.uniform(0, np.pi)), draw_waves(rng, 9, wild))
    extent = float(np.hypot(*blob.outline(360).T).max()) / (1.0 - _RAGGED * ragged) * 1.01
    shrink = min(1.0, 0.95 * _REACH / extent)
    away = (_REACH - extent * shrink) * np.sqrt(rng.uniform())
    direction = rng.uniform(0, 2 * np.pi)
    return Blob(
        (float(0.5 + away * np.cos(direction)), float(0.5 + away * np.sin(direction))),
        (float(blob.radii[0] * shrink), float(blob.radii[1] * shrink)),
        blob.angle,
        blob.waves,
    )


def _draw_pigments(rng: np.random.Generator, name: str) -> tuple[str, ...]:
    if name == "melanoma":
        rest = rng.permutation(["black", "red", "blue-gray", "white", "light brown"])[: rng.integers(1, 4)]
        return ("dark brown", *map(str, rest))
    if name == "benign keratosis":
        return ("light brown", str(rng.choice(["dark brown", "white", "red"])))
    return ("light brown", "dark brown") if rng.uniform() < 0.7 else ("dark brown", "light brown")


def _background(rng: np.random.Generator, style: Style, size: int) -> np.ndarray:
    """(size, size, 3) bare skin: mottled, finely lined, sometimes freckled."""
    mottle = style.mottle * fractal(rng, size, 3, 5, 0.7)
    tint = np.array([0.018, 0.035, 0.035], dtype=np.float32)
    lines = lattice(rng, (40, 14), size) + lattice(rng, (14, 40), size)
    image = style.tone * (1.0 + mottle[..., None] * tint + 0.010 * lines[..., None])
    freckles = style.freckles * smoothstep(1.2, 2.2, fractal(rng, size, 26, 2))
    return mix(image, np.array([0.62, 0.40, 0.28], dtype=np.float32), freckles)


def _pigment(rng: np.random.Generator, image: np.ndarray, lesion: Lesion, level: Field) -> np.ndarray:
    """Lay the lesion's pigments over the skin, darker towards the middle, in patches, with network and globules."""
    size = level.shape[0]
    share = np.stack([np.exp(2.2 * fractal(rng, size, 3, 4, 0.6) - 0.7 * i) for i in range(len(lesion.pigments))])
    share = share / share.sum(0)
    palette = np.array([_PIGMENT[name] for name in lesion.pigments], dtype=np.float32)
    colour = np.einsum("khw,kc->hwc", share, palette)
    net = np.abs(lattice(rng, (26, 26), size)) + np.abs(lattice(rng, (26, 26), size))
    colour = colour * (1.0 + 0.35 * lesion.network * np.clip(net - 1.0, -1.0, 1.0))[..., None]
    colour = colour * (1.0 - 0.45 * lesion.globules * smoothstep(0.7, 1.5, lattice(rng, (20, 20), size)))[..., None]
    cover = 1.0 - smoothstep(1.0 - lesion.soft, 1.0 + 0.4 * lesion.soft, level)
    depth = lesion.contrast * (0.72 + 0.28 * (1.0 - np.clip(level, 0.0, 1.0)))
    halo = 0.12 * (1.0 - smoothstep(0.95, 1.3, level))
    flushed = image * (1.0 - halo[..., None] * np.array([0.3, 1.0, 1.0], dtype=np.float32))
    return mix(flushed, colour, cover * depth)


def _hairs(rng: np.random.Generator, image: np.ndarray, style: Style) -> np.ndarray:
    """Draw curved hairs, anti-aliased."""
    if style.hairs == 0:
        return image
    size, fine = image.shape[0], 4 * image.shape[0]
    sheet = Image.new("L", (fine, fine))
    pen = ImageDraw.Draw(sheet)
    t = np.linspace(0.0, 1.0, 24)[:, None]
    for _ in range(style.hairs):
        start, end = rng.uniform(-0.1, 1.1, (2, 2))
        middle = (start + end) / 2 + rng.normal(0.0, 0.12, 2)
        curve = ((1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end) * fine
        pen.line(
            [tuple(p) for p in curve.tolist()], fill=int(rng.integers(120, 230)), width=max(1, round(fine * 0.0045))
        )
    weight = np.asarray(sheet.resize((size, size), Image.Resampling.BOX), dtype=np.float32) / 255.0
    return mix(image, np.array(style.hair, dtype=np.float32) / 255.0, weight)
