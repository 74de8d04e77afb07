"""The trained generator on disk: a diffusers folder or updates of one, the mask autoencoder, words, generator.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers import AutoencoderKL
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from morphogen.data.grammar_files import as_yaml
from morphogen.data.prompts import Grammar
from morphogen.errors import InputError
from morphogen.foundation.identity import files_hash, weights_hash
from morphogen.foundation.lora import merge_lora
from morphogen.foundation.lora_files import merge_saved_lora, save_lora, updated_folder
from morphogen.foundation.model import Foundation, find_folder, forget_source
from morphogen.foundation.quiet import quiet
from morphogen.generators.dual.config import SEGMENTER, DualConfig
from morphogen.generators.dual.layout import widened
from morphogen.sampling.budgets import Caption
from morphogen.segmenters.latent.mask_latents import MaskLatents

if TYPE_CHECKING:
    from morphogen.generators.dual.task import DualTask

INFO, GRAMMAR, CAPTIONS = "generator.json", "grammar.yaml", "captions.json"
LORA, LAYERS, MASKS = "lora", "layers.safetensors", "mask_vae"
"""Low-rank updates; the widened layers, where the rest of the U-Net is not written; the mask autoencoder."""
_WIDE = ("conv_in", "conv_out")


@dataclass(frozen=True)
class Trained:
    """A generator as it samples.

    Attributes:
        foundation: With the trained U-Net.
        masks: The mask autoencoder.
        config: Its settings.
        hash: Of weights and settings.
        classes: Class names by label id of the masks.
        labels: Classes of the training images.
        captions: Of the training pairs.
    """

    foundation: Foundation
    masks: MaskLatents
    config: DualConfig
    hash: str
    classes: tuple[str, ...]
    labels: tuple[str, ...]
    captions: Sequence[Caption]


def save(folder: Path, task: DualTask) -> None:
    """Write everything that sampling needs; of the training images there is nothing but the words for them.

    With LoRA on a foundation of others, the updates and the widened layers alone: `load` takes the rest from where it
    was taken before, and refuses other weights. A foundation that was adapted is written whole, with the updates in it.
    """
    from morphogen.generators.dual.task import lora_targets

    foundation, config, info = task.foundation, task.config, dict[str, Any]()
    unet = foundation.unet
    unet.to(memory_format=torch.contiguous_format)  # as files want it
    if config.tuning == "lora":
        xl = len(foundation.text_encoders) == 2
        save_lora(folder / LORA, unet, config.lora_rank, config.lora_alpha, xl, lora_targets(config))
    if task.whole or config.tuning == "full":
        merge_lora(unet)
        foundation.save(folder)
    else:
        info = {"weights": weights_hash(find_folder(config.foundation))}
        if config.layout == "joint":
            layers = {k: v.detach().cpu() for k, v in unet.state_dict().items() if k.startswith(_WIDE)}
            save_file(layers, folder / LAYERS)
    _save_masks(folder / MASKS, task.nets.masks)
    scale, notes = float(task.nets.masks.scale), task.nets.masks.notes
    labels = sorted({label for label in task.data.labels if label is not None})
    info |= {
        "classes": task.data.classes,
        "labels": labels,
        "mask_scale": scale,
        **notes,
        "segmenter": _segmenter(config),
    }
    (folder / GRAMMAR).write_text(as_yaml(task.data.grammar), encoding="utf-8")
    (folder / CAPTIONS).write_text(json.dumps([vars(c) for c in task.data.captions], indent=1) + "\n")
    (folder / INFO).write_text(json.dumps({"generator": config.method, **info, "config": config.stated()}, indent=1))


def load(folder: Path, device: str | torch.device = "cpu") -> Trained:
    """A trained generator.

    Raises:
        InputError: The folder is not whole, or the foundation that it updates is gone or another one.
    """
    try:
        info: dict[str, Any] = json.loads((folder / INFO).read_text())
        config = DualConfig(**info["config"])
        classes, labels, scale = tuple(info["classes"]), tuple(info["labels"]), float(info["mask_scale"])
        captions = [Caption(**row) for row in json.loads((folder / CAPTIONS).read_text())]
        masks = MaskLatents(2, _autoencoder(folder / MASKS))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{folder}: is not a whole dual generator ({_line(error)}); train it again") from error
    masks.scale.fill_(scale)
    foundation = _updated(folder, config, info, device) if "weights" in info else Foundation.load(folder, device)
    files = [*folder.rglob("*.safetensors"), folder / INFO, folder / GRAMMAR]
    frozen = masks.to(device).eval().requires_grad_(False)
    return Trained(foundation, frozen, config, files_hash(folder, files), classes, labels, captions)


def grammar_of(folder: Path) -> Grammar:
    """How a trained generator puts images into words."""
    return Grammar.load(folder / GRAMMAR)


def _segmenter(config: DualConfig) -> dict[str, Any] | None:
    """What S is, which a judge of the pairs should not be; None where nothing was aligned."""
    if not config.aligns:
        return None
    name, architecture = SEGMENTER
    steps, seed = config.segmenter_steps, config.segmenter_seed
    return {"name": name, "architecture": architecture, "steps": steps, "seed": seed}


@quiet()
def _save_masks(folder: Path, masks: MaskLatents) -> None:
    masks.autoencoder.to(memory_format=torch.contiguous_format)
    masks.autoencoder.save_pretrained(folder)
    forget_source(folder)


@quiet()
def _autoencoder(folder: Path) -> AutoencoderKL:
    return AutoencoderKL.from_pretrained(folder, use_safetensors=True)


def _updated(folder: Path, config: DualConfig, info: Mapping[str, Any], device: str | torch.device) -> Foundation:
    """The foundation that a run updated, with the updates in it."""
    from morphogen.generators.dual.task import lora_targets

    foundation = Foundation.load(updated_folder(folder, config.foundation, info["weights"]), device)
    if config.layout == "joint":
        foundation = widened(foundation)
        try:
            for name, tensor in load_file(folder / LAYERS).items():
                foundation.unet.get_parameter(name).data.copy_(tensor)
        except (OSError, SafetensorError, AttributeError, RuntimeError) as error:
            fault = f"does not hold the widened layers of this U-Net ({_line(error)})"
            raise InputError(f"{folder / LAYERS}: {fault}; train it again") from error
    merge_saved_lora(folder / LORA, foundation.unet, config.lora_rank, config.lora_alpha, lora_targets(config))
    return foundation


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
