"""What the benchmark of several workers and the sizing table reckon with."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import scale
from PIL import Image
from scale import Timed


@pytest.fixture(scope="module")
def sizing() -> ModuleType:
    path = Path(__file__).parents[1] / "runs" / "scale_table.py"
    spec = spec_from_file_location("scale_table", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_rate_leaves_the_start_out() -> None:
    """One worker that starts at 10 s, takes 7 s to load, and then writes two files every second."""
    times = [17 + 0.5 * (k + 1) for k in range(40)]
    assert scale.steady(times, 8, began=10) == Timed(rate=pytest.approx(2), start_s=pytest.approx(7))


def test_gains_are_medians_of_the_ratios_of_a_round() -> None:
    """A machine that is slow in one round is slow for both sides."""
    one, two = ([Timed(rate, 1) for rate in rates] for rates in ((1, 2, 4), (1.8, 3.6, 7.6)))
    ways = {"plain": one, "shards": two, "ray 1": one, "ray 2": two}
    found = scale.summary(ways, {1: one, 2: two}, {"bytes_per_image": 1.0})
    assert found["ratio"] == pytest.approx(1.8)
    assert found["efficiency"] == {name: pytest.approx(0.9) for name in ("shards", "ray", "training")}
    assert found["seconds_per_pair"] == 0.5
    assert found["seconds_per_step"] == {"1": 0.5, "2": pytest.approx(1 / 3.6)}


def test_folders_are_compared_to_the_byte_or_within_a_grey_level(tmp_path: Path) -> None:
    for name, level in (("a", 100), ("b", 101), ("c", 103)):
        (tmp_path / name / "images").mkdir(parents=True)
        Image.fromarray(np.full((4, 4), level, np.uint8)).save(tmp_path / name / "images" / "x.png")
    a, b, c = (tmp_path / name for name in "abc")
    assert scale.same(a, a, 0)
    assert not scale.same(a, b, 0)
    assert scale.same(a, b, 1)
    assert not scale.same(a, c, 1)
    (b / "more").touch()
    assert not scale.same(a, b, 1)


def test_the_table_is_its_formula(sizing: ModuleType) -> None:
    found: dict[str, Any] = {
        "seconds_per_pair": 0.36, "efficiency": {"shards": 0.9}, "side": 64,
        "bytes_per_image": 7000.0, "bytes_per_mask": 400.0, "bytes_per_row": 600.0,
    }  # fmt: skip
    assert sizing.hours(10**4, 0.36, 1, 0.9) == pytest.approx(1)
    assert sizing.hours(10**4, 0.36, 10, 0.9) == pytest.approx(1 / 9)
    assert sizing.storage(found, 64) == 8000
    assert sizing.storage(found, 128) == 4 * 7400 + 600
    lines = sizing.table(found, gpu_seconds=1.8, gpu_side=128)
    assert lines[2].startswith("| 10^4 | 1 h | ")
    assert lines[2].endswith(" | 5 h | 42 min | 5.2 min | 80 MB | 302 MB |")
    assert "10^7" in lines[5]
    assert "80 GB" in lines[5]
    assert "**assumed**, 1.8 s a pair at 128 px" in lines[-1]
