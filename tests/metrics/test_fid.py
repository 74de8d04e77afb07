"""FID against scipy's matrix square root, torchmetrics, the closed form of diagonal Gaussians, and a norm identity."""

from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import poly_mmd

from morphogen.errors import InputError
from morphogen.metrics import weights
from morphogen.metrics.features import extract
from morphogen.metrics.fid import FeatureStats, fid, frechet_distance
from morphogen.metrics.kid import mmd2
from morphogen.metrics.pictures import find_pictures, pictures


def features(seed: int, n: int, dim: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, dim)) @ rng.normal(size=(dim, dim)) + rng.normal(size=dim)


def test_matches_scipy_and_torchmetrics() -> None:
    a, b = features(0, 200, 12), features(1, 150, 12)
    moments = [(x.mean(0), np.cov(x, rowvar=False)) for x in (a, b)]
    (m1, c1), (m2, c2) = moments
    literal = ((m1 - m2) ** 2).sum() + np.trace(c1 + c2 - 2 * scipy.linalg.sqrtm(c1 @ c2).real)
    assert fid(a, b) == pytest.approx(literal, rel=1e-9)
    m1, c1, m2, c2 = (torch.from_numpy(x) for pair in moments for x in pair)
    assert fid(a, b) == pytest.approx(_compute_fid(m1, c1, m2, c2).item(), rel=1e-9)


@pytest.mark.parametrize(("n", "m", "dim"), [(5, 9, 64), (2, 2, 300), (80, 7, 40)])
def test_singular_covariances(n: int, m: int, dim: int) -> None:
    """With X, Y the centred features, Tr (C_x C_y)^(1/2) is the nuclear norm of X Y^T over sqrt((n-1)(m-1))."""
    a, b = features(2, n, dim), features(3, m, dim)
    x, y = a - a.mean(0), b - b.mean(0)
    cross = np.linalg.norm(x @ y.T, "nuc") / np.sqrt((n - 1) * (m - 1))
    spread = (x**2).sum() / (n - 1) + (y**2).sum() / (m - 1)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + spread - 2 * cross
    assert fid(a, b) == pytest.approx(expected, rel=1e-6)


def test_closed_form_of_gaussians_that_share_axes() -> None:
    """Sum over axes of (m1 - m2)^2 + (s1 - s2)^2."""
    a, b = FeatureStats(2), FeatureStats(2)
    a.update(np.array([[3.0, 0], [-3, 0], [0, 3], [0, -3]]))  # variance 6 along each axis
    b.update(np.array([[1.0, 5], [1, -1], [4, 2], [-2, 2]]))
    assert frechet_distance(a, b) == pytest.approx(1 + 4)
    c = FeatureStats(2).update(np.array([[6.0, 0], [-6, 0], [0, 3], [0, -3]]))  # 24 and 6
    assert frechet_distance(a, c) == pytest.approx((np.sqrt(24) - np.sqrt(6)) ** 2)


def test_properties() -> None:
    a, b = features(4, 50, 10), features(5, 60, 10)
    assert fid(a, a) == pytest.approx(0, abs=1e-6)
    assert fid(a, b) == pytest.approx(fid(b, a))
    assert fid(a, a + 3.0) == pytest.approx(90)


def test_streaming_equals_the_whole() -> None:
    x = features(6, 101, 8) + 1e6  # far from the origin, where sums of squares would cancel
    stats = FeatureStats(8)
    for start in range(0, 101, 7):
        stats.update(x[start : start + 7])
    stats.update(x[:0])
    assert stats.n == 101
    np.testing.assert_allclose(stats.mean, x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(stats.cov, np.cov(x, rowvar=False), rtol=1e-6)


def test_one_image_is_too_few() -> None:
    with pytest.raises(InputError, match="at least 2"):
        fid(np.zeros((1, 4)), np.zeros((5, 4)))


def literal_fid(a: np.ndarray, b: np.ndarray) -> float:
    (m1, c1), (m2, c2) = ((x.mean(0), np.cov(x, rowvar=False)) for x in (a, b))
    return ((m1 - m2) ** 2).sum() + np.trace(c1 + c2 - 2 * scipy.linalg.sqrtm(c1 @ c2).real)


@pytest.mark.parametrize(("n", "m", "dim"), [(300, 200, 40), (41, 41, 40), (40, 60, 40), (9, 300, 40)])
def test_all_ways_to_a_value_agree(n: int, m: int, dim: int) -> None:
    """Few or many rows, from the rows or from their moments, the singular covariance on either side."""
    a, b = features(6, n, dim), features(7, m, dim)
    stats = [FeatureStats(dim).update(x) for x in (a, b)]
    wanted = fid(a, b)
    assert frechet_distance(*stats) == pytest.approx(wanted, rel=1e-6)
    assert frechet_distance(*reversed(stats)) == pytest.approx(wanted, rel=1e-6)
    if min(n, m) > dim:
        assert wanted == pytest.approx(literal_fid(a, b), rel=1e-8)


def test_merging_equals_the_whole() -> None:
    x = features(8, 90, 8) + 1e5
    parts = [FeatureStats(8).update(x[k::3]) for k in range(3)]
    whole = FeatureStats(8)
    for part in [*parts, FeatureStats(8)]:
        whole.merge(part)
    assert whole.n == 90
    np.testing.assert_allclose(whole.mean, x.mean(0), rtol=1e-13)
    np.testing.assert_allclose(whole.cov, np.cov(x, rowvar=False), rtol=1e-7)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused(bad: float) -> None:
    x = features(9, 30, 4)
    y = x.copy()
    y[7, 1] = bad
    for a, b in ((x, y), (y, x), (x[:3], y)):
        with pytest.raises(InputError, match="image 8 are not finite"):
            fid(a, b)


@pytest.mark.realdata
def test_features_of_real_images(real_data: Path) -> None:
    """Inception features of polyps, fewer than there are features; scipy needs no epsilon at this size of matrix."""
    if not weights.available("inception"):
        pytest.skip("the weights inception are not installed")
    records = find_pictures(real_data / "polyps" / "kvasir_seg")[:24]
    x = extract(pictures(records, (96, 96)))
    a, b = x[::2], x[1::2]
    (m1, c1), (m2, c2) = ((torch.from_numpy(z.mean(0)), torch.from_numpy(np.cov(z, rowvar=False))) for z in (a, b))
    cross = scipy.linalg.svdvals((a - a.mean(0)) @ (b - b.mean(0)).T).sum() / 11
    wanted = float(((m1 - m2) ** 2).sum() + c1.trace() + c2.trace()) - 2 * cross
    assert fid(a, b) == pytest.approx(wanted, rel=1e-9)
    narrow = [z[:, :6] for z in (a, b)]
    assert fid(*narrow) == pytest.approx(literal_fid(*narrow), rel=1e-6)
    theirs = poly_mmd(torch.from_numpy(b), torch.from_numpy(a)).item()
    assert mmd2(a, b) == pytest.approx(theirs, rel=1e-9)
