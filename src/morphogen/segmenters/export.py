"""A trained segmenter as one file that runs without this package: ONNX, or a program of torch.export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from morphogen.errors import InputError
from morphogen.files import write_bytes
from morphogen.segmenters.predictor import load_segmenter

if TYPE_CHECKING:
    from torch.export import ExportedProgram

INPUT, OUTPUT = "image", "logits"


def export_segmenter(run: Path, path: Path) -> Path:
    """Write the segmenter of a run as ``image (N, 3, R, R) float32 in [-1, 1] -> logits (N, K, R, R)``, for any N.

    R is the resolution at which it was trained. ``.onnx`` holds classes and resolution as metadata.

    Args:
        run: Run folder of a segmenter.
        path: File to write, ``.onnx`` (needs the extra ``onnx``) or ``.pt2``.

    Returns:
        `path`.

    Raises:
        InputError: `run` holds no segmenter, or one that cannot be exported, the ending is neither, or the packages of
            the extra are missing.
    """
    if path.suffix not in (".onnx", ".pt2"):
        raise InputError(f"{path}: the ending says no format; name a file that ends in .onnx or .pt2")
    predictor = load_segmenter(run)
    for part in predictor.net.modules():
        if why := getattr(part, "not_exportable", None):
            raise InputError(f"{run}: cannot be exported: {why}")
    side = predictor.resolution
    image = torch.zeros(2, 3, side, side)
    program = torch.export.export(predictor.net, (image,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    if path.suffix == ".onnx":
        facts = {"classes": json.dumps(predictor.classes), "resolution": str(side), "hash": predictor.hash}
        write_bytes(path, _onnx(program, facts))
    else:
        torch.export.save(program, path)
    return path


def _onnx(program: ExportedProgram, facts: dict[str, str]) -> bytes:
    try:
        import onnx
        import onnxscript  # noqa: F401  # torch's exporter needs it, and says so at length
    except ImportError as error:
        raise InputError(f"an ONNX file needs {error.name}; run pip install 'morphogen[onnx]'") from error
    written = torch.onnx.export(program, input_names=[INPUT], output_names=[OUTPUT], dynamo=True, verbose=False)
    if written is None:
        raise RuntimeError("torch.onnx.export returned no program")
    model: onnx.ModelProto = written.model_proto
    onnx.helper.set_model_props(model, facts)
    return model.SerializeToString()
