"""The benchmark of one denoising step, at a tiny size and without training."""

from __future__ import annotations

import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from morphogen.data.phantoms import phantom_dataset
from morphogen.errors import InputError

SMALL = ["--train-steps", "0", "--resolution", "32", "--rounds", "1", "--warmups", "0", "--limit", "0", "--threads"]


@pytest.fixture
def single_step(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, whose peer takes four steps here."""
    path = Path(__file__).parents[1] / "benchmarks" / "single_step.py"
    spec = spec_from_file_location("benchmark_of_one_step", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "PEER_STEPS", 4)
    return module


@pytest.fixture
def threads() -> str:
    return str(torch.get_num_threads())


@pytest.mark.parametrize("network", [["--options", "objective=paper"], ["--width", "32"]])
def test_it_runs_and_one_step_is_the_direct_estimate(
    network: list[str], single_step: ModuleType, threads: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert single_step.main([*SMALL, threads, "--batches", "1", *network]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["equal"] is True
    assert set(found["differences"]) == {"1_steps", "4_steps", "direct_estimate"}
    assert {"name", "peer", "ours_s", "peer_s", "ratio", "of_unet-vgg16", "threads", "device"} <= set(found)
    assert "dice" not in found  # an untrained network has none worth reading
    assert [(one["precision"], one["batch"]) for one in found["settings"]] == [("fp32", 1), ("bf16", 1)]
    for one in found["settings"]:
        assert set(one["ways"]) == {"one step", "50 steps", "unet-vgg16", "unet-lite0", "unet-scratch"}
        assert all(0 < way["median_ms"] <= way["p95_ms"] and way["first_ms"] > 0 for way in one["ways"].values())
        assert set(one["stages"]) == {"encoder", "denoiser", "decoder", "rest"}
        assert all(part["ms"] > 0 and 0 < part["share"] < 1 for part in one["stages"].values())
    if "--width" in network:
        assert found["network"]["million_parameters"]["denoiser"] < 12  # that of the published width has 288


def test_another_estimate_is_not_called_equal(
    single_step: ModuleType, threads: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    latent, _ = single_step.made(single_step.parsed([*SMALL, threads]), tmp_path)
    images = single_step.native_images(None, 2)
    assert max(single_step.differences(latent, images).values()) <= single_step.TOLERANCE
    denoise = latent.net.net.denoise
    monkeypatch.setattr(latent.net.net, "denoise", lambda *words: 1.01 * denoise(*words))
    assert single_step.differences(latent, images)["direct_estimate"] > single_step.TOLERANCE


def test_rounds_alternate_and_the_first_call_stands_apart(single_step: ModuleType) -> None:
    calls: list[str] = []
    ways = {name: lambda images, name=name: calls.append(name) for name in (single_step.ONE, "other")}
    found = single_step.measure(ways, [], 1, 2, 60.0)
    assert calls == [single_step.ONE, "other"] * 5  # the first, a warm-up, and three rounds at least
    assert [len(times) for times in found["times"].values()] == [3, 3]


def test_ratios_are_medians_of_rounds(single_step: ModuleType) -> None:
    times = {
        single_step.ONE: [1.0, 2.0, 4.0],
        single_step.MANY: [10.0, 30.0, 44.0],
        **{name: [1.0, 1.0, 1.0] for name in single_step.UNETS},
    }
    found = single_step.summary({"first_s": dict.fromkeys(times, 5.0), "times": times})
    assert found["ratio"] == 11  # of 10, 15 and 11; that of the medians is 15
    assert found["of_unet-vgg16"] == 2
    assert found["ways"][single_step.ONE] == {"median_ms": 2000, "p95_ms": pytest.approx(3800), "first_ms": 5000}


def test_dice_of_both_is_that_of_their_masks(single_step: ModuleType, tmp_path: Path, threads: str) -> None:
    """Of ways that give the reference, and half of it."""
    records = phantom_dataset(tmp_path, "mucosa", 3, 32)
    truth = [single_step.native_mask(record, records) for record in records]
    answers = iter(truth)
    assert single_step.dice_of(lambda images: [next(answers)], records) == 1
    halves = iter([np.where(np.arange(32) < 16, mask, 0) for mask in truth])
    kept = [mask[:, :16].sum() / mask.sum() for mask in truth]
    expected = np.mean([2 * share / (1 + share) for share in kept])
    assert single_step.dice_of(lambda images: [next(halves)], records) == pytest.approx(expected)
    latent, _ = single_step.made(single_step.parsed([*SMALL, threads]), tmp_path)
    gap = single_step.dice_gap(latent, records)
    assert gap["dice_gap"] == abs(gap["dice"] - gap["dice_peer"])
    assert gap["dice_images"] == 3


def test_no_test_part_is_read_by_accident(single_step: ModuleType, tmp_path: Path) -> None:
    data, ids = tmp_path / "data", tmp_path / "ids.txt"
    phantom_dataset(data, "mucosa", 4, 32)
    with pytest.raises(InputError, match="marks no record as val"):
        single_step.chosen(data, None)
    table = (data / "records.csv").read_text().splitlines()
    parts = ["split", "train", "val", "test", "train"]
    (data / "records.csv").write_text("\n".join(f"{line},{part}" for line, part in zip(table, parts, strict=True)))
    assert single_step.chosen(data, None).ids == ("mucosa-000001",)
    for text, fault in (("mucosa-000002", "test part"), ("mucosa-9", "no annotated record")):
        ids.write_text(f"mucosa-000000\n{text}\n")
        with pytest.raises(InputError, match=fault):
            single_step.chosen(data, ids)
    ids.write_text("mucosa-000000\n")
    assert single_step.chosen(data, ids).ids == ("mucosa-000000",)


def test_another_segmenter_is_refused(single_step: ModuleType, tmp_path: Path) -> None:
    from morphogen.segmenters import build, resolve
    from morphogen.segmenters.predictor import save_segmenter

    (tmp_path / "run").mkdir()
    net = build("unet", 2, {"encoder": "scratch"}, pretrained=False)
    save_segmenter(tmp_path / "run", net, "unet", resolve("unet", {"encoder": "scratch"}), ("background", "polyp"), 32)
    with pytest.raises(InputError, match="train latent"):
        single_step.prepared(single_step.parsed(["--run", str(tmp_path / "run")]), tmp_path)
