"""Settings of the inpainting generator, and its presets: `tiny`, the Stable Diffusion inpainting models, LoRA."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from morphogen.errors import InputError
from morphogen.generators.latent_config import AT_LEAST_ONE, NOT_NEGATIVE, POSITIVE, SHARE, LatentConfig, Limit
from morphogen.generators.presets import named_first, preset_values
from morphogen.words import kinds_of

SAMPLING = ("text", "guidance", "sampling_steps", "strength", "solver")
"""Options that are for sampling alone: one trained generator serves all their values."""


@dataclass(frozen=True, kw_only=True)
class InpaintConfig(LatentConfig):
    """How to train and sample the inpainting generator. The defaults are those of `tiny`."""

    method: ClassVar[str] = "inpaint"
    choices: ClassVar = {
        **LatentConfig.choices,
        "layout": ("any", "sd", "sdxl"),
        "tuning": ("full", "lora"),
        "text": ("mask", "none", "wrong"),
        "optimizer": ("adamw", "adamw8bit"),
    }
    limits: ClassVar = {
        **LatentConfig.limits,
        **dict.fromkeys(("feather", "lesion_weight"), NOT_NEGATIVE),
        **dict.fromkeys(("hole_lesion", "hole_normal", "hole_all", "prompt_drop"), SHARE),
        **dict.fromkeys(("lora_rank", "noise_weight"), AT_LEAST_ONE),
        "lora_alpha": POSITIVE,
        "lr": NOT_NEGATIVE._replace(words="must be 0 or a positive number"),
        "strength": Limit("must lie between 0 and 1, 0 excluded", lambda value: 0 < value <= 1),
    }

    foundation: str = "tiny"
    """tiny, sd15-inpaint, sd2-inpaint, sdxl-inpaint, a diffusers folder, or a hub id (owner/name@revision)."""
    layout: str = "any"
    """What the foundation must be: sd (one text encoder), sdxl (two) or any; the presets of either state it."""
    widen: bool | None = None
    """Give a text-to-image U-Net the five input channels of an inpainting one, zero at the start. By default those that
    Morphogen made are widened, and those of others refused."""
    tuning: str = "full"
    """What trains: full (the whole U-Net) or lora (low-rank updates of its attention)."""
    lora_rank: int = 16
    """Rank of the low-rank updates."""
    lora_alpha: float = 16.0
    """Their scale is lora_alpha / lora_rank."""
    grammar: str = "auto"
    """How lesions are put into words: polyp, skin, generic, a YAML file, or auto (the one that fits the images)."""
    text: str = "mask"
    """Prompts in sampling: mask (what the mask decides), none (the empty one) or wrong (what contradicts the mask)."""
    normals: str = "regions"
    """Images to paint into: removed (lesions of the training images painted away), regions (parts of the training
    images without a lesion), or a folder of images."""
    feather: float = 0.02
    """Width outside the mask over which the painted part fades out, as a part of the image's shorter side."""
    lesion_weight: float = 0.5
    """Weight of the loss inside the hole, added to that over the whole image."""
    noise_weight: float = 8.0
    """Largest weight of a row whose latent is almost noise alone, where eps is foretold: sqrt((1 - abar) / abar), at
    least 1. What is around the hole is learnt there. 1 weighs all rows alike."""
    hole_lesion: float = 0.6
    """Share of rows whose hole is the lesion."""
    hole_normal: float = 0.3
    """Share of rows whose hole lies off the lesion, with the sentence for normal tissue."""
    hole_all: float = 0.1
    """Share of rows that are masked whole."""
    prompt_drop: float = 0.1
    """Share of rows trained with the empty prompt."""
    max_train_steps: int = 600
    optimizer: str = "adamw"
    """adamw, or adamw8bit (a quarter of its memory; needs bitsandbytes)."""
    lr: float = 2e-4
    """AdamW's learning rate; with 0 the run samples as the foundation did that it was given."""
    lr_scheduler: str = "cosine"
    mixed_precision: str = "no"
    """no, bf16 or fp16 (autocast; the weights stay in fp32). On a GPU the U-Net samples in it too."""
    ema_decay: float = 0.99
    sampling_steps: int = 20
    """Steps of the sampler at strength 1."""
    strength: float = 0.95
    """1 starts from noise alone; below, from the normal image noised to that share of the way."""
    keep_known: bool = True
    """In sampling, start every step from the noised image outside the hole, for U-Nets that have only begun to read it
    from their own channels; those of Stable Diffusion need it not."""

    def __post_init__(self) -> None:
        """Refuse unknown words and numbers out of range before a run folder is made.

        Raises:
            InputError: An option has none of its values.
        """
        super().__post_init__()
        if abs(self.hole_lesion + self.hole_normal + self.hole_all - 1) > 1e-6:
            total = self.hole_lesion + self.hole_normal + self.hole_all
            raise InputError(f"--preset hole_lesion, hole_normal, hole_all: add up to {total:g}; make it 1")


_PAPER = {
    "adapt_steps": 0, "symmetries": False, "noise_weight": 1.0, "ema_decay": 0.0, "keep_known": False,
    "normals": "removed", "feather": 0.007, "lr_scheduler": "constant", "hole_lesion": 0.45, "hole_normal": 0.3,
    "hole_all": 0.25, "prompt_drop": 0.05, "max_train_steps": 5000, "train_batch_size": 4, "lr": 1e-5, "solver": "dpm",
    "sampling_steps": 50, "guidance": 7.5, "strength": 0.95, "gradient_checkpointing": True, "checkpointing_steps": 500,
}  # fmt: skip

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "tiny": {},
    "sd15": {"foundation": "sd15-inpaint", "layout": "sd", "resolution": 512, **_PAPER},
    "sd2": {"foundation": "sd2-inpaint", "layout": "sd", "resolution": 512, **_PAPER},
    "sdxl": {"foundation": "sdxl-inpaint", "layout": "sdxl", "resolution": 1024, **_PAPER},
    "lora": {"tuning": "lora", "lora_rank": 16, "lora_alpha": 16.0, "lr": 1e-4, "max_train_steps": 2000},
}
"""Preset -> what it changes."""


def inpaint_config(presets: str = "tiny", **changes: Any) -> InpaintConfig:
    """The settings of one preset, or several joined by ``+`` (``sdxl+lora``), with changes.

    Named presets count before everything else, in the order of the table: `lora` is LoRA's recipe wherever it stands.
    A foundation's folder or hub id is a preset too: alone, the defaults on that foundation; as in ``sdxl+FOLDER``, the
    recipe of SDXL on it. So is ``option=value``, as in ``sd15+lesion_weight=0``.

    Raises:
        InputError: No such preset, or a value that its option cannot take.
    """
    return InpaintConfig(**{**preset_values(named_first(presets, PRESETS), PRESETS, _KINDS), **changes})


_KINDS: Mapping[str, type] = kinds_of(InpaintConfig)
