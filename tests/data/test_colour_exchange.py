"""Colour exchange against the CIE's formulas, written out."""

from __future__ import annotations

import numpy as np
import pytest

from morphogen.data.colour_exchange import exchange_colour
from morphogen.data.phantoms import phantom

_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_WHITE = np.array([0.95047, 1.0, 1.08883])
_SIXTH = 6 / 29


def _lab(rgb: np.ndarray) -> np.ndarray:
    """(3, H, W) uint8 -> (3, H, W) float64: IEC 61966-2-1, then CIE 15."""
    c = rgb / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    t = np.einsum("xc,chw->xhw", _TO_XYZ, linear) / _WHITE[:, None, None]
    x, y, z = np.where(t > _SIXTH**3, np.cbrt(t), t / (3 * _SIXTH**2) + 4 / 29)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def _rgb(lab: np.ndarray) -> np.ndarray:
    """The way back; what is outside of sRGB is clipped."""
    y = (lab[0] + 16) / 116
    f = np.stack([y + lab[1] / 500, y, y - lab[2] / 200])
    t = np.where(f > _SIXTH, f**3, 3 * _SIXTH**2 * (f - 4 / 29)) * _WHITE[:, None, None]
    linear = np.einsum("cx,xhw->chw", np.linalg.inv(_TO_XYZ), t).clip(0, 1)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055) * 255


def _literal(image: np.ndarray, other: np.ndarray) -> np.ndarray:
    own, theirs = _lab(image), _lab(other)
    moved = np.stack([(a - a.mean()) / a.std() * b.std() + b.mean() for a, b in zip(own, theirs, strict=True)])
    return _rgb(moved)


def _phantom(kind: str, seed: int, side: int = 48) -> np.ndarray:
    return np.ascontiguousarray(phantom(kind, seed, side)[0].transpose(2, 0, 1))


def test_equals_the_literal_version() -> None:
    image, other = _phantom("mucosa", 0), _phantom("skin", 1, 40)
    exchanged = exchange_colour(image, other)
    assert exchanged.shape == image.shape
    assert exchanged.dtype == np.uint8
    assert np.abs(exchanged - _literal(image, other)).max() < 0.51  # rounding, and 32 bits
    assert np.abs(exchanged.astype(int) - image).mean() > 10  # it did something


def test_takes_the_statistics_of_the_other_and_keeps_the_structure() -> None:
    image, other = _phantom("mucosa", 2), 90 + _phantom("mucosa", 3) // 4  # pale, so that nothing is clipped
    moved, theirs, own = _lab(exchange_colour(image, other)), _lab(other), _lab(image)
    np.testing.assert_allclose(moved.mean(axis=(1, 2)), theirs.mean(axis=(1, 2)), atol=0.1)
    np.testing.assert_allclose(moved.std(axis=(1, 2)), theirs.std(axis=(1, 2)), rtol=0.05)
    assert np.corrcoef(moved[0].ravel(), own[0].ravel())[0, 1] > 0.999


def test_an_image_in_its_own_colours_is_itself() -> None:
    image = _phantom("mucosa", 4)
    assert np.abs(exchange_colour(image, image).astype(int) - image).max() <= 1


@pytest.mark.filterwarnings("error")
def test_flat_and_impossible_colours_are_clipped() -> None:
    """A flat image has nothing to stretch; a grey one in the colours of noise leaves sRGB on every side."""
    rng = np.random.default_rng(0)
    flat = np.full((3, 8, 8), 120, np.uint8)
    noise = rng.integers(0, 256, (3, 8, 8), dtype=np.uint8)
    mean = _lab(noise).mean(axis=(1, 2))[:, None, None]
    assert np.abs(exchange_colour(flat, noise) - _rgb(np.broadcast_to(mean, (3, 8, 8)))).max() < 0.51
    outlier = flat.copy()
    outlier[:, 0, 0] = 0, 0, 255
    outlier[:, 0, 1] = 255, 255, 0
    exchanged = exchange_colour(outlier, noise)
    assert exchanged.max() == 255
    assert exchanged.min() == 0
