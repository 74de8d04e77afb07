"""CMMD and CLIP-I against double loops and scipy's distances."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from morphogen.errors import InputError
from morphogen.metrics import mmd, weights
from morphogen.metrics.clip_i import clip_i
from morphogen.metrics.cmmd import cmmd
from morphogen.metrics.features import extract
from morphogen.metrics.pictures import find_pictures, pictures


@pytest.fixture
def sets() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(13, 6)), rng.normal(0.5, 1.2, size=(9, 6))


def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    unit = [z / np.sqrt((z**2).sum(1, keepdims=True)) for z in (x, y)]
    return np.exp(-cdist(*unit, "sqeuclidean") / 200)


@pytest.mark.parametrize("block", [4, 1024])
def test_cmmd_is_the_published_formula(
    sets: tuple[np.ndarray, np.ndarray], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mmd, "BLOCK", block)
    x, y = sets
    found = cmmd(x, y)
    kxx, kyy, kxy = kernel(x, x), kernel(y, y), kernel(x, y)
    assert found.biased == pytest.approx(1000 * (kxx.mean() + kyy.mean() - 2 * kxy.mean()), rel=1e-9)
    off = [k[~np.eye(len(k), dtype=bool)].mean() for k in (kxx, kyy)]
    assert found.unbiased == pytest.approx(1000 * (sum(off) - 2 * kxy.mean()), rel=1e-9)
    assert found.biased > found.unbiased


def test_cmmd_of_one_set_with_itself_and_of_scaled_embeddings(sets: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = sets
    assert cmmd(x, x).biased == pytest.approx(0, abs=1e-10)
    assert cmmd(3 * x, y).biased == pytest.approx(cmmd(x, y).biased, rel=1e-9)
    assert cmmd(x, y).biased == pytest.approx(cmmd(y, x).biased, rel=1e-9)


def test_the_bias_of_cmmd_at_small_n_is_what_the_docstring_says() -> None:
    """1 - k is about |x - y|^2 / 200, so that each diagonal adds 1000 * mean(|x - y|^2) / 200 / N."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(20, 64)), rng.normal(size=(30, 64))
    found = cmmd(x, y)
    assert found.biased - found.unbiased == pytest.approx(5 * 2 * (1 / 20 + 1 / 30), rel=0.05)
    assert found.unbiased < 0.5 * found.biased  # both sets come from one distribution


def test_cmmd_is_unbiased_where_the_sets_are_alike() -> None:
    rng = np.random.default_rng(2)
    values = [cmmd(rng.normal(size=(8, 4)), rng.normal(size=(11, 4))).unbiased for _ in range(400)]
    assert abs(np.mean(values)) < 3 * np.std(values) / 20
    assert min(values) < 0


def test_cmmd_refuses(sets: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = sets
    with pytest.raises(InputError, match="holds 1 images"):
        cmmd(x[:1], y)
    x[3, 2] = np.nan
    with pytest.raises(InputError, match="image 4 are not finite"):
        cmmd(x, y)


def test_clip_i_is_the_mean_cosine(sets: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = sets
    cosines = 1 - cdist(x, y, "cosine")
    found = clip_i(x, y, {0: 8, 5: 0, 12: 0})
    assert found.all_pairs == pytest.approx(cosines.mean(), rel=1e-12)
    assert found.paired == pytest.approx((cosines[0, 8] + cosines[5, 0] + cosines[12, 0]) / 3, rel=1e-12)
    assert found.n_paired == 3
    assert clip_i(x, x, {k: k for k in range(13)}).paired == pytest.approx(1)
    assert clip_i(x, y, {}).paired is None


@pytest.mark.realdata
def test_features_of_real_images(real_data: Path) -> None:
    """The same on features of polyps and of skin, which are far apart."""
    if not weights.available("lite0"):
        pytest.skip("the weights of EfficientNet-Lite0 are not installed")
    folders = [real_data / "polyps" / "cvc_clinicdb", real_data / "skin" / "ph2"]
    x, y = (extract(pictures(find_pictures(folder)[::50][:4], (64, 64)), "lite0") for folder in folders)
    kxx, kyy, kxy = kernel(x, x), kernel(y, y), kernel(x, y)
    assert cmmd(x, y).biased == pytest.approx(1000 * (kxx.mean() + kyy.mean() - 2 * kxy.mean()), rel=1e-7)
    assert cmmd(x, y).unbiased > cmmd(x[:2], x[2:]).unbiased
    cosines = 1 - cdist(x, y, "cosine")
    assert clip_i(x, y, {0: 0}).all_pairs == pytest.approx(cosines.mean(), rel=1e-9)
