"""The trained generator on disk: a diffusers pipeline folder with an adapter, and generator.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import T2IAdapter
from safetensors import SafetensorError

from morphogen.errors import InputError
from morphogen.foundation.model import Foundation, forget_source
from morphogen.generators.mask_sampling import INFO, content_hash, write_info
from morphogen.generators.t2i_adapter.adapter import Networks
from morphogen.generators.t2i_adapter.config import T2IAdapterConfig


def save(
    folder: Path, nets: Networks, config: T2IAdapterConfig, classes: tuple[str, ...], captions: list[list[str]]
) -> None:
    """Write everything that sampling needs; nothing of the training images is in it.

    ``StableDiffusionAdapterPipeline`` (or the one for SDXL) reads the folder as it is.

    Args:
        folder: An existing, empty folder.
        nets: Trained networks.
        config: Their settings.
        classes: Class names by label id.
        captions: Of the training images; the most frequent one becomes the default prompt.
    """
    for module in (nets.foundation.unet, nets.adapter):
        module.to(memory_format=torch.contiguous_format)  # as files want it
    nets.foundation.save(folder)
    nets.adapter.save_pretrained(folder / "adapter")
    forget_source(folder / "adapter")
    index = json.loads((folder / "model_index.json").read_text())
    index["_class_name"] = index["_class_name"].replace("Pipeline", "AdapterPipeline")
    index["adapter"] = ["diffusers", "T2IAdapter"]
    (folder / "model_index.json").write_text(json.dumps(index, indent=1) + "\n")
    write_info(folder, config.method, config.stated(), classes, captions)


def load(folder: Path, device: str | torch.device = "cpu") -> tuple[Networks, dict[str, Any], str]:
    """Networks, the content of generator.json, and the hash of the weights.

    Raises:
        InputError: The folder is not whole.
    """
    try:
        info = json.loads((folder / INFO).read_text())
        adapter, found = T2IAdapter.from_pretrained(folder / "adapter", use_safetensors=True, output_loading_info=True)
        if missing := sorted(found["missing_keys"]):  # which diffusers would fill with random numbers
            raise ValueError(f"adapter lacks {missing[0]} and {len(missing) - 1} other tensors")
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{folder}: is not a whole t2i-adapter generator ({error}); train it again") from error
    foundation = Foundation.load(folder, device)
    return Networks(foundation, adapter.to(device).eval().requires_grad_(False)), info, content_hash(folder)
