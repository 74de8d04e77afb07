"""The trained generator on disk: a diffusers inpainting folder, or low-rank updates alone, and generator.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from morphogen.data.grammar_files import as_yaml
from morphogen.data.prompts import Grammar
from morphogen.errors import InputError
from morphogen.foundation.identity import files_hash, weights_hash
from morphogen.foundation.lora import merge_lora
from morphogen.foundation.lora_files import merge_saved_lora, save_lora, updated_folder
from morphogen.foundation.model import Foundation, find_folder, whole_name
from morphogen.generators.inpaint.config import InpaintConfig

if TYPE_CHECKING:
    from morphogen.generators.inpaint.task import InpaintTask

INFO = "generator.json"
GRAMMAR = "grammar.yaml"
LORA = "lora"


@dataclass(frozen=True)
class Trained:
    """A generator as it samples.

    Attributes:
        foundation: One that inpaints, with whatever was trained in it.
        config: Its settings.
        grammar: How lesions are put into words.
        hash: Of weights, settings and grammar.
        classes: Class names by label id.
        counts: How often the training images have each word that only pixels decide.
    """

    foundation: Foundation
    config: InpaintConfig
    grammar: Grammar
    hash: str
    classes: tuple[str, ...] = ("background", "lesion")
    counts: Mapping[str, Mapping[str, float]] | None = None


def save(folder: Path, task: InpaintTask) -> None:
    """Write everything that sampling needs; nothing of the training images is in it.

    With LoRA on an inpainting model of others, the updates alone: `load` takes the rest from where it was taken before,
    and refuses other weights. A foundation that was widened or adapted is written whole, with the updates in it.
    """
    foundation, config, info = task.foundation, task.config, dict[str, Any]()
    unet = foundation.unet
    unet.to(memory_format=torch.contiguous_format)  # as files want it
    if config.tuning == "lora":
        xl = len(foundation.text_encoders) == 2
        save_lora(folder / LORA, unet, config.lora_rank, config.lora_alpha, xl)
    if task.whole or config.tuning == "full":
        merge_lora(unet)
        foundation.save(folder)
    else:
        info = {"weights": weights_hash(find_folder(config.foundation))}
        config = replace(config, foundation=whole_name(config.foundation))
    facts = {"generator": config.method, "classes": task.data.classes, "counts": task.data.counts, **info}
    (folder / GRAMMAR).write_text(as_yaml(task.data.grammar), encoding="utf-8")
    (folder / INFO).write_text(json.dumps({**facts, "config": config.stated()}, indent=1) + "\n")


def load(folder: Path, device: str | torch.device = "cpu") -> Trained:
    """A trained generator.

    Raises:
        InputError: The folder is not whole, or the foundation that it updates is gone or another one.
    """
    try:
        info: dict[str, Any] = json.loads((folder / INFO).read_text())
        config, classes, counts = InpaintConfig(**info["config"]), tuple(info["classes"]), info["counts"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder}: is not a whole inpainting generator ({error}); train it again") from error
    if "weights" in info:
        foundation = _updated(folder, config, info["weights"], device)
    else:
        foundation = Foundation.load(folder, device)
    content = files_hash(folder, [*folder.rglob("*.safetensors"), folder / INFO, folder / GRAMMAR])
    return Trained(foundation, config, Grammar.load(folder / GRAMMAR), content, classes, counts)


def _updated(folder: Path, config: InpaintConfig, weights: str, device: str | torch.device) -> Foundation:
    """The foundation that a run updated, with the updates in it."""
    foundation = Foundation.load(updated_folder(folder, config.foundation, weights), device)
    merge_saved_lora(folder / LORA, foundation.unet, config.lora_rank, config.lora_alpha)
    return foundation
