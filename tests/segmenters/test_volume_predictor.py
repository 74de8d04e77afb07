"""Trained segmenters of volumes at work."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from morphogen.data.records import Record
from morphogen.data.volumes.files import Volume
from morphogen.data.volumes.preparation import Preparation
from morphogen.errors import InputError
from morphogen.segmenters.diffcl.components import largest_component
from morphogen.segmenters.diffcl.methods.diff_cl import denoised
from morphogen.segmenters.diffcl.volume_predictor import VolumePredictor, VolumeSettings
from morphogen.training.net_files import kind_of
from morphogen.training.rng import normal
from small_volumes import PATCH, SHAPE, made_volume, tiny_run, write_h5


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run(tmp_path_factory.mktemp("diff-cl"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without a diffusion network."""
    return tiny_run(tmp_path_factory.mktemp("plain"), "supervised")


def volume(shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> Volume:
    return Volume(made_volume(shape, seed)[0][None], None, None)


def prepared(image: np.ndarray) -> np.ndarray:
    """What the tiny runs do to a volume."""
    scaled: np.ndarray = (image - image.mean(dtype=np.float64)) / image.std(dtype=np.float64)
    return scaled.astype(np.float32)


def cs_of(predictor: VolumePredictor, image: np.ndarray) -> np.ndarray:
    """(1, x, y, z) -> (K, x, y, z) probabilities of the convolutional network, all at once."""
    with torch.no_grad():
        found: np.ndarray = predictor.net.cs(torch.from_numpy(image)[None]).softmax(dim=1)[0].numpy()
    return found


def settings(**words: object) -> VolumeSettings:
    return VolumeSettings(**words)  # type: ignore[arg-type]


def test_a_volume_of_one_patch_is_the_network_itself(run: Path, plain: Path) -> None:
    case = volume(PATCH)
    image = prepared(case.image)
    for folder in (run, plain):
        predictor = VolumePredictor.load(folder)
        found = predictor.probabilities(case)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, cs_of(predictor, image), rtol=0, atol=1e-6)
        labels = predictor(case)
        assert (labels.dtype, labels.shape) == (np.int64, PATCH)
        assert np.array_equal(labels, found.argmax(axis=0))
    sampling = VolumePredictor.load(run, settings=settings(network="ds", steps=3, seed=5))
    noise = normal([5], (2, *PATCH), "x_T")
    with torch.no_grad():
        expected = denoised(sampling.net.ds_net, torch.from_numpy(image)[None], noise, 3, sampling.net.signal_scale)[
            0
        ].numpy()
    np.testing.assert_allclose(sampling.probabilities(case), expected, rtol=0, atol=1e-6)


def test_a_smaller_volume_is_padded_and_cut_back(run: Path) -> None:
    """Two axes get margins of odd width; they hold the volume's minimum, as patches in training."""
    predictor, case = VolumePredictor.load(run), volume((11, 16, 5))
    image = prepared(case.image)
    padded = np.pad(image, ((0, 0), (10, 11), (0, 0), (5, 6)), constant_values=image.min())
    expected = cs_of(predictor, padded)[:, 10:-11, :, 5:-6]
    np.testing.assert_allclose(predictor.probabilities(case), expected, rtol=0, atol=1e-6)
    assert predictor(case).shape == (11, 16, 5)


@pytest.mark.parametrize("shape", [SHAPE, (40, 30, 16), (1, 2, 3)])
@pytest.mark.parametrize("network", ["cs", "ds", "mean"])
def test_any_shape_comes_back_as_it_was(shape: tuple[int, int, int], network: str, run: Path) -> None:
    predictor = VolumePredictor.load(run, settings=settings(network=network, steps=None if network == "cs" else 2))
    found = predictor.probabilities(volume(shape))
    assert found.shape == (2, *shape)
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-5)


def test_how_many_windows_pass_at_once_changes_nothing(run: Path) -> None:
    for network in ("cs", "ds"):
        steps = None if network == "cs" else 2
        one, many = (
            VolumePredictor.load(run, settings=settings(network=network, steps=steps, windows=n)).probabilities(
                volume()
            )
            for n in (1, 8)
        )
        np.testing.assert_allclose(one, many, rtol=0, atol=1e-5)


def test_the_mean_is_of_both_and_the_seed_is_of_one(run: Path) -> None:
    predictor, found = VolumePredictor.load(run), {}
    for network in ("cs", "ds", "mean"):
        chosen = {} if network == "cs" else {"steps": 2, "seed": 1}
        found[network] = predictor.with_settings(settings(network=network, **chosen)).probabilities(volume())
    np.testing.assert_allclose(found["mean"], (found["cs"] + found["ds"]) / 2, rtol=0, atol=1e-6)
    again = predictor.with_settings(settings(network="ds", steps=2, seed=1)).probabilities(volume())
    assert np.array_equal(again, found["ds"])
    other = predictor.with_settings(settings(network="ds", steps=2, seed=2)).probabilities(volume())
    assert np.abs(other - again).max() > 1e-3


