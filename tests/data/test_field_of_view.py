"""The lit part of a frame, on drawn frames whose lit part is known, and on real ones; what quality refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from morphogen.data.field_of_view import WORKING_SIDE, field_of_view
from morphogen.data.images import load_rgb
from morphogen.data.overlays import foreign_boxes
from morphogen.data.picture_quality import quality, sharpness
from morphogen.data.readers import read_dataset

HEIGHT, WIDTH = 240, 300


def tissue(height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> np.ndarray:
    """Reddish, smoothly lit, with fine grain."""
    rng = np.random.default_rng(seed)
    light = ndimage.gaussian_filter(rng.standard_normal((height, width)), 25)
    light = 0.8 + 0.15 * light / np.abs(light).max()
    image = np.array([200.0, 120.0, 105.0]) * light[..., None] + rng.normal(0, 4, (height, width, 1))
    return image.clip(0, 255).astype(np.uint8)


def disc(row: float, column: float, radius: float, shape: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    rows, columns = np.indices(shape)
    return np.hypot(rows - row, columns - column) <= radius


def octagon() -> np.ndarray:
    rows, columns = np.indices((HEIGHT, WIDTH))
    x, y = np.minimum(columns, WIDTH - 1 - columns), np.minimum(rows, HEIGHT - 1 - rows)
    return (x >= 20) & (y >= 12) & (x + y >= 80)


def framed(lit: np.ndarray, black: int = 4) -> np.ndarray:
    noise = np.random.default_rng(1).integers(-3, 4, lit.shape)
    return np.where(lit[..., None], tissue(*lit.shape), (black + noise).clip(0)[..., None]).astype(np.uint8)


def agrees(found: np.ndarray, lit: np.ndarray, px: int = 3) -> bool:
    """Nothing outside is taken in, and at most `px` at the edge are left out."""
    return not (found & ~lit).any() and not (ndimage.binary_erosion(lit, iterations=px, border_value=1) & ~found).any()


class TestBorders:
    def test_a_frame_without_borders_is_all_in(self) -> None:
        assert field_of_view(tissue()).all()

    def test_a_black_frame_is_all_out(self) -> None:
        assert not field_of_view(np.zeros((40, 50, 3), np.uint8)).any()

    @pytest.mark.parametrize("black", [0, 4, 20])
    @pytest.mark.parametrize("lit", [octagon(), disc(120, 150, 118)], ids=["octagon", "disc"])
    def test_black_borders_are_out(self, lit: np.ndarray, black: int) -> None:
        assert agrees(field_of_view(framed(lit, black)), lit)

    def test_a_black_notch_with_sharp_edges_is_out(self) -> None:
        lit = octagon()
        lit[160:, :110] = False
        assert agrees(field_of_view(framed(lit)), lit)

    def test_a_lumen_in_the_middle_and_highlights_are_in(self) -> None:
        image = framed(octagon())
        image[disc(120, 150, 30)] = 2
        image[disc(60, 150, 5)] = 255
        assert agrees(field_of_view(image), octagon())

    def test_a_shadow_that_runs_into_the_border_is_in(self) -> None:
        image = framed(octagon(), 12).astype(np.float64)
        shade = np.clip(np.hypot(*np.indices(octagon().shape) - np.array([120, 30])[:, None, None]) / 90, 0, 1) ** 3
        dark = np.where(octagon()[..., None], np.maximum(image * shade[..., None], 8), image)
        found = field_of_view(dark.astype(np.uint8))
        assert (dark.max(axis=2) < 15)[octagon()].mean() > 0.05
        assert (found & octagon()).sum() > 0.97 * octagon().sum()

    def test_only_the_largest_part_counts(self) -> None:
        lit = disc(120, 110, 90) | disc(120, 270, 15)
        assert agrees(field_of_view(framed(lit)), disc(120, 110, 90))

    def test_large_frames_are_looked_at_smaller(self) -> None:
        lit = disc(600, 800, 560, (1200, 1600))
        found = field_of_view(framed(lit))
        assert max(found.shape) > WORKING_SIDE
        assert agrees(found, ndimage.binary_dilation(lit, iterations=3), 12)


class TestOverlays:
    def test_the_green_box_is_out_with_what_is_drawn_in_it(self) -> None:
        image, lit = framed(octagon()), octagon()
        image[165:225, 20:95] = (20, 160, 130)
        image[190:200, 40:60] = 0
        lit[165:225, 20:95] = False
        assert agrees(field_of_view(image), lit, 4)

    def test_a_blue_message_is_out(self) -> None:
        image = tissue()
        image[100:112, 30:200] = (5, 5, 160)
        found = field_of_view(image)
        assert not found[100:112, 30:200].any()
        assert found.mean() > 0.9

    def test_bluish_tissue_is_no_box(self) -> None:
        image = tissue()[..., ::-1].copy()
        assert not foreign_boxes(image).any()
        assert field_of_view(image).all()

    def test_burnt_in_text_is_out(self) -> None:
        picture = Image.fromarray(tissue())
        ImageDraw.Draw(picture).text((30, 100), "29/11/2012", fill=(250, 250, 250), font_size=11)
        image = np.array(picture)
        written = (image != tissue()).any(axis=2)
        found = field_of_view(image)
        assert (written & ~found).sum() > 0.8 * written.sum()
        assert found.mean() > 0.95

    def test_scattered_highlights_are_no_text(self) -> None:
        image, rng = tissue(), np.random.default_rng(0)
        for row, column in zip(rng.integers(20, 220, 25), rng.integers(20, 280, 25), strict=True):
            image[disc(row, column, rng.uniform(1.5, 6))] = 250
        assert field_of_view(image).mean() > 0.985


class TestQuality:
    def test_a_good_frame_has_no_reason_against_it(self) -> None:
        found = quality(framed(octagon()))
        assert found["reasons"] == []
        assert abs(found["field"] - octagon().mean()) < 0.03
        assert found["glare"] == 0.0

    def test_blurred(self) -> None:
        image = framed(octagon())
        soft = np.stack([ndimage.gaussian_filter(channel, 3.0) for channel in np.moveaxis(image, 2, 0)], axis=2)
        assert quality(soft)["reasons"] == ["blurred"]

    def test_glare(self) -> None:
        image = framed(octagon())
        image[disc(120, 150, 50)] = 252
        found = quality(image)
        assert found["reasons"] == ["glare"]
        assert abs(found["glare"] - disc(120, 150, 50).sum() / octagon().sum()) < 0.03

    def test_little_field_of_view(self) -> None:
        assert quality(framed(disc(120, 150, 50)))["reasons"] == ["little field of view"]
        assert quality(np.zeros((30, 30, 3), np.uint8))["reasons"] == ["little field of view"]

    def test_sharpness_of_a_part(self) -> None:
        image = tissue()
        image[:, 150:] = 128
        left = np.arange(WIDTH)[None] * np.ones((HEIGHT, 1)) < 140
        assert sharpness(image, left) > sharpness(image) > 0
        assert sharpness(image, ~left & (np.arange(WIDTH)[None] > 160)) == 0.0


@pytest.mark.realdata
class TestRealFrames:
    """What is known of the sets: black borders of CVC's frames, corners and notches of Kvasir's, lesions always lit."""

    @pytest.mark.parametrize(
        ("name", "least", "most"),
        [("polyps/cvc_clinicdb", 0.55, 0.8), ("polyps/kvasir_seg", 0.6, 0.97), ("skin/isic2017", 0.35, 1.0)],
    )
    def test_shares_and_lesions(self, real_data: Path, name: str, least: float, most: float) -> None:
        data = read_dataset(real_data / name)
        shares, kept = [], []
        for record in data.records[::70]:
            field = field_of_view(load_rgb(record))
            assert record.mask is not None
            lesion = np.asarray(Image.open(record.mask).convert("L")) > 127
            shares.append(field.mean())
            kept.append((lesion & field).sum() / lesion.sum())
        assert least < np.median(shares) <= most
        assert min(shares) > 0.3
        assert np.mean(kept) > 0.96
        assert np.median(kept) > 0.985

    def test_most_frames_are_good_enough(self, real_data: Path) -> None:
        for name in ("polyps/cvc_clinicdb", "skin/isic2017"):
            found = [quality(load_rgb(record))["reasons"] for record in read_dataset(real_data / name).records[::120]]
            assert np.mean([not reasons for reasons in found]) > 0.8
