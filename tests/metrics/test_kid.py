"""KID against torchmetrics and a literal double loop."""

import numpy as np
import pytest
import torch
from torchmetrics.image.kid import poly_mmd

from morphogen.errors import InputError
from morphogen.metrics import mmd
from morphogen.metrics.kid import kid, mmd2


def literal(x: np.ndarray, y: np.ndarray) -> float:
    def k(a: np.ndarray, b: np.ndarray) -> float:
        return (float(a @ b) / len(a) + 1) ** 3

    n, m = len(x), len(y)
    within_x = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    within_y = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return within_x + within_y - 2 * sum(k(a, b) for a in x for b in y) / (n * m)


@pytest.fixture
def sets() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(13, 6)), rng.normal(0.5, 1.2, size=(9, 6))


def test_matches_the_double_loop(sets: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    assert mmd2(*sets) == pytest.approx(literal(*sets), rel=1e-12)
    monkeypatch.setattr(mmd, "BLOCK", 4)
    assert mmd2(*sets) == pytest.approx(literal(*sets), rel=1e-12)


def test_matches_torchmetrics(sets: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = sets[0][:9], sets[1]
    expected = poly_mmd(torch.from_numpy(y), torch.from_numpy(x)).item()
    assert mmd2(x, y) == pytest.approx(expected, rel=1e-9)


def test_unbiased_where_the_sets_are_alike() -> None:
    rng = np.random.default_rng(1)
    values = [mmd2(rng.normal(size=(12, 4)), rng.normal(size=(15, 4))) for _ in range(400)]
    assert abs(np.mean(values)) < 3 * np.std(values) / 20
    assert min(values) < 0


def test_subsets(sets: tuple[np.ndarray, np.ndarray]) -> None:
    result = kid(*sets, subsets=3000)
    assert (result.subset_size, result.subsets) == (4, 3000)
    assert result.full == mmd2(*sets)
    # the estimate is unbiased, so that its mean over draws without replacement is the estimate on all rows
    assert result.mean == pytest.approx(result.full, abs=4 * result.std / np.sqrt(3000))
    assert result.std > 0
    assert kid(*sets) == kid(*sets)
    assert kid(*sets) != kid(*sets, seed=1)


def test_subset_size_is_the_customary_one_for_large_sets() -> None:
    assert kid(np.zeros((2500, 1)), np.zeros((3000, 1)), subsets=1).subset_size == 1000


def test_too_few() -> None:
    with pytest.raises(InputError, match="holds 3 images"):
        kid(np.zeros((3, 2)), np.zeros((9, 2)))