def test_overlap_zero_is_each_window_by_itself(run: Path) -> None:
    case = volume((2 * PATCH[0], *PATCH[1:]))
    predictor = VolumePredictor.load(run, settings=settings(overlap=0))
    image = prepared(case.image)
    halves = [cs_of(predictor, image[:, part]) for part in (slice(PATCH[0]), slice(PATCH[0], None))]
    np.testing.assert_allclose(predictor.probabilities(case), np.concatenate(halves, axis=1), rtol=0, atol=1e-6)


def test_a_stride_puts_windows_where_protocols_put_them(run: Path) -> None:
    """First voxels 0, s, 2 s, ... and the last one that fits; a voxel has the mean of the windows over it."""
    shape, stride = (PATCH[0] + 11, PATCH[1] + 5, PATCH[2]), (4, 5, 3)
    case = volume(shape)
    image = prepared(case.image)
    sums, counts = np.zeros((2, *shape)), np.zeros(shape)
    starts = [
        [min(i * s, n - p) for i in range(-(-(n - p) // s) + 1)] for n, p, s in zip(shape, PATCH, stride, strict=True)
    ]
    assert list(map(len, starts)) == [4, 2, 1]
    predictor = VolumePredictor.load(run, settings=settings(stride=stride))
    for start in itertools.product(*starts):
        box = tuple(slice(a, a + p) for a, p in zip(start, PATCH, strict=True))
        sums[(slice(None), *box)] += cs_of(predictor, image[(slice(None), *box)])
        counts[box] += 1
    np.testing.assert_allclose(predictor.probabilities(case), sums / counts, rtol=0, atol=1e-5)
    assert predictor.sampling == {"network": "cs", "stride": [4, 5, 3]}
    with pytest.raises(InputError, match="leaves gaps"):
        VolumePredictor.load(run, settings=settings(stride=(PATCH[0] + 1, 1, 1)))


def test_a_volume_that_is_stored_otherwise_is_segmented_alike(run: Path) -> None:
    """Two axes swapped and one mirrored, in the array and in the affine: the result is turned just so."""
    image, affine = made_volume()[0], np.diag([1.0, 1.0, 2.0, 1.0])
    mirror = np.diag([-1.0, 1, 1, 1])
    mirror[0, 3] = SHAPE[0] - 1
    stored = np.ascontiguousarray(image[::-1].transpose(1, 0, 2))
    turned = Volume(stored[None], (1.0, 1.0, 2.0), (affine @ mirror)[:, [1, 0, 2, 3]])
    predictor = VolumePredictor.load(run)
    found = predictor.probabilities(Volume(image[None], (1.0, 1.0, 2.0), affine))
    np.testing.assert_allclose(predictor.probabilities(turned), found[:, ::-1].transpose(0, 2, 1, 3), rtol=0, atol=1e-6)


def test_another_voxel_size_goes_back_to_the_grid_of_the_file(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, "supervised", Preparation(spacing=(2.0, 1.0, 1.5)))
    predictor = VolumePredictor.load(run)
    assert predictor.preparation == Preparation(spacing=(2.0, 1.0, 1.5))
    found = predictor.probabilities(Volume(made_volume()[0][None], (1.0, 1.0, 1.0), np.eye(4)))
    assert found.shape == (2, *SHAPE)
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-5)


def test_a_record_with_other_axes_comes_back_in_those_of_its_file(run: Path, tmp_path: Path) -> None:
    image, _ = made_volume()
    write_h5(tmp_path / "v.h5", image.transpose(2, 0, 1))
    predictor = VolumePredictor.load(run)
    found = predictor.probabilities(Record("v", tmp_path / "v.h5", axes=(1, 2, 0)))
    assert found.shape == (2, SHAPE[2], *SHAPE[:2])
    np.testing.assert_allclose(found.transpose(0, 2, 3, 1), predictor.probabilities(volume()), rtol=0, atol=1e-6)


def test_the_largest_component_is_kept(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maps = np.random.default_rng(3).random((2, *SHAPE)).astype(np.float32)
    monkeypatch.setattr(VolumePredictor, "probabilities", lambda self, case: maps)
    every, kept = (
        VolumePredictor.load(run, settings=settings(largest_component=flag))(volume()) for flag in (False, True)
    )
    assert np.array_equal(every, maps.argmax(axis=0))
    assert np.array_equal(kept, largest_component(every))
    assert 0 < kept.sum() < every.sum()


def test_what_config_and_settings_say(run: Path, plain: Path) -> None:
    predictor = VolumePredictor.load(run / "final")
    assert kind_of(run) == kind_of(plain) == "volume_segmenter"
    assert (predictor.classes, predictor.patch, predictor.channels) == (("background", "lesion"), PATCH, 1)
    assert predictor.preparation == Preparation()
    assert predictor.sampling == {"network": "cs", "overlap": 0.5}
    chosen = predictor.with_settings(settings(network="mean", windows=9, largest_component=True))
    said = {"network": "mean", "steps": 10, "seed": 0, "overlap": 0.5, "largest_component": True}
    assert chosen.sampling == said
    assert predictor.hash == VolumePredictor.load(run).hash != VolumePredictor.load(plain).hash


class TestWrong:
    @pytest.mark.parametrize(
        ("words", "said"),
        [
            ({"network": "ds"}, r"^--network ds: this run has no diffusion network; leave it out$"),
            ({"network": "mean"}, r"^--network mean: this run has no diffusion network"),
            ({"network": "both"}, r"^--network both: choose cs, ds, mean$"),
            ({"steps": 4}, r"^--steps: is of the diffusion network, and cs predicts; leave it out$"),
            ({"seed": 0}, r"^--seed: is of the diffusion network, and cs predicts; leave it out$"),
        ],
    )
    def test_settings_that_the_run_does_not_have(self, words: dict[str, object], said: str, plain: Path) -> None:
        predictor = VolumePredictor.load(plain)
        with pytest.raises(InputError, match=said):
            predictor.with_settings(settings(**words))
        assert predictor.settings == VolumeSettings()

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            ({"steps": 0}, "--steps 0: must lie in 1 to 1000"),
            ({"steps": 1001}, "--steps 1001: must lie in 1 to 1000"),
            ({"overlap": 1.0}, "--overlap 1.0: must lie in 0 to 1, 1 excluded"),
            ({"overlap": -0.1}, "--overlap -0.1: must lie in 0 to 1, 1 excluded"),
            ({"overlap": float("nan")}, "--overlap nan: must lie in 0 to 1, 1 excluded"),
            ({"windows": 0}, "--batch-size 0: is not positive; give at least 1"),
        ],
    )
    def test_settings_out_of_range(self, words: dict[str, object], said: str) -> None:
        with pytest.raises(InputError) as caught:
            settings(**words)
        assert str(caught.value) == said

    def test_steps_for_the_wrong_network_where_there_is_another(self, run: Path) -> None:
        with pytest.raises(InputError, match="and cs predicts; add --network ds or mean, or leave it out"):
            VolumePredictor.load(run, settings=settings(steps=4))

    def test_other_channels(self, run: Path, tmp_path: Path) -> None:
        predictor = VolumePredictor.load(run)
        with pytest.raises(
            InputError, match=r"^the volume has 2 channels, .*final was trained on 1; give the channels"
        ):
            predictor.probabilities(Volume(np.zeros((2, *SHAPE), np.float32), None, None))
        for name in ("a", "b"):
            write_h5(tmp_path / f"{name}.h5", made_volume()[0])
        with pytest.raises(InputError, match=r"a\.h5: has 2 channels"):
            predictor.probabilities(Record("a", tmp_path / "a.h5", channels=(tmp_path / "b.h5",)))

    def test_absent_and_damaged_files_are_one_line(self, run: Path, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"holds no finished volume segmenter \(config\.json is missing\); name a"):
            VolumePredictor.load(tmp_path)
        shutil.copytree(run / "final", tmp_path / "final")
        weights, config = tmp_path / "final" / "model.safetensors", tmp_path / "final" / "config.json"
        kept = weights.read_bytes()
        weights.write_bytes(kept[:100])
        with pytest.raises(
            InputError, match=r"is not a volume segmenter that this version reads \(.*\); train it again"
        ):
            VolumePredictor.load(tmp_path)
        weights.write_bytes(kept)
        held = json.loads(config.read_text())
        for key in ("networks", "classes", "patch", "preparation", "signal_scale", "network", "steps"):
            config.write_text(json.dumps({name: value for name, value in held.items() if name != key}))
            with pytest.raises(InputError, match=rf"is not a volume segmenter .*'{key}'.*; train it again$"):
                VolumePredictor.load(tmp_path)
        for preparation in ({"unknown": 1}, {"spacing": [1, 1]}, 3):
            config.write_text(json.dumps({**held, "preparation": preparation}))
            with pytest.raises(InputError) as caught:
                VolumePredictor.load(tmp_path)
            assert "\n" not in str(caught.value)
