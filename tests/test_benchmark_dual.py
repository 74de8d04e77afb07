"""The benchmark of pairs, at a small size: both sides paint the same image, and its last line is JSON."""

from __future__ import annotations

import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch


def test_it_runs_and_both_sides_paint_the_same_image(capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(__file__).parents[1] / "benchmarks" / "dual.py"
    spec = spec_from_file_location("benchmark_of_dual", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    threads = torch.get_num_threads()
    module.main(["--pairs", "1", "--steps", "2", "--rounds", "1", "--threads", "1"])
    torch.set_num_threads(threads)
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["equal"] is True
    assert found["ratio"] == found["ratios"]["image, then mask"]
    assert len(found["ratios"]) == 5
