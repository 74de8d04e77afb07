"""Settings of the dual generator, and its presets: `tiny`, Stable Diffusion 2, LoRA, and the canvas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from morphogen.errors import InputError
from morphogen.generators.latent_config import AT_LEAST_ONE, NOT_NEGATIVE, POSITIVE, SHARE, LatentConfig
from morphogen.generators.presets import named_first, preset_values
from morphogen.training.rng import seed_of
from morphogen.words import kinds_of

SEGMENTER = ("unet", {"encoder": "scratch"})
"""S, the small segmenter of the alignment: its name and options."""
SAMPLING = ("guidance", "sampling_steps", "solver")
"""Options that are for sampling alone: one trained generator serves all their values."""


@dataclass(frozen=True, kw_only=True)
class DualConfig(LatentConfig):
    """How to train and sample the dual generator. The defaults are those of `tiny`."""

    method: ClassVar[str] = "dual"
    choices: ClassVar = {
        **LatentConfig.choices,
        "layout": ("joint", "canvas"),
        "tuning": ("full", "lora"),
        "lora_targets": ("attention", "attention-ff"),
        "optimizer": ("adamw", "adamw8bit"),
    }
    limits: ClassVar = {
        **LatentConfig.limits,
        **dict.fromkeys(("image_weight", "mask_weight", "dice_weight", "bce_weight", "align_weight"), NOT_NEGATIVE),
        **dict.fromkeys(("min_snr", "align_after"), NOT_NEGATIVE),
        **dict.fromkeys(("prompt_drop", "label_share", "pixel_share", "class_balance"), SHARE),
        **dict.fromkeys(("lora_rank", "noise_weight", "segmenter_steps", "pixel_below", "align_below"), AT_LEAST_ONE),
        **dict.fromkeys(("lora_alpha", "conv_lr", "mask_deviation"), POSITIVE),
    }

    foundation: str = "tiny"
    """tiny, sd15, a diffusers folder of a text-to-image model with latents of 4 channels, or a hub id
    (owner/name@revision)."""
    layout: str = "joint"
    """joint: the latents of image and mask lie in the channels of one latent, and the U-Net's first and last layer are
    widened from 4 to 8 channels. canvas: they lie side by side, image left, and the U-Net stays as it is."""
    tuning: str = "full"
    """What trains: full (the whole U-Net) or lora (low-rank updates, beside which the widened layers train whole)."""
    lora_rank: int = 32
    """Rank of the low-rank updates."""
    lora_alpha: float = 32.0
    """Their scale is lora_alpha / lora_rank."""
    lora_targets: str = "attention"
    """Layers that have them: attention, or attention-ff (the feed-forward layers behind it, too)."""
    grammar: str = "auto"
    """How images are put into words: polyp, skin, generic, a YAML file, or auto (the one that knows the classes, else
    the one that fits the images)."""
    image_weight: float = 1.0
    """Weight of the image half's diffusion loss. Of all weights, 0 switches the term and its cost off."""
    mask_weight: float = 1.0
    """Weight of the mask half's diffusion loss."""
    dice_weight: float = 0.5
    """Weight of 1 - Dice of the decoded mask estimate, below t = pixel_below."""
    bce_weight: float = 0.5
    """Weight of its binary cross-entropy, there."""
    align_weight: float = 0.1
    """Weight of 1 - Dice of the mask estimate and what a small segmenter sees in the image estimate."""
    min_snr: float = 5.0
    """gamma of min-SNR weighting in both diffusion losses; 0 for none."""
    mask_deviation: float = 0.1
    """Deviation of the mask's latents, where that of the image's is about 1. A mask is so plain a picture that it shows
    through noise long before the image does; the smaller it is, the later it is settled, and the more it follows the
    image (signal scaling: Chen 2023, arXiv:2301.10972)."""
    noise_weight: float = 8.0
    """Largest weight of a row whose latent is almost noise alone, where eps is foretold: sqrt((1 - abar) / abar), at
    least 1, on both diffusion losses. 1 weighs all rows by min-SNR alone."""
    pixel_below: int = 400
    """Timestep below which the mask estimate is decoded for Dice and cross-entropy."""
    pixel_share: float = 0.25
    """Share of a step's rows that are decoded, drawn among those below pixel_below with a mask."""
    align_below: int = 300
    """Timestep below which image and mask estimate are compared, of the rows that are decoded."""
    align_after: int = 200
    """Steps after which they are."""
    segmenter_steps: int = 300
    """Steps that the small segmenter is trained for, on the generator's own training pairs."""
    prompt_drop: float = 0.1
    """Share of rows trained with the empty prompt."""
    label_share: float = 0.3
    """Share of rows trained with the class alone for a caption."""
    class_balance: float = 0.5
    """Exponent of class-balanced sampling: an image is drawn with a weight of n^-class_balance, n the images of its
    class; 0 takes them as they are."""
    symmetries: bool = True
    """Train on the eight turned and mirrored versions of each pair; the word for the position turns with them."""
    max_train_steps: int = 1200
    optimizer: str = "adamw"
    """adamw, or adamw8bit (a quarter of its memory; needs bitsandbytes)."""
    conv_lr: float = 5e-3
    """That of the widened first and last layer, which have to learn from zero what the mask half means."""
    lr_scheduler: str = "cosine"
    lr_warmup_steps: int = 20
    ema_decay: float = 0.99
    sampling_steps: int = 30
    guidance: float = 1.5
    """Classifier-free guidance of the text, for both halves."""

    def __post_init__(self) -> None:
        """Refuse unknown words and numbers out of range before a run folder is made.

        Raises:
            InputError: An option has none of its values.
        """
        super().__post_init__()
        if self.prompt_drop + self.label_share > 1:
            total = self.prompt_drop + self.label_share
            raise InputError(f"--preset prompt_drop, label_share: add up to {total:g}; make it 1 or less")
        if not self.image_weight + self.mask_weight:
            raise InputError("--preset image_weight, mask_weight: are both 0; then nothing is learnt from noise")

    @property
    def decodes(self) -> bool:
        """Whether any term needs the mask estimate in pixels."""
        return self.pixel_share > 0 and (self.dice_weight + self.bce_weight > 0 or self.aligns)

    @property
    def aligns(self) -> bool:
        """Whether the alignment ever counts."""
        return self.align_weight > 0 and self.pixel_share > 0 and self.align_after < self.max_train_steps

    @property
    def segmenter_seed(self) -> int:
        """Seed of the small segmenter."""
        return seed_of(self.seed, "segmenter")


