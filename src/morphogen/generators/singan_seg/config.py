"""Settings of SinGAN-Seg, and its presets: `tiny`, and the published recipe."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from morphogen.errors import InputError
from morphogen.generators.presets import preset_values
from morphogen.generators.singan_seg.pyramid import LEAST_SIDE, sides
from morphogen.words import kinds_of

SAMPLING = ("start_scale",)
"""Options that are for sampling alone: one trained generator serves all their values."""
SECONDS_A_STEP = 0.14
"""One step of both networks at 64 px and 32 channels, on one core."""


@dataclass(frozen=True, kw_only=True)
class SinganConfig:
    """How to train and sample SinGAN-Seg. The defaults are those of `tiny`."""

    method: ClassVar[str] = "singan-seg"
    """Name in the table of generators."""

    max_images: int = 10
    """Training images that get a model, each its own: drawn by the seed, spread over subjects, of every class at least
    one where there are enough; 0 for all, as published."""
    scale_factor: float = 0.75
    """About how much smaller each scale is than the next finer one."""
    min_size: int = 25
    """Side of the coarsest scale in pixels."""
    reconstruction_weight: float = 10.0
    """alpha, weight of the squared error of the image that the fixed noise must give."""
    penalty_weight: float = 0.1
    """lambda, weight of the gradient penalty."""
    noise_weight: float = 0.1
    """Noise of a scale above the coarsest, in units of the error that the coarser ones leave."""
    generator_every: int = 1
    """Steps of the discriminator for one of the generator: 1 as the paper has it (3 and 3 an iteration), 3 as its code
    runs."""
    resolution: int = 64
    """Pixels per side of the finest scale."""
    max_train_steps: int = 100
    """Optimiser steps of the discriminator in each scale of each image; 6000 in the paper (2000 iterations of 3)."""
    lr: float = 5e-4
    """Adam's learning rate; the last fifth of the steps of a scale takes a tenth of it."""
    checkpointing_steps: int = 500
    """Steps between checkpoints within a scale; the end of a scale always is one."""
    start_scale: int = 0
    """First scale with noise of its own, 0 the coarsest: coarser ones give the training image. The larger, the nearer
    to it."""
    seed: int = 0
    """Of everything random."""

    def __post_init__(self) -> None:
        """Refuse numbers out of range before a run folder is made.

        Raises:
            InputError: An option has none of its values.
        """
        for name, least in _LEAST.items():
            if not least <= getattr(self, name) < math.inf:
                raise InputError(f"{_said(name, getattr(self, name))}: must be {least:g} or more")
        if not 0 < self.lr < math.inf:
            raise InputError(f"--lr {self.lr:g}: must be positive")
        if not 0.1 <= self.scale_factor <= 0.9:
            raise InputError(f"--preset scale_factor={self.scale_factor:g}: must lie between 0.1 and 0.9")
        if self.resolution < self.min_size:
            fault = f"is below min_size={self.min_size}, the coarsest scale"
            raise InputError(f"--resolution {self.resolution}: {fault}; raise it, or lower min_size")
        if self.start_scale >= len(self.sides):
            last = len(self.sides) - 1
            raise InputError(f"--preset start_scale={self.start_scale}: the finest scale is {last}; give 0 to {last}")

    @property
    def sides(self) -> tuple[int, ...]:
        """Side of every scale in pixels, the coarsest first."""
        return sides(self.resolution, self.scale_factor, self.min_size)

    def seconds(self, images: int) -> float:
        """About what training on `images` takes on one core, were the finest scale one of 64 px."""
        area = sum(side**2 for side in self.sides) / self.resolution**2
        return min(images, self.max_images or images) * area * self.max_train_steps * SECONDS_A_STEP


def _said(name: str, value: float) -> str:
    """How the command line was given the value."""
    by_itself = name in ("resolution", "max_train_steps", "checkpointing_steps")
    return f"--{name.replace('_', '-')} {value:g}" if by_itself else f"--preset {name}={value:g}"


_LEAST: Mapping[str, float] = {
    **dict.fromkeys(("max_images", "start_scale", "reconstruction_weight", "penalty_weight", "noise_weight"), 0),
    **dict.fromkeys(("generator_every", "max_train_steps", "checkpointing_steps", "resolution"), 1),
    "min_size": LEAST_SIDE,
}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "tiny": {},
    "paper": {"max_images": 0, "resolution": 250, "max_train_steps": 6000},
}
"""Preset -> what it changes."""


def singan_config(presets: str = "tiny", **changes: Any) -> SinganConfig:
    """The settings of one preset, or several joined by ``+`` (``paper+max_images=10``), with changes.

    Raises:
        InputError: No such preset, a foundation (this generator rests on none), or a value that its option cannot take.
    """
    values = preset_values(presets, PRESETS, _KINDS)
    if "foundation" in values:
        known = ", ".join(PRESETS)
        raise InputError(f"--preset {presets}: singan-seg rests on no foundation; choose from {known} or option=value")
    return SinganConfig(**{**values, **changes})


_KINDS: Mapping[str, type] = kinds_of(SinganConfig)
