"""The trained generator on disk: a diffusers pipeline folder, the SPADE layers beside it, and generator.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from morphogen.errors import InputError
from morphogen.foundation.model import Foundation
from morphogen.generators.arsdm.config import ArSDMConfig
from morphogen.generators.arsdm.step import Networks
from morphogen.generators.arsdm.trained import made_networks
from morphogen.generators.mask_sampling import INFO, content_hash, write_info

SPADE = "spade.safetensors"


def save(
    folder: Path, nets: Networks, config: ArSDMConfig, classes: tuple[str, ...], captions: list[list[str]]
) -> None:
    """Write everything that sampling needs; nothing of the training images or of the segmenter is in it.

    Args:
        folder: An existing, empty folder.
        nets: Trained networks.
        config: Their settings.
        classes: Class names by label id.
        captions: Of the training images; the most frequent one becomes the default prompt.
    """
    hung: tuple[Any, ...] = (nets.foundation.unet, nets.spade)
    for module in hung:
        module.to(memory_format=torch.contiguous_format)  # as files want it
    nets.foundation.save(folder)
    save_file({name: value.cpu().contiguous() for name, value in nets.spade.state_dict().items()}, folder / SPADE)
    write_info(folder, config.method, config.stated(), classes, captions)


def load(folder: Path, device: str | torch.device = "cpu") -> tuple[Networks, dict[str, Any], str]:
    """Networks, the content of generator.json, and the hash of the weights.

    Raises:
        InputError: The folder is not whole.
    """
    try:
        info = json.loads((folder / INFO).read_text())
        classes, width, state = len(info["classes"]), info["config"]["spade_width"], load_file(folder / SPADE)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise _not_whole(folder, error) from error
    nets = made_networks(Foundation.load(folder, device), classes, width)
    try:
        nets.spade.load_state_dict(state)
    except RuntimeError as error:
        raise _not_whole(folder, error) from error
    nets.spade.eval().requires_grad_(False)
    return nets, info, content_hash(folder)


def _not_whole(folder: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:200]
    return InputError(f"{folder}: is not a whole arsdm generator ({reason}); train it again")