_LORA = {"tuning": "lora", "lora_rank": 32, "lora_alpha": 32.0}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "tiny": {},
    "lora": {**_LORA, "lr": 1e-3},
    "canvas": {"layout": "canvas", **_LORA, "lr": 1e-3},
    "sd2": {
        "foundation": "sd2", "grammar": "skin", "resolution": 512, "adapt_steps": 0, **_LORA,
        "mixed_precision": "bf16", "gradient_checkpointing": True, "train_batch_size": 16, "max_train_steps": 15_000,
        "lr": 1e-4, "conv_lr": 5e-5, "lr_warmup_steps": 500, "ema_decay": 0.999, "align_after": 3000,
        "mask_deviation": 1.0, "noise_weight": 1.0,
        "segmenter_steps": 3000, "solver": "dpm", "sampling_steps": 30, "guidance": 5.0, "checkpointing_steps": 500,
    },
}  # fmt: skip
"""Preset -> what it changes, the later ones over the earlier ones: the rates of lora and canvas are those of a small
model. sd2 wants a folder or hub id beside it (`foundation.model.UNPINNED`)."""


def dual_config(presets: str = "tiny", **changes: Any) -> DualConfig:
    """The settings of one preset, or several joined by ``+`` (``sd2+FOLDER``), with changes.

    Named presets count before everything else, in the order of the table: `sd2` is its recipe beside `canvas`, too.

    Raises:
        InputError: No such preset, or a value that its option cannot take.
    """
    return DualConfig(**{**preset_values(named_first(presets, PRESETS), PRESETS, _KINDS), **changes})


_KINDS: Mapping[str, type] = kinds_of(DualConfig)
