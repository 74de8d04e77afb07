"""Phantoms: seeded, the same scene at every size, exact masks, visible lesions, groups by subject."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.interpolate import BSpline
from skimage.measure import block_reduce, points_in_poly

from morphogen.data.phantom_fields import Blob, lattice, spline_basis
from morphogen.data.phantoms import KINDS, phantom, phantom_dataset, phantom_label
from morphogen.data.readers import read_dataset
from morphogen.errors import InputError


@pytest.mark.parametrize("kind", KINDS)
class TestPhantom:
    @pytest.mark.parametrize("size", [16, 50, 96])
    def test_shapes_and_ranges(self, kind: str, size: int) -> None:
        image, mask = phantom(kind, 3, size)
        assert (image.shape, image.dtype) == ((size, size, 3), np.uint8)
        assert (mask.shape, mask.dtype) == ((size, size), np.int64)
        assert set(np.unique(mask)) == {0, 1}

    def test_is_a_function_of_its_seed(self, kind: str) -> None:
        first, again, other = phantom(kind, 5, 48), phantom(kind, 5, 48), phantom(kind, 6, 48)
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
        assert not np.array_equal(first[0], other[0])
        assert not np.array_equal(first[1], other[1])

    def test_is_the_same_scene_at_every_size(self, kind: str) -> None:
        for seed in range(6):
            small, large = phantom(kind, seed, 64), phantom(kind, seed, 192)
            shrunk = block_reduce(large[1].astype(float), (3, 3), np.mean) >= 0.5
            both = 2 * (shrunk & (small[1] > 0)).sum() / (shrunk.sum() + small[1].sum())
            assert both > 0.94
            pixels = block_reduce(large[0].astype(float), (3, 3, 1), np.mean)
            assert np.corrcoef(pixels.ravel(), small[0].astype(float).ravel())[0, 1] > 0.95

    def test_lesions_stay_off_the_frame_and_out_of_the_black(self, kind: str) -> None:
        for seed in range(150):
            image, mask = phantom(kind, seed, 32)
            lesion = mask > 0
            assert lesion[1:-1, 1:-1].sum() == lesion.sum()
            black = (image.max(-1) <= 12)[lesion].mean()
            assert black < 0.5, f"the lesion of seed {seed} lies in the dark"

    def test_areas_spread(self, kind: str) -> None:
        areas = [phantom(kind, seed, 32)[1].mean() for seed in range(100)]
        assert min(areas) > 0.004
        assert max(areas) < 0.5
        assert np.quantile(areas, 0.9) > 4 * np.quantile(areas, 0.1)

    def test_lesions_are_seen_but_not_always_plainly(self, kind: str) -> None:
        contrasts = []
        for seed in range(60):
            image, mask = phantom(kind, seed, 48)
            bright = image.max(-1) > 30
            inside, outside = image[(mask > 0) & bright], image[(mask == 0) & bright]
            contrasts.append(np.abs(inside.mean(0) - outside.mean(0)).max())
        assert np.median(contrasts) > 15
        assert np.min(contrasts) < 0.5 * np.median(contrasts)

    def test_style_is_shared_but_not_the_scene(self, kind: str) -> None:
        same = [phantom(kind, seed, 48, style=1) for seed in range(12)]
        mixed = [phantom(kind, seed, 48) for seed in range(12)]
        tone = [np.std([np.median(i.reshape(-1, 3), 0) for i, _ in group], axis=0).mean() for group in (same, mixed)]
        assert tone[0] < tone[1]
        assert not np.array_equal(same[0][1], same[1][1])

    def test_label_belongs_to_the_scene(self, kind: str) -> None:
        labels = {phantom_label(kind, seed) for seed in range(40)}
        assert labels == ({"polyp"} if kind == "mucosa" else {"melanoma", "melanocytic nevus", "benign keratosis"})


def test_melanomas_are_darker_than_keratoses() -> None:
    """The class decides the pigments: otherwise the label would say nothing about the image."""
    light: dict[str, list[float]] = {}
    for seed in range(60):
        image, mask = phantom("skin", seed, 32)
        light.setdefault(phantom_label("skin", seed), []).append(image[mask > 0].mean())
    assert np.mean(light["melanoma"]) < np.mean(light["benign keratosis"]) - 10


@pytest.mark.parametrize(
    ("arguments", "word"), [(("colon", 0, 32), "mucosa"), (("skin", -1, 32), "negative"), (("skin", 0, 8), "16")]
)
def test_wrong_arguments_are_refused_in_a_line(arguments: tuple[str, int, int], word: str) -> None:
    with pytest.raises(InputError, match=word):
        phantom(*arguments)


def test_spline_basis_equals_scipys() -> None:
    cells, size = 5, 23
    knots = np.arange(-3, cells + 4)
    positions = (np.arange(size) + 0.5) / size * cells
    expected = BSpline.design_matrix(positions, knots.astype(float), 3).toarray()
    np.testing.assert_allclose(spline_basis(cells, size), expected, atol=1e-6)


def test_lattice_noise_has_unit_variance() -> None:
    rng = np.random.default_rng(0)
    values = np.stack([lattice(rng, (6, 9), 40) for _ in range(400)])
    assert abs(values.mean()) < 0.05
    assert abs(values.std() - 1.0) < 0.05


def test_blob_level_agrees_with_its_outline() -> None:
    rng = np.random.default_rng(2)
    blob = Blob((0.45, 0.55), (0.3, 0.18), 0.7, 0.08 * rng.standard_normal((4, 2)))
    points = rng.uniform(0, 1, (4000, 2))
    inside = points_in_poly(points, blob.outline(2000))
    assert np.mean(inside == (blob.level(points[:, 0], points[:, 1]) < 1.0)) > 0.999


class TestDataset:
    def test_is_read_back_as_it_was_returned(self, tmp_path: Path) -> None:
        made = phantom_dataset(tmp_path / "d", "skin", 9, 32, seed=2, subjects=3)
        read = read_dataset(tmp_path / "d")
        keys = ("id", "subject", "label", "caption")
        assert [[getattr(r, k) for k in keys] for r in read] == [[getattr(r, k) for k in keys] for r in made]
        assert [r.subject for r in made] == [f"subject-{g:04d}" for g in (0, 0, 0, 1, 1, 1, 2, 2, 2)]
        assert all(r.caption and r.label and r.label in r.caption for r in made)

    def test_masks_on_disk_are_exact(self, tmp_path: Path) -> None:
        from PIL import Image

        made = phantom_dataset(tmp_path, "mucosa", 2, 32, seed=1, subjects=1)
        for i, record in enumerate(made):
            image, mask = phantom("mucosa", 1_000_000 + i, 32, style=1_000_000)
            assert record.mask is not None
            np.testing.assert_array_equal(np.asarray(Image.open(record.mask)), 255 * mask)
            np.testing.assert_array_equal(np.asarray(Image.open(record.image)), image)

    def test_a_second_call_changes_nothing_and_other_files_are_safe(self, tmp_path: Path) -> None:
        def contents() -> dict[str, bytes]:
            return {str(p): p.read_bytes() for p in sorted(tmp_path.rglob("*.*"))}

        phantom_dataset(tmp_path, "mucosa", 3, 32)
        before = contents()
        phantom_dataset(tmp_path, "mucosa", 3, 32)
        assert contents() == before
        with pytest.raises(InputError, match="holds other files"):
            phantom_dataset(tmp_path, "skin", 3, 32)
        assert contents() == before
