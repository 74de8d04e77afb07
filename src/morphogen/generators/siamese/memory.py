"""Before training: how much memory it will take here, and what of the recipe to leave where that is too much."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from diffusers import UNet2DConditionModel
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from morphogen.errors import InputError
from morphogen.files import write_json
from morphogen.foundation.model import Foundation
from morphogen.generators.siamese.config import SiameseConfig
from morphogen.generators.siamese.control import HintedControlNet
from morphogen.generators.siamese.step import Inputs, Weights, step_losses
from morphogen.generators.siamese.trained import trained_networks
from morphogen.progress import say
from morphogen.training.memory import GB, peak_of_step, usable_memory, without_content
from morphogen.training.processes import processes

BYTES_A_MOMENT = {"adamw": 8.0, "adamw8bit": 2.03}
"""Of AdamW's two moments, per trained parameter; in 8 bits with a scale for each block of 256."""


@dataclass(frozen=True)
class Departure:
    """A step away from the recipe: what it changes, and its name."""

    name: str
    changes: Mapping[str, Any]


LADDER = (
    Departure("none", {"tuning": "full", "optimizer": "adamw"}),
    Departure("8-bit AdamW", {"tuning": "full", "optimizer": "adamw8bit"}),
    Departure("locked decoder", {"tuning": "locked", "optimizer": "adamw"}),
    Departure("locked decoder and 8-bit AdamW", {"tuning": "locked", "optimizer": "adamw8bit"}),
    Departure("LoRA", {"tuning": "lora", "optimizer": "adamw"}),
)
"""Tried in this order; what is not `auto` in the settings stays as it is."""


@dataclass(frozen=True)
class Need:
    """Bytes of memory: for one row, and for each further one."""

    first: float
    further: float

    def rows(self, memory: float) -> int:
        """How many rows fit."""
        return 0 if self.first > memory else 1 + int((memory - self.first) / self.further)


def need(foundation: Foundation, config: SiameseConfig, side: int) -> Need:
    """What a late-phase step takes: weights, gradients, AdamW's moments, the average, and activations at their peak.

    The autoencoder and the text encoder are not on the device while the networks train (`SiameseTask.to`). Rows of the
    Online-Augmentation are taken for all rows, the worst case.

    Args:
        foundation: Which; its U-Net is built again as an empty shell.
        config: `tuning` and `optimizer` resolved.
        side: Pixels.
    """
    cond = foundation.conditioning([""], side)
    with torch.device("meta"):
        shell = replace(foundation, unet=UNet2DConditionModel.from_config(foundation.unet.config))
        shell.unet.requires_grad_(False)
        controlnet = HintedControlNet.for_foundation(shell, config.hint, config.hint_width)
        nets, modules = trained_networks(shell, controlnet, config)
    trained = sum(p.numel() for p in modules.parameters() if p.requires_grad)
    z, pixels = (foundation.latent_shape[0], *[side // foundation.factor] * 2), (3, side, side)

    def peak(rows: int) -> int:
        many = cond.map(lambda v: torch.empty(rows, *v.shape[1:]))
        noise, hint = torch.empty(rows, *z), torch.empty(rows, *pixels)
        x = Inputs(noise, noise, torch.zeros(rows, dtype=torch.long), many, hint, hint)

        def losses() -> Tensor:
            found = [*step_losses(nets, x, Weights(0.5, config.w_c, image_branch=config.image_branch)).values()]
            if config.online_augmentation:  # the mask branch once more
                found += step_losses(nets, x, Weights(0.5, image_branch=False)).values()
            return torch.stack(found).sum()

        return peak_of_step(losses, weights, config.mixed_precision)

    with FakeTensorMode(allow_non_fake_inputs=True):
        weights = [t for module in (shell.unet, controlnet) for t in without_content(module)]
        one, two = peak(1), peak(2)
    held = float(sum(t.numel() * t.element_size() for t in weights))
    held += trained * (BYTES_A_MOMENT[config.optimizer] + (4.0 if config.ema_decay else 0.0))
    return Need(held + one, max(two - one, 1))


def is_open(config: SiameseConfig) -> bool:
    """Whether the device's memory has a say in these settings."""
    return "auto" in (config.tuning, config.optimizer) or config.gradient_accumulation_steps == 0


def fitted(foundation: Foundation, config: SiameseConfig, side: int, out: Path) -> SiameseConfig:
    """The settings with all that is open resolved for this device, and said in one line each.

    ``out/memory.json`` keeps the departure, so that a run which goes on elsewhere stays what it was; how many rows are
    computed at a time follows the device each time, and changes the result by rounding alone.

    Raises:
        InputError: Not even the last departure fits.
    """
    if not is_open(config):
        return config
    state, path = processes(), out / "memory.json"
    found: list[Any] = [None]
    if state.is_main_process:
        try:
            found = [_choose(foundation, config, side, usable_memory(state.device), state.num_processes, path)]
        except InputError as error:  # the others must hear of it
            found = [error]
    (chosen,) = broadcast_object_list(found) if state.num_processes > 1 else found
    if isinstance(chosen, InputError):
        raise chosen
    return replace(config, **chosen)


def _choose(
    foundation: Foundation, config: SiameseConfig, side: int, memory: float, world: int, path: Path
) -> dict[str, Any]:
    kept = json.loads(path.read_text())["departure"] if path.exists() else None
    rows, least = config.train_batch_size / world, math.inf
    for rung in LADDER:
        changes = {name: value for name, value in rung.changes.items() if getattr(config, name) in ("auto", value)}
        if len(changes) < len(rung.changes) or kept not in (None, rung.name):
            continue
        if changes["optimizer"] == "adamw8bit" and find_spec("bitsandbytes") is None:
            say(f"{rung.name}: passed over, since bitsandbytes is not installed (pip install bitsandbytes)")
            continue
        needed = need(foundation, replace(config, **changes), side)
        least = min(least, needed.first)
        parts = config.gradient_accumulation_steps
        at_once = math.ceil(rows / parts) if parts else 1
        if needed.rows(memory) < at_once:
            continue
        at_once = at_once if parts else min(needed.rows(memory), math.ceil(rows))
        parts = parts or math.ceil(rows / at_once)
        say(
            f"memory: about {needed.first / GB:.1f} GB for one row and {needed.further / GB:.2f} GB for each further "
            f"one, {memory / GB:.1f} GB to be had: {at_once} rows at a time, {parts} times a step"
        )
        if rung.name != "none":
            say(f"departure from the recipe, to save memory: {rung.name}")
        write_json(path, {"departure": rung.name, "first_gb": needed.first / GB, "further_gb": needed.further / GB})
        return {**changes, "gradient_accumulation_steps": parts}
    raise InputError(
        f"{foundation.source}: training at {side} px takes about {least / GB:.1f} GB, and this device has "
        f"{memory / GB:.1f}; lower --resolution, or take a larger device"
    )
