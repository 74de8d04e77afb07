"""Lesion pasting: blending against literal solutions, exact masks, and the shared generator tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from generators.base import GeneratorTester
from morphogen.data.phantoms import phantom_dataset
from morphogen.data.readers import read_dataset
from morphogen.data.records import Dataset
from morphogen.errors import InputError
from morphogen.generators.copy_paste import blend, warp
from morphogen.generators.copy_paste.model import CopyPasteConfig, CopyPasteSampler, load, train
from morphogen.sampling.jobs import Job
from morphogen.sampling.plan import plan_jobs


class TestCopyPaste(GeneratorTester):
    name = "copy-paste"
    config = CopyPasteConfig(resolution=32)
    grey_levels = 0

    def test_another_run_in_the_folder_is_refused(self, run: Path, data: Dataset) -> None:
        before = (run / "final" / "generator.json").read_bytes()
        for other, config in ((data, CopyPasteConfig(resolution=16)), (data.select(data.ids[:3]), self.config)):
            with pytest.raises(InputError, match="holds another run"):
                train(other, config, run)
        assert (run / "final" / "generator.json").read_bytes() == before

    def test_training_again_changes_nothing(self, run: Path, data: Dataset) -> None:
        before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
        train(data, self.config, run)
        assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before

    def test_a_damaged_run_is_refused(self, data: Dataset, tmp_path: Path) -> None:
        run = train(data, self.config, tmp_path / "run")
        path = run / "final" / "pairs.safetensors"
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        with pytest.raises(InputError, match="is damaged"):
            load(run)

    def test_one_training_image_is_enough(self, data: Dataset, tmp_path: Path) -> None:
        one = data.select(data.ids[:1])
        sampler = load(train(one, self.config, tmp_path / "run"))
        for pair in sampler.sample(list(plan_jobs(data, 1, "random", 0, size=32))):
            assert pair.origin["background"] == 0

    def test_masks_of_another_size_and_missing_ones_are_refused(self, sampler: CopyPasteSampler) -> None:
        for mask in (None, np.ones((16, 16), dtype=np.int64)):
            with pytest.raises(InputError, match="needs a mask of 32 x 32"):
                sampler.sample([Job("a", 0, mask)])

    def test_empty_mask_gives_a_repaired_background(self, sampler: CopyPasteSampler) -> None:
        pair = sampler.sample([Job("a", 0, np.zeros((32, 32), dtype=np.int64))])[0]
        assert np.array_equal(pair.image, sampler.clean[pair.origin["background"]])


def _discs(colours: tuple[tuple[int, int, int], ...], radii: tuple[int, ...], size: int = 48) -> tuple[np.ndarray, ...]:
    """A grey image with nested discs, largest first, and their label map."""
    y, x = np.mgrid[:size, :size]
    image, mask = np.full((size, size, 3), 128, dtype=np.uint8), np.zeros((size, size), dtype=np.uint8)
    for label, (colour, radius) in enumerate(zip(colours, radii, strict=True), start=1):
        disc = np.hypot(y - size // 2, x - size // 2) <= radius
        image[disc], mask[disc] = colour, label
    return image, mask


def _sampler(*pairs: tuple[np.ndarray, ...]) -> CopyPasteSampler:
    images, masks = (np.stack(part) for part in zip(*pairs, strict=True))
    clean = np.stack([blend.without_lesion(i, m > 0, 3) for i, m in zip(images, masks, strict=True)])
    crops = {"images": images, "masks": masks, "clean": clean, "keys": np.arange(len(images))}
    return CopyPasteSampler(crops, images.shape[1], "hash")


class TestPastedLesions:
    def test_each_label_gets_its_own_colour_exactly(self) -> None:
        """Flat discs on the background's own grey: a pixel's colour tells its label, so image and mask must agree."""
        colours = ((200, 40, 40), (40, 40, 200))
        sampler = _sampler(_discs(colours, (14, 6)), _discs(colours, (9, 4)))
        wanted = np.roll(_discs(colours, (10, 5))[1], (5, -7), axis=(0, 1)).astype(np.int64)
        pair = sampler.sample([Job("a", 1, wanted)])[0]
        palette = np.array([(128, 128, 128), *colours])
        nearest = np.abs(pair.image[:, :, None].astype(int) - palette).sum(-1).argmin(-1)
        interior = ndimage.minimum_filter(wanted, 3) == ndimage.maximum_filter(wanted, 3)
        assert np.array_equal(nearest[interior], wanted[interior])
        assert set(np.unique(nearest[interior])) == {0, 1, 2}

    def test_background_keeps_no_unlabelled_lesion(self) -> None:
        """Two images with discs in the middle; a lesion is asked for in a corner: the middle must be grey again."""
        sampler = _sampler(*[_discs(((200, 40, 40),), (10,))] * 2)
        wanted = np.zeros((48, 48), dtype=np.int64)
        wanted[3:9, 3:9] = 1
        image = sampler.sample([Job("a", 0, wanted)])[0].image
        assert np.abs(image[16:, 16:].astype(int) - 128).max() <= 2
        assert image[5, 5, 0] > 180

    def test_colour_follows_the_surrounding(self) -> None:
        """A lesion 60 levels darker than its surrounding stays 60 darker on a background 20 levels brighter."""
        dark, bright = (
            _discs(((68, 68, 68),), (8,)),
            (np.full((48, 48, 3), 148, np.uint8), np.zeros((48, 48), np.uint8)),
        )
        sampler = _sampler(dark, bright)
        pair = sampler.sample([Job("a", 0, dark[1].astype(np.int64))])[0]
        assert pair.origin == {"background": 1, "lesions": [0]}
        assert np.abs(pair.image[24, 24].astype(int) - 88).max() <= 1

    def test_a_label_that_no_image_holds_is_refused(self) -> None:
        with pytest.raises(InputError, match="no training image holds label 2"):
            _sampler(_discs(((9, 9, 9),), (8,))).sample([Job("a", 0, np.full((48, 48), 2))])


class TestBlend:
    def test_harmonic_solves_laplace_literally(self) -> None:
        rng = np.random.default_rng(0)
        values, region = rng.normal(size=(9, 11, 2)), rng.random((9, 11)) < 0.6
        known = ~region & (rng.random(region.shape) < 0.8)
        filled = blend.harmonic(values, region, known)
        assert np.array_equal(filled[~region], values[~region])
        for y, x in np.argwhere(region):
            around = [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
            around = [p for p in around if 0 <= p[0] < 9 and 0 <= p[1] < 11 and (region[p] or known[p])]
            total = sum((filled[p] - filled[y, x] for p in around), np.zeros(2))
            assert np.abs(total).max() < 1e-6

    def test_a_part_that_nothing_fixes_is_zero(self) -> None:
        ones = np.ones((5, 5), dtype=bool)
        assert np.abs(blend.harmonic(np.full((5, 5, 3), 7.0), ones, ones)).max() < 1e-6

    def test_paste_equals_poisson_with_the_source_gradients(self) -> None:
        """A dense solution of Perez et al., eq. 7-8: sum over neighbours of f_p - f_q = sum of g_p - g_q."""
        rng = np.random.default_rng(1)
        background, source = rng.uniform(100, 130, (10, 10, 3)), rng.uniform(100, 130, (10, 10, 3))
        region = np.zeros((10, 10), dtype=bool)
        region[2:7, 3:8] = True
        points = [tuple(p) for p in np.argwhere(region)]
        matrix, right = np.zeros((len(points), len(points))), np.zeros((len(points), 3))
        for i, (y, x) in enumerate(points):
            for q in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                matrix[i, i] += 1
                right[i] += source[y, x] - source[q]
                if region[q]:
                    matrix[i, points.index(q)] -= 1
                else:
                    right[i] += background[q]
        blended = blend.paste(background, source, region, region)
        assert np.allclose(blended[region], np.linalg.solve(matrix, right), atol=1e-5)
        assert np.array_equal(blended[~region], background[~region])

    def test_dark_corners_are_outside_the_field_of_view(self) -> None:
        image = np.full((20, 20, 3), 120, dtype=np.uint8)
        image[:4, :4] = 3
        image[10:13, 10:13] = 3
        field = blend.field_of_view(image)
        assert not field[:4, :4].any()
        assert field[10:13, 10:13].all()

    def test_repair_stays_within_the_field_of_view(self) -> None:
        image, mask = _discs(((200, 40, 40),), (12,))
        image[:14] = 0
        clean = blend.without_lesion(image, mask > 0, 3)
        assert clean[:14].max() == 0
        assert np.abs(clean[16:].astype(int) - 128).max() <= 2


class TestWarp:
    @pytest.mark.parametrize("turns", range(4))
    @pytest.mark.parametrize("mirror", [False, True])
    def test_pose_is_found(self, turns: int, mirror: bool) -> None:
        """An asymmetric shape, turned and mirrored: every pixel must find the very pixel that it was."""
        shape = np.zeros((31, 31), dtype=bool)
        shape[5:20, 8:12] = shape[16:20, 8:25] = shape[10:16, 12:15] = True
        index = np.arange(31 * 31).reshape(31, 31)
        move = (lambda a: np.rot90(a, turns)[::-1]) if mirror else (lambda a: np.rot90(a, turns))
        match = warp.best_match(move(shape), [shape])
        points = np.argwhere(move(shape))
        at = np.rint(warp.coordinates(points, match, shape)).astype(int)
        assert np.array_equal(index[tuple(at.T)], move(index)[tuple(points.T)])

    def test_the_fitting_component_is_chosen(self) -> None:
        shape = np.zeros((40, 40), dtype=bool)
        shape[2:12, 2:12] = shape[20:24, 5:35] = True
        bar = np.zeros_like(shape)
        bar[30:34, 8:38] = True
        assert warp.best_match(bar, warp.components(shape)).component[22, 20]

    def test_coordinates_never_leave_the_allowed_area(self) -> None:
        rng = np.random.default_rng(0)
        allowed = ndimage.binary_opening(rng.random((30, 30)) < 0.7)
        target = np.zeros((30, 30), dtype=bool)
        target[4:25, 10:14] = True
        match = warp.best_match(target, warp.components(allowed)[:1])
        at = np.rint(warp.coordinates(np.argwhere(np.ones((30, 30))), match, allowed)).astype(int)
        assert allowed[tuple(at.T)].all()


@pytest.mark.realdata
def test_real_polyps_keep_their_contrast(real_data: Path, tmp_path: Path) -> None:
    """Pasted lesions stand out from their surroundings about as much as real ones do."""
    data = read_dataset(real_data / "polyps" / "cvc_clinicdb")
    data = data.select(data.ids[::40])
    sampler = load(train(data, CopyPasteConfig(), tmp_path / "run"))
    jobs = list(plan_jobs(data, 2, "random", 0, size=64))
    pairs = sampler.sample(jobs)
    real = np.mean([_contrast(i, m) for i, m in zip(sampler.images, sampler.masks, strict=True)])
    pasted = np.mean([_contrast(pair.image, pair.mask) for pair in pairs])
    assert 0.6 * real < pasted < 1.6 * real
    assert all(np.array_equal(job.mask, pair.mask) for job, pair in zip(jobs, pairs, strict=True))


def _contrast(image: np.ndarray, mask: np.ndarray) -> float:
    lesion = mask > 0
    ring = ndimage.binary_dilation(lesion, iterations=4) & ~ndimage.binary_dilation(lesion)
    return float(np.abs(image[lesion].mean(axis=0) - image[ring].mean(axis=0)).mean())


def test_skin_phantoms_work_too(tmp_path: Path) -> None:
    data = phantom_dataset(tmp_path / "data", "skin", 4, 32)
    sampler = load(train(data, CopyPasteConfig(resolution=32), tmp_path / "run"))
    assert len(sampler.sample(list(plan_jobs(data, 2, "elastic", 0, size=32)))) == 8
