"""Before training: how much memory it will take here, and what of the recipe to leave where that is too much."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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
from morphogen.training.memory import BYTES_A_MOMENT, GB, Need, peak_of_step, usable_memory, without_content
from morphogen.training.processes import processes

RECORD = "memory.json"
"""In the run's folder: the departure that it was begun with."""


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
            w = Weights(0.5, config.w_c, image_branch=config.image_branch, both_hints=config.both_hints)
            found = [*step_losses(nets, x, w).values()]
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


@dataclass(frozen=True)
class Fit:
    """Settings with all that is open resolved for a device, what to say of it, and what the run keeps of it."""

    config: SiameseConfig
    lines: tuple[str, ...] = ()
    record: Mapping[str, Any] = field(default_factory=dict)

    def announce(self, out: Path) -> None:
        """Say it, and keep it in ``out/memory.json``."""
        for line in self.lines:
            say(line)
        if self.record and processes().is_main_process:
            write_json(out / RECORD, self.record)


def fitted(foundation: Foundation, config: SiameseConfig, side: int, out: Path | None = None) -> Fit:
    """What the device's memory makes of these settings; writes nothing.

    A run that has begun in `out` stays what it was, wherever it goes on; how many rows are computed at a time follows
    the device each time, and changes the result by rounding alone. Of several processes the first one decides.

    Raises:
        InputError: Not even the last departure fits.
    """
    if not is_open(config):
        return Fit(config)
    state, kept = processes(), None
    if out is not None and (out / RECORD).exists():
        kept = json.loads((out / RECORD).read_text())["departure"]
    found: list[Any] = [None]
    if state.is_main_process:
        try:
            found = [_choose(foundation, config, side, usable_memory(state.device), state.num_processes, kept)]
        except InputError as error:  # the others must hear of it
            found = [error]
    (chosen,) = broadcast_object_list(found) if state.num_processes > 1 else found
    if isinstance(chosen, InputError):
        raise chosen
    fit: Fit = chosen
    return fit


def _choose(
    foundation: Foundation, config: SiameseConfig, side: int, memory: float, world: int, kept: str | None
) -> Fit:
    rows, least = config.train_batch_size / world, math.inf
    lines: list[str] = []
    for rung in LADDER:
        if not all(getattr(config, name) in ("auto", value) for name, value in rung.changes.items()):
            continue
        if kept not in (None, rung.name):
            continue
        if rung.changes["optimizer"] == "adamw8bit" and find_spec("bitsandbytes") is None:
            lines.append(f"{rung.name}: passed over, since bitsandbytes is not installed (pip install bitsandbytes)")
            continue
        needed = need(foundation, replace(config, **rung.changes), side)
        least, parts = min(least, needed.first), config.gradient_accumulation_steps
        at_once = math.ceil(rows / parts) if parts else max(1, min(needed.rows(memory), math.ceil(rows)))
        if needed.rows(memory) < at_once:
            continue
        parts = parts or math.ceil(rows / at_once)
        lines.append(
            f"memory: about {needed.first / GB:.1f} GB for one row and {needed.further / GB:.2f} GB for each further "
            f"one, {memory / GB:.1f} GB to be had: {at_once} rows at a time, {parts} times a step"
        )
        if rung.name != "none":
            lines.append(f"departure from the recipe, to save memory: {rung.name}")
        record = {"departure": rung.name, "first_gb": needed.first / GB, "further_gb": needed.further / GB}
        return Fit(replace(config, **rung.changes, gradient_accumulation_steps=parts), tuple(lines), record)
    raise InputError(
        f"{foundation.source}: training at {side} px takes about {least / GB:.1f} GB, and this device has "
        f"{memory / GB:.1f}; lower --resolution, or take a larger device"
    )
