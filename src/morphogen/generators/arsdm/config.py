"""Settings of ArSDM, and its presets: the published recipe, its four published variants, and `tiny`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from morphogen.errors import InputError
from morphogen.generators.presets import preset_values
from morphogen.words import kinds_of

SEGMENTERS = ("sanet", "unet", "segformer", "polyp-pvt", "ctnet")
"""Those that may refine: networks of images without noise or a foundation of their own."""


@dataclass(frozen=True, kw_only=True)
class ArSDMConfig:
    """How to train and sample ArSDM. The defaults are the method of the paper at the size of `tiny`."""

    method: ClassVar[str] = "arsdm"
    """Name in the table of generators."""

    foundation: str = "tiny"
    """tiny, a diffusers folder, or a hub id (owner/name@revision)."""
    adapt_steps: int | None = None
    """Steps of fine-tuning the foundation on the training images first, the autoencoder's decoder and the denoiser for
    so many each; 0 for none. By default, on a foundation that `pretrain` made, 200 for the decoder, and 300 for the
    denoiser where the images are far from what it was made of."""
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
    symmetries: bool = True
    """Train on the eight turned and mirrored versions of each pair; off in the paper."""
    resolution: int = 0
    """Pixels per side; 0 takes the foundation's."""
    max_train_steps: int = 400
    """Optimiser steps."""
    train_batch_size: int = 16
    """Rows per step; 8 in the paper."""
    gradient_accumulation_steps: int = 1
    """Parts that a step's rows are computed in."""
    optimizer: str = "adamw"
    """adamw or adamw8bit (a quarter of its memory; needs bitsandbytes)."""
    lr: float = 2e-4
    """AdamW's learning rate (8e-6 in the paper)."""
    lr_scheduler: str = "constant"
    """constant (as published) or cosine, down to 0 at the last step."""
    lr_warmup_steps: int = 0
    """Steps in which the learning rate grows from 0."""
    weight_decay: float = 1e-2
    """AdamW's weight decay."""
    max_grad_norm: float = 1.0
    """Bound on the gradient's norm; 0 is none, as published."""
    mixed_precision: str = "no"
    """no, bf16 or fp16."""
    gradient_checkpointing: bool = False
    """Keep no activations inside the blocks of the U-Net: less memory, a third more time."""
    ema_decay: float = 0.0
    """Moving average of the trained weights; 0 is off (0.9999 in the paper)."""
    solver: str = "dpm"
    """Sampler: dpm (DPM-Solver++ 2M) or ddim (eta 0; eta 1 in the paper)."""
    sampling_steps: int = 15
    """Steps of the sampler; 200 in the paper."""
    guidance: float = 2.5
    """Guidance of mask and text against neither; 1 is none, as published."""
    checkpointing_steps: int = 200
    """Steps between checkpoints."""
    validation_steps: int = 0
    """Steps between previews of eight training masks; 0 for one at the end."""
    seed: int = 0
    """Of everything random."""

    @property
    def prompt_drop(self) -> float:
        """The rows without mask are those without prompt."""
        return self.condition_drop

    def __post_init__(self) -> None:
        """Refuse values that cannot be before a run folder is made.

        Raises:
            InputError: An option has none of its values.
        """
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                option = name.replace("_", "-")
                raise InputError(f"--{option} {getattr(self, name)}: choose {' or '.join(choices)}")
        for name in ("adapt_steps", "lr_warmup_steps", "validation_steps"):
            if (getattr(self, name) or 0) < 0:
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)}: is negative; give 0 for none")
        for name in ("spade_width", "segmenter_steps", "T_r"):
            if getattr(self, name) < 1:
                raise InputError(f"--preset {name}={getattr(self, name)}: must be positive")
        for name in ("refine_from", "condition_drop"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"--preset {name}={getattr(self, name)}: must lie in 0 to 1, 1 excluded")
        if not 0 <= self.w_r < float("inf"):
            raise InputError(f"--preset w_r={self.w_r}: must be 0 or more; 0 switches the refinement off")
        if self.segmenter.split(",")[0] not in SEGMENTERS:
            raise InputError(f"--preset segmenter={self.segmenter}: choose {', '.join(SEGMENTERS)}")
        if self.guidance != 1 and not self.condition_drop:
            raise InputError(
                f"--guidance {self.guidance}: was never trained without its mask (condition_drop=0); give guidance 1"
            )


_CHOICES = {
    "solver": ("dpm", "ddim"),
    "lr_scheduler": ("constant", "cosine"),
    "tuning": ("full", "decoder"),
    "optimizer": ("adamw", "adamw8bit"),
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
