"""Settings of T2I-Adapter, and its presets: the recipe at the size of the papers, and `tiny`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from morphogen.errors import InputError
from morphogen.generators.presets import preset_values
from morphogen.words import kinds_of


@dataclass(frozen=True, kw_only=True)
class T2IAdapterConfig:
    """How to train and sample a T2I-Adapter. The defaults are the method of the paper at the size of `tiny`."""

    method: ClassVar[str] = "t2i-adapter"
    """Name in the table of generators."""

    foundation: str = "tiny"
    """tiny, a diffusers folder, or a hub id (owner/name@revision)."""
    adapt_steps: int | None = None
    """Steps of fine-tuning the foundation on the training images first, the autoencoder's decoder and the denoiser for
    so many each; 0 for none. By default, on a foundation that `pretrain` made, 200 for the decoder, and 300 for the
    denoiser where the images are far from what it was made of."""
    blocks: int = 2
    """Residual blocks in each level of the adapter."""
    timesteps: str = "cubic"
    """How training draws them: cubic (more large ones, as published) or uniform."""
    prompt: str | None = None
    """One prompt for all images; without it each record's caption, else the one that the foundation fits best."""
    prompt_drop: float = 0.05
    """Share of rows trained with the empty prompt; the mask is never dropped."""
    symmetries: bool = True
    """Train on the eight turned and mirrored versions of each pair."""
    resolution: int = 0
    """Pixels per side; 0 takes the foundation's."""
    max_train_steps: int = 400
    """Optimiser steps."""
    train_batch_size: int = 16
    """Rows per step."""
    gradient_accumulation_steps: int = 1
    """Parts that a step's rows are computed in."""
    lr: float = 1e-3
    """AdamW's learning rate (1e-5 in the paper)."""
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
    """Keep no activations inside the U-Net's blocks: less memory, a third more time."""
    ema_decay: float = 0.0
    """Moving average of the trained weights; 0 is off, as published."""
    solver: str = "dpm"
    """Sampler: dpm (DPM-Solver++ 2M) or ddim (eta 0, as published)."""
    sampling_steps: int = 15
    """Steps of the sampler; 50 as published."""
    guidance: float = 2.5
    """Classifier-free guidance of the text, the mask given to both; 9 in Siamese-Diffusion's recipe."""
    checkpointing_steps: int = 200
    """Steps between checkpoints."""
    validation_steps: int = 0
    """Steps between previews of eight training masks; 0 for one at the end."""
    seed: int = 0
    """Of everything random."""

    def __post_init__(self) -> None:
        """Refuse unknown words and numbers out of range before a run folder is made.

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
        if self.blocks < 1:
            raise InputError(f"--preset blocks={self.blocks}: must be positive")


_CHOICES = {
    "timesteps": ("cubic", "uniform"),
    "solver": ("dpm", "ddim"),
    "lr_scheduler": ("constant", "cosine"),
}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "tiny": {},
    "sd15": {
        "foundation": "sd15", "adapt_steps": 0, "symmetries": False, "resolution": 384, "max_train_steps": 3000,
        "train_batch_size": 48, "gradient_accumulation_steps": 6, "lr": 1e-5, "max_grad_norm": 0.0, "solver": "ddim",
        "sampling_steps": 50, "guidance": 9.0, "gradient_checkpointing": True,
    },
}  # fmt: skip
"""Preset -> what it changes. ``sd15`` has images, length, batch, prompts and sampling of Siamese-Diffusion's
experiments, in whose tables the method stands, and the learning rate of its own paper; 8 rows at a time, as there."""


def t2i_adapter_config(presets: str = "tiny", **changes: Any) -> T2IAdapterConfig:
    """The settings of one preset, or several joined by ``+``, with changes.

    A foundation's folder or hub id is a preset too: alone, the defaults on that foundation; as in ``sd15+FOLDER``, the
    recipe on it. So is ``option=value``, as in ``tiny+timesteps=uniform``.

    Raises:
        InputError: No such preset, or a value that its option cannot take.
    """
    return T2IAdapterConfig(**{**preset_values(presets, PRESETS, kinds_of(T2IAdapterConfig)), **changes})
