"""The benchmark of the selective scan, at a small size: all sides agree, and its last line is JSON."""

from __future__ import annotations

import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
import torch


@pytest.fixture(scope="module")
def scan() -> ModuleType:
    path = Path(__file__).parents[1] / "benchmarks" / "scan.py"
    spec = spec_from_file_location("benchmark_of_the_scan", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(scan: ModuleType, capsys: pytest.CaptureFixture[str]) -> dict:
    threads = torch.get_num_threads()
    scan.main(["--shapes", "21x4", "64x3", "--rounds", "1", "--threads", str(threads)])
    found: dict = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def test_it_runs_and_all_sides_agree(scan: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("mambapy")
    found = run(scan, capsys)
    assert found["equal"] is True
    assert [one["shape"] for one in found["settings"]] == ["21x4", "64x3"]
    for one in found["settings"]:
        assert set(one["seconds"]) == {"ours", "mambapy", "loop"}
        assert set(one["ratios"]) == set(found["held"]) == {"mambapy", "loop"}
        assert max(one["differences"].values()) < 1e-5
        assert one["saved_mb"]["ours"] < one["saved_mb"]["mambapy"]
    assert found["ratio"] == min(one["ratios"]["mambapy"] for one in found["settings"])


def test_without_the_peer_it_says_so(
    scan: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mambapy.mamba", None)
    found = run(scan, capsys)
    assert set(found["settings"][0]["ratios"]) == {"loop"}
    assert "ratio" not in found


def test_memory_is_that_of_known_tensors(scan: ModuleType) -> None:
    """A product keeps its factors, here one new tensor of 4,000 bytes; with its result there are two at least."""
    x = torch.randn(1000, requires_grad=True)
    args = [x, *(torch.zeros(1, requires_grad=True) for _ in range(5))]

    def work(u: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        return u * (u + 1) + sum(others)

    assert scan.saved_bytes(work, args) == 4000
    assert 8000 <= scan.peak_bytes(work, args, "cpu") <= 40000
