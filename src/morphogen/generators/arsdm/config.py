"""Settings of ArSDM, and its presets: the published recipe, its four published variants, and `tiny`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from morphogen.errors import InputError
from morphogen.generators.latent_config import BELOW_ONE, NOT_NEGATIVE, POSITIVE, LatentConfig, Limit
from morphogen.generators.presets import preset_values
from morphogen.words import kinds_of

SEGMENTERS = ("sanet", "unet", "segformer", "polyp-pvt", "ctnet")
"""Those that may refine: networks of images without noise or a foundation of their own."""


@dataclass(frozen=True, kw_only=True)
class ArSDMConfig(LatentConfig):
    """How to train and sample ArSDM. The defaults are the method of the paper at the size of `tiny`."""

    method: ClassVar[str] = "arsdm"
    choices: ClassVar = {**LatentConfig.choices, "tuning": ("full", "decoder"), "optimizer": ("adamw", "adamw8bit")}

    spade_width: int = 32
    """Channels between the mask and its scale and shift, in each SPADE layer; 128 in the paper."""
    adaptive: bool = True
    """Weigh the noise error by the share of the image that the lesion takes; off is the plain error."""
    w_r: float = 0.05
    """Weight of the refinement by a segmenter; 0 switches it off, and trains no segmenter."""
    refine_from: float = 0.75
    """Share of the run after which the refinement begins."""
    T_r: int = 300
    """Timestep below which an estimate of the image is clear enough for the segmenter."""
    segmenter: str = "sanet,size=14,weights=none"
    """The network that refines, with its options, trained on the training pairs first. A study's judge of another
    architecture than this one stays independent."""
    segmenter_steps: int = 300
    """Optimiser steps of the segmenter."""
    tuning: str = "full"
    """What trains beside the SPADE layers: full (the whole U-Net, as published) or decoder (what reads the mask: its
    middle block and decoder)."""
    prompt: str | None = None
    """One prompt for all images; without it each record's caption, else the one that the foundation fits best."""
    condition_drop: float = 0.1
    """Share of rows trained without mask and prompt, for guidance; 0 in the paper, which has none."""
    optimizer: str = "adamw"
    """adamw or adamw8bit (a quarter of its memory; needs bitsandbytes)."""
    solver: str = "dpm"
    """Sampler: dpm (DPM-Solver++ 2M) or ddim (eta 0; eta 1 in the paper)."""
    guidance: float = 2.5
    """Guidance of mask and text against neither; 1 is none, as published."""

    @property
    def prompt_drop(self) -> float:
        """The rows without mask are those without prompt."""
        return self.condition_drop

    def __post_init__(self) -> None:
        """Refuse values that cannot be before a run folder is made.

        Raises:
            InputError: An option has none of its values.
        """
        super().__post_init__()
        for name, limit in _LIMITS.items():
            if not limit.takes(getattr(self, name)):
                raise InputError(f"--preset {name}={getattr(self, name)}: {limit.words}")
        if self.segmenter.split(",")[0] not in SEGMENTERS:
            raise InputError(f"--preset segmenter={self.segmenter}: choose {', '.join(SEGMENTERS)}")
        if self.guidance != 1 and not self.condition_drop:
            raise InputError(
                f"--guidance {self.guidance}: was never trained without its mask (condition_drop=0); give guidance 1"
            )


_LIMITS: Mapping[str, Limit] = {
    **dict.fromkeys(("spade_width", "segmenter_steps", "T_r"), POSITIVE),
    **dict.fromkeys(("refine_from", "condition_drop"), BELOW_ONE),
    "w_r": NOT_NEGATIVE._replace(words="must be 0 or more; 0 switches the refinement off"),
}

# 100 epochs of the 1,450 training images of PraNet's split, 8 a step.
_PAPER = {
    "adapt_steps": 0, "spade_width": 128, "segmenter": "sanet,size=50,weights=imagenet", "segmenter_steps": 1000,
    "condition_drop": 0.0, "symmetries": False, "resolution": 384, "max_train_steps": 18125, "train_batch_size": 8,
    "lr": 8e-6, "max_grad_norm": 0.0, "gradient_checkpointing": True, "ema_decay": 0.9999, "solver": "ddim",
    "sampling_steps": 200, "guidance": 1.0, "refine_from": 0.97,
}  # fmt: skip

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "tiny": {},
    "sd15": {"foundation": "sd15", **_PAPER},
    "base": {"adaptive": False, "w_r": 0.0},
    "adaptive": {"w_r": 0.0},
    "refine": {"adaptive": False},
}
"""Preset -> what it changes. base, adaptive and refine are the rows of the published ablation."""


def arsdm_config(presets: str = "tiny", **changes: Any) -> ArSDMConfig:
    """The settings of one preset, or several joined by ``+`` (``sd15+adaptive``), with changes.

    A foundation's folder or hub id is a preset too: alone, the defaults on that foundation; as in ``sd15+FOLDER``, the
    paper's recipe on it. So is ``option=value``, as in ``sd15+w_r=0.1``; the options of `segmenter` are joined by
    commas there: ``segmenter=unet,encoder=scratch``.

    Raises:
        InputError: No such preset, or a value that its option cannot take.
    """
    return ArSDMConfig(**{**preset_values(presets, PRESETS, _KINDS), **changes})


_KINDS: Mapping[str, type] = kinds_of(ArSDMConfig)
