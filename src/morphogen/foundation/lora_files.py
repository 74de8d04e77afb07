"""Low-rank updates as files: in the layout of diffusers, with its metadata, and in that of kohya's scripts."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from morphogen.errors import InputError
from morphogen.foundation.identity import weights_hash
from morphogen.foundation.lora import ATTENTION, add_lora, lora_layers, merge_lora
from morphogen.foundation.model import find_folder

DIFFUSERS = "pytorch_lora_weights.safetensors"
KOHYA = "kohya.safetensors"


def save_lora(
    folder: Path,
    unet: UNet2DConditionModel,
    rank: int,
    alpha: float,
    xl: bool,
    targets: Sequence[str] = ATTENTION,
) -> None:
    """Write the updates of a U-Net that has them, twice.

    ``pipeline.load_lora_weights`` of diffusers reads either file. kohya's scripts train SDXL in its original layout, so
    that is how the layers of an SDXL are named in their file.

    Args:
        folder: Where; made if it is not there.
        unet: A U-Net with updates.
        rank, alpha: Of the updates.
        xl: The U-Net is SDXL's.
        targets: Ends of the names of the layers that have them.
    """
    folder.mkdir(exist_ok=True)
    ours: dict[str, Tensor] = {}
    theirs: dict[str, Tensor] = {}
    for name, layer in lora_layers(unet).items():
        a, b = (part["default"].weight.detach().cpu().contiguous() for part in (layer.lora_A, layer.lora_B))
        ours |= {f"unet.{name}.lora_A.weight": a, f"unet.{name}.lora_B.weight": b}
        other = kohya_name(name, int(unet.config.layers_per_block) if xl else None)
        theirs |= {f"{other}.lora_down.weight": a, f"{other}.lora_up.weight": b, f"{other}.alpha": torch.tensor(alpha)}
    facts = {"unet.r": rank, "unet.lora_alpha": alpha, "unet.target_modules": list(targets)}
    about = {"format": "pt", "lora_adapter_metadata": json.dumps(facts, indent=2, sort_keys=True)}
    save_file(ours, folder / DIFFUSERS, metadata=about)
    said = {"ss_network_module": "networks.lora", "ss_network_dim": str(rank), "ss_network_alpha": f"{alpha:g}"}
    save_file(theirs, folder / KOHYA, metadata={"format": "pt", **said})


def kohya_name(name: str, layers_per_block: int | None) -> str:
    """The name of a layer of diffusers' U-Net in kohya's files.

    Args:
        name: As of ``named_modules``.
        layers_per_block: Where it shall be in SDXL's original layout: residual layers of a down block; else None.
    """
    if layers_per_block is not None:
        n = layers_per_block + 1
        name = re.sub(
            r"^down_blocks\.(\d+)\.attentions\.(\d+)", lambda m: f"input_blocks.{1 + int(m[1]) * n + int(m[2])}.1", name
        )
        name = re.sub(
            r"^up_blocks\.(\d+)\.attentions\.(\d+)", lambda m: f"output_blocks.{int(m[1]) * n + int(m[2])}.1", name
        )
        name = re.sub(r"^mid_block\.attentions\.0", "middle_block.1", name)
    return "lora_unet_" + name.replace(".", "_")


def merge_saved_lora(
    folder: Path, unet: UNet2DConditionModel, rank: int, alpha: float, targets: Sequence[str] = ATTENTION
) -> None:
    """Add the updates of a file that `save_lora` wrote to the weights of a U-Net, in place.

    Args:
        folder: That `save_lora` wrote to.
        unet: A U-Net without updates.
        rank, alpha, targets: Of the updates.

    Raises:
        InputError: The file is missing or damaged, or not of this U-Net.
    """
    path = folder / DIFFUSERS
    add_lora(unet, targets, rank, alpha)
    try:
        tensors = load_file(path)
        for name, layer in lora_layers(unet).items():
            for part, key in ((layer.lora_A, "lora_A"), (layer.lora_B, "lora_B")):
                part["default"].weight.data.copy_(tensors.pop(f"unet.{name}.{key}.weight"))
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        raise InputError(f"{path}: does not hold the updates of this U-Net ({error}); train it again") from error
    merge_lora(unet)
    unet.eval().requires_grad_(False)


def updated_folder(run: Path, name: str, weights: str) -> Path:
    """The folder of the foundation that a run holds updates of.

    Args:
        run: Named in the error.
        name: What the run was told to train on.
        weights: `weights_hash` of it at that time.

    Raises:
        InputError: It is gone, or another one.
    """
    try:
        base = find_folder(name)
    except InputError as error:
        raise InputError(f"{run}: holds low-rank updates of a foundation that is not there: {error}") from error
    if weights_hash(base) != weights:
        raise InputError(
            f"{run}: holds low-rank updates of other weights than those in {name}; put the ones back "
            "that it was trained on, or train it again"
        )
    return base
