"""What the benchmarks reckon with, where it is more than a clock."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from morphogen.metrics.kid import mmd2


@pytest.fixture(scope="module")
def sampling() -> ModuleType:
    path = Path(__file__).parents[1] / "benchmarks" / "sampling.py"
    spec = spec_from_file_location("benchmark_of_sampling", path)  # the name `sampling` is that of a folder of tests
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def draw(rng: np.random.Generator, n: int = 64) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two sides that share what a mask asks for, the first a little off; and the reference."""
    shared = rng.normal(size=(n, 6))
    return 0.1 + shared + 0.3 * rng.normal(size=(n, 6)), shared + 0.3 * rng.normal(size=(n, 6)), rng.normal(size=(n, 6))


def test_the_error_of_a_kid_difference_is_its_spread_over_new_draws(sampling: ModuleType) -> None:
    rng = np.random.default_rng(0)
    found = np.array([sampling.kid_difference(*draw(rng)) for _ in range(100)])
    assert np.sqrt((found[:, 1] ** 2).mean()) == pytest.approx(found[:, 0].std(), rel=0.2)


def test_a_kid_difference_is_one_of_kids(sampling: ModuleType) -> None:
    ours, peer, real = draw(np.random.default_rng(1), 20)
    assert sampling.kid_difference(ours, peer, real)[0] == pytest.approx(mmd2(ours, real) - mmd2(peer, real))
    assert sampling.kid_difference(peer, peer, real) == (0, 0)


def test_the_surface_benchmark_compares_equal_things() -> None:
    path = Path(__file__).parents[1] / "benchmarks" / "surface_metrics.py"
    spec = spec_from_file_location("benchmark_of_surfaces", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    threads = torch.get_num_threads()
    found = module.compare(module.polyps(None, 2), (1.0, 1.0), 1)
    torch.set_num_threads(threads)
    assert found["equal"]
    assert found["shape"] == [352, 352]
    assert [mask.shape for mask in module.volumes(None, 1)[0]] == [(112, 112, 80)] * 2
