"""Exported segmenters compute what the trained ones do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from morphogen.errors import InputError
from morphogen.segmenters import build
from morphogen.segmenters.export import export_segmenter
from morphogen.segmenters.predictor import Predictor, load_segmenter, save_segmenter

CLASSES = ("background", "lesion", "vessel")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "final"
    folder.mkdir()
    torch.manual_seed(0)
    net = build("unet", 3, {"encoder": "lite0"}, pretrained=False).train()
    with torch.no_grad():
        for _ in range(20):  # running statistics as of a trained net, so that logits are of a size to compare
            net(torch.rand(4, 3, 48, 48) * 2 - 1)
    save_segmenter(folder, net.eval(), "unet", {"encoder": "lite0"}, CLASSES, 48)
    return folder.parent


def images(n: int) -> torch.Tensor:
    return torch.rand(n, 3, 48, 48, generator=torch.Generator().manual_seed(n)) * 2 - 1


@torch.no_grad()
def expected(run: Path, x: torch.Tensor) -> torch.Tensor:
    predictor: Predictor = load_segmenter(run)
    logits: torch.Tensor = predictor.net(x)
    assert logits.std() > 0.05
    return logits


@pytest.mark.filterwarnings("ignore")  # torch's exporter remarks on itself
def test_onnx_runs_elsewhere_with_the_same_logits(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    file = export_segmenter(run, tmp_path / "model.onnx")
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    for n in (1, 3):
        (logits,) = session.run(["logits"], {"image": images(n).numpy()})
        torch.testing.assert_close(torch.from_numpy(logits), expected(run, images(n)), rtol=1e-4, atol=1e-5)
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["classes"]) == list(CLASSES)
    assert (facts["resolution"], facts["hash"]) == ("48", load_segmenter(run).hash)
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_a_program_of_torch_loads_with_the_same_logits(run: Path, tmp_path: Path) -> None:
    file = export_segmenter(run, tmp_path / "model.pt2")
    program = torch.export.load(file).module()
    torch.testing.assert_close(program(images(3)), expected(run, images(3)), rtol=1e-4, atol=1e-5)


def test_another_ending_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model.pb: the ending says no format"):
        export_segmenter(run, tmp_path / "model.pb")


def test_without_the_extra_there_is_a_way_out(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(InputError, match=r"needs onnx; run pip install 'morphogen\[onnx\]'"):
        export_segmenter(run, tmp_path / "model.onnx")
