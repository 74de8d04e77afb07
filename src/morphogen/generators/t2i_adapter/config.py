"""Settings of T2I-Adapter, and its presets: the recipe at the size of the papers, and `tiny`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from morphogen.errors import InputError
from morphogen.generators.latent_config import SHARE, LatentConfig
from morphogen.generators.presets import preset_values
from morphogen.words import kinds_of


@dataclass(frozen=True, kw_only=True)
class T2IAdapterConfig(LatentConfig):
    """How to train and sample a T2I-Adapter. The defaults are the method of the paper at the size of `tiny`."""

    method: ClassVar[str] = "t2i-adapter"
    choices: ClassVar = {**LatentConfig.choices, "timesteps": ("cubic", "uniform")}
    limits: ClassVar = {**LatentConfig.limits, "prompt_drop": SHARE}

    blocks: int = 2
    """Residual blocks in each level of the adapter."""
    timesteps: str = "cubic"
    """How training draws them: cubic (more large ones, as published) or uniform."""
    prompt: str | None = None
    """One prompt for all images; without it each record's caption, else the one that the foundation fits best."""
    prompt_drop: float = 0.05
    """Share of rows trained with the empty prompt; the mask is never dropped."""
    lr: float = 1e-3
    """AdamW's learning rate (1e-5 in the paper)."""

    def __post_init__(self) -> None:
        """Refuse unknown words and numbers out of range before a run folder is made.

        Raises:
            InputError: An option has none of its values.
        """
        super().__post_init__()
        if self.blocks < 1:
            raise InputError(f"--preset blocks={self.blocks}: must be positive")


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
