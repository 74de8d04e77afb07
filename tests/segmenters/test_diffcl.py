"""Diff-CL's network for pictures as a segmenter like any other: the V-Net with and without its modules."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from morphogen.errors import InputError
from morphogen.segmenters import build, resolve
from morphogen.segmenters.export import export_segmenter
from morphogen.segmenters.predictor import save_segmenter
from segmenters.base import SegmenterTester


class TestDiffCL(SegmenterTester):
    name = "diffcl"
    options: ClassVar[Mapping[str, Any]] = {"filters": 8}
    steps = 100  # half of its last features are dropped at every step


class TestPlainVNet(SegmenterTester):
    name = "diffcl"
    options: ClassVar[Mapping[str, Any]] = {"filters": 8, "operator": "none"}
    steps = 100


def test_an_instance_has_more_than_one_pixel_to_take_statistics_of() -> None:
    net = build("diffcl", 2, {"filters": 2, "norm": "instance"}).train()
    assert net(torch.randn(1, 3, 7, 5)).shape == (1, 2, 7, 5)


def test_a_scan_is_not_exported_and_a_convolution_in_its_place_is(tmp_path: Path) -> None:
    for mixer in ("mamba", "conv"):
        options = resolve("diffcl", {"filters": 2, "norm": "instance", "mixer": mixer})
        folder = tmp_path / mixer
        folder.mkdir()
        save_segmenter(folder, build("diffcl", 2, options), "diffcl", options, ("background", "lesion"), 32)
    with pytest.raises(InputError, match="mixer=conv"):
        export_segmenter(tmp_path / "mamba", tmp_path / "net.pt2")
    assert export_segmenter(tmp_path / "conv", tmp_path / "net.pt2").exists()
