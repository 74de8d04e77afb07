"""The trained generator on disk: a diffusers pipeline folder with a ControlNet, and generator.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from morphogen.errors import InputError
from morphogen.foundation.halves import DecoderHalf
from morphogen.foundation.model import Foundation, forget_source
from morphogen.generators.mask_sampling import INFO, content_hash, write_info
from morphogen.generators.siamese.config import SiameseConfig
from morphogen.generators.siamese.control import HintedControlNet
from morphogen.generators.siamese.step import Networks


def save(
    folder: Path,
    nets: Networks,
    config: SiameseConfig,
    classes: tuple[str, ...],
    captions: list[list[str]],
    sources: Sequence[str] = (),
) -> None:
    """Write everything that sampling needs; nothing of the training images is in it but, with both hints, their hashes.

    Args:
        folder: An existing, empty folder.
        nets: Trained networks.
        config: Their settings.
        classes: Class names by label id.
        captions: Of the training images; the most frequent one becomes the default prompt.
        sources: Hashes of the images that sampling may read (`sources.digest`).
    """
    for module in (nets.foundation.unet, nets.controlnet):
        module.to(memory_format=torch.contiguous_format)  # as files want it
    nets.foundation.save(folder)
    nets.controlnet.save_pretrained(folder / "controlnet")
    forget_source(folder / "controlnet")
    index = json.loads((folder / "model_index.json").read_text())
    index["_class_name"] = index["_class_name"].replace("Pipeline", "ControlNetPipeline")
    if config.hint == "plain":
        _as_stock(folder / "controlnet" / "config.json")
    index["controlnet"] = ["diffusers", "ControlNetModel"]
    (folder / "model_index.json").write_text(json.dumps(index, indent=1) + "\n")
    more = {"sources": list(sources)} if config.both_hints else {}
    write_info(folder, config.method, config.stated(), classes, captions, **more)


def _as_stock(path: Path) -> None:
    """With the plain hint the weights are those of diffusers' own class: name it, so that any pipeline loads them."""
    config = json.loads(path.read_text())
    stock = {k: v for k, v in config.items() if k not in ("hint", "hint_width")}
    path.write_text(json.dumps({**stock, "_class_name": "ControlNetModel"}, indent=2) + "\n")


def load(folder: Path, device: str | torch.device = "cpu") -> tuple[Networks, dict[str, Any], str]:
    """Networks, the content of generator.json, and the hash of the weights.

    Raises:
        InputError: The folder is not whole.
    """
    try:
        info = json.loads((folder / INFO).read_text())
        controlnet = HintedControlNet.from_pretrained(folder / "controlnet", use_safetensors=True)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: is not a whole siamese generator ({error}); train it again") from error
    foundation = Foundation.load(folder, device)
    controlnet.to(device).eval().requires_grad_(False)
    return Networks(foundation, controlnet, DecoderHalf(foundation.unet)), info, content_hash(folder)
