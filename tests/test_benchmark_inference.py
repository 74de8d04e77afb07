"""The benchmark of segmented volumes, at a small size: windows at once change nothing, and its last line is JSON."""

from __future__ import annotations

import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch


def test_it_runs_and_windows_at_once_change_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(__file__).parents[1] / "benchmarks" / "inference.py"
    spec = spec_from_file_location("benchmark_of_inference", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    threads = torch.get_num_threads()
    words = ["--shape", "40x16x16", "--patch", "32x16x16", "--filters", "2", "--steps", "2", "--rounds", "1"]
    status = module.main([*words, "--threads", "1", "--device", "cpu"])
    torch.set_num_threads(threads)
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (status, found["equal"]) == (0, True)
    assert found["ratio"] == found["ratios"][module.PEER]
    assert found["ratios"][module.OURS] == 1
    assert len(found["ratios"]) == 8
    assert list(found["windows_of_one"]) == ["1", "2", "4", "8"]
    assert found["windows_of_one"]["1"] == 1
