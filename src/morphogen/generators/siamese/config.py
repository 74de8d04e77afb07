"""Settings of Siamese-Diffusion, and its presets: the paper's recipe, its ablation table, ControlNet, and `tiny`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from morphogen.errors import InputError
from morphogen.generators.presets import preset_values
from morphogen.words import kinds_of


@dataclass(frozen=True, kw_only=True)
class SiameseConfig:
    """How to train and sample Siamese-Diffusion. The defaults are the method of the paper at the size of `tiny`."""

    method: ClassVar[str] = "siamese"
    """Name in the table of generators."""

    foundation: str = "tiny"
    """tiny, a diffusers folder, or a hub id (owner/name@revision)."""
    adapt_steps: int | None = None
    """Steps of fine-tuning the foundation on the training images first, the autoencoder's decoder and the denoiser for
    so many each; 0 for none. By default, on a foundation that `pretrain` made, 200 for the decoder, and 300 for the
    denoiser where the images are far from what it was made of."""
    hint: str = "dense"
    """dense (Dense Hint Input) or plain (ControlNet's hint encoder)."""
    hint_width: int = 8
    """Channels of the dense hint's first stage; 16 in the paper."""
    init: str = "auto"
    """Hint path at the start: zero (the paper's), pretrained (on phantoms, where the foundation ships it), or auto."""
    image_branch: bool = True
    """Train the image branch (L_i); off is plain ControlNet."""
    w_c: float = 1.0
    """Weight of the Noise Consistency Loss; 0 switches it off."""
    w_i: str = "linear"
    """Weight of the image's residuals: linear (k / N, as published) or one (c_mix = c_i + c_m, as in ADC)."""
    adaptive_w_c: bool = False
    """Weigh the Noise Consistency Loss by area: lesion by the share of the background and the other way round (ADC)."""
    online_augmentation: bool = True
    """Train on re-noised estimates after a third of the run, below t = T_tau."""
    T_tau: int = 200
    """Timestep below which the Online-Augmentation acts."""
    tuning: str = "full"
    """What trains: full (ControlNet and the U-Net's decoder, as published), locked (the ControlNet alone), lora
    (low-rank updates of both), or auto: the first of these that the device's memory allows."""
    lora_rank: int = 32
    """Rank of the low-rank updates."""
    prompt: str | None = None
    """One prompt for all images; without it each record's caption, else the one that the foundation fits best."""
    prompt_drop: float = 0.05
    """Share of rows trained with the empty prompt; the hint is never dropped."""
    symmetries: bool = True
    """Train on the eight turned and mirrored versions of each pair; off in the paper."""
    resolution: int = 0
    """Pixels per side; 0 takes the foundation's."""
    max_train_steps: int = 400
    """Optimiser steps."""
    train_batch_size: int = 16
    """Rows per step."""
    gradient_accumulation_steps: int = 1
    """Parts that a step's rows are computed in; 0: as few as the device's memory allows."""
    optimizer: str = "adamw"
    """adamw, adamw8bit (a quarter of its memory; needs bitsandbytes), or auto: the first that the memory allows."""
    lr: float = 2e-4
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
    """Keep no activations inside the blocks that train: less memory, a third more time."""
    ema_decay: float = 0.0
    """Moving average of the trained weights; 0 is off, as published."""
    solver: str = "dpm"
    """Sampler: dpm (DPM-Solver++ 2M) or ddim (eta 0, as published)."""
    sampling_steps: int = 15
    """Steps of the sampler; 50 in the paper."""
    guidance: float = 2.5
    """Classifier-free guidance of the text, the mask given to both; 9 in the paper."""
    checkpointing_steps: int = 200
    """Steps between checkpoints."""
    validation_steps: int = 0
    """Steps between previews of eight training masks; 0 for one at the end."""
    seed: int = 0
    """Of everything random."""

    def __post_init__(self) -> None:
        """Refuse unknown words and negative steps before a run folder is made.

        Raises:
            InputError: An option has none of its values.
        """
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                option = name.replace("_", "-")
                raise InputError(f"--{option} {getattr(self, name)}: choose {' or '.join(choices)}")
        for name in ("adapt_steps", "lr_warmup_steps", "validation_steps", "gradient_accumulation_steps"):
            if (getattr(self, name) or 0) < 0:
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)}: is negative; give 0 for none")
        if self.lora_rank < 1:
            raise InputError(f"--preset lora_rank={self.lora_rank}: must be positive")

    @property
    def both_hints(self) -> bool:
        """Whether the networks read mask and image, in sampling too."""
        return False

    def stated(self) -> dict[str, Any]:
        """All settings; those that are younger than the oldest runs only where they are set, so that these go on."""
        return {k: v for k, v in asdict(self).items() if k not in _YOUNGER or v != _YOUNGER[k]}


_YOUNGER = {"w_i": "linear", "adaptive_w_c": False, "hint_input": "mask"}
_CHOICES = {
    "w_i": ("linear", "one"),
    "init": ("zero", "pretrained", "auto"),
    "hint": ("dense", "plain"),
    "solver": ("dpm", "ddim"),
    "lr_scheduler": ("constant", "cosine"),
    "tuning": ("full", "locked", "lora", "auto"),
    "optimizer": ("adamw", "adamw8bit", "auto"),
}


HINT_INPUTS = ("mask", "mask-image")


@dataclass(frozen=True, kw_only=True)
class ControlNetConfig(SiameseConfig):
    """ControlNet (Zhang et al. 2023) with an unlocked decoder: the mask branch alone, with the plain hint."""

    method: ClassVar[str] = "controlnet"

    hint: str = "plain"
    """plain (ControlNet's hint encoder) or dense (Dense Hint Input)."""
    image_branch: bool = False
    """Always off in a ControlNet."""
    w_c: float = 0.0
    """Always 0 in a ControlNet."""
    online_augmentation: bool = False
    """Always off in a ControlNet."""
    hint_input: str = "mask"
    """What it reads, in training and in sampling: mask, or mask-image: c_i + c_m of the mask and of the real image of
    that mask. The pairs are then near copies of training images."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hint_input not in HINT_INPUTS:
            raise InputError(f"--preset hint_input={self.hint_input}: choose {' or '.join(HINT_INPUTS)}")

    @property
    def both_hints(self) -> bool:
        return self.hint_input == "mask-image"


_PAPER = {
    "adapt_steps": 0, "hint_width": 16, "symmetries": False, "init": "zero", "resolution": 384, "max_train_steps": 3000,
    "train_batch_size": 48, "lr": 1e-5, "max_grad_norm": 0.0, "solver": "ddim", "sampling_steps": 50, "guidance": 9.0,
    "gradient_checkpointing": True, "gradient_accumulation_steps": 0, "tuning": "auto", "optimizer": "auto",
}  # fmt: skip
# The rows of the table start alike: from zero, since there is no plain hint path that was made on phantoms.
_DENSE = {"hint": "dense", "init": "zero"}
_PLAIN, _NO_IMAGE = (
    {"hint": "plain", "init": "zero"},
    {"image_branch": False, "w_c": 0.0, "online_augmentation": False},
)

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "tiny": {},
    "sd15": {"foundation": "sd15", **_PAPER},
    "controlnet": {**_PLAIN, **_NO_IMAGE},
    "ablation-1": {**_PLAIN, **_NO_IMAGE},
    "ablation-2": {**_DENSE, **_NO_IMAGE},
    "ablation-3": {**_PLAIN, "w_c": 0.0},
    "ablation-4": {**_PLAIN, "online_augmentation": False},
    "ablation-5": {**_PLAIN},
    "ablation-6": {**_DENSE, "w_c": 0.0},
    "ablation-7": {**_DENSE, "online_augmentation": False},
    "ablation-8": {**_DENSE},
    "adc": {"w_i": "one", "adaptive_w_c": True, "online_augmentation": False},
}
"""Preset -> what it changes. ``ablation-N`` is row N of the paper's Table 5 (8 is the whole method, zero start);
``adc`` are the losses of Adaptively Distilled ControlNet."""
CONTROLNET_PRESETS: Mapping[str, Mapping[str, Any]] = {
    **{name: changes for name, changes in PRESETS.items() if name != "adc"},
    "mask-image": {"hint_input": "mask-image"},
}
"""Those of the mask branch alone; ``mask-image`` is the row M+I of Table 2."""


def siamese_config(presets: str = "tiny", **changes: Any) -> SiameseConfig:
    """The settings of one preset, or several joined by ``+`` (``sd15+ablation-4``), with changes.

    A foundation's folder or hub id is a preset too: alone, the defaults on that foundation; as in ``sd15+FOLDER``, the
    paper's recipe on it. So is ``option=value``, as in ``sd15+w_c=0.5``.

    Raises:
        InputError: No such preset, or a value that its option cannot take.
    """
    return SiameseConfig(**{**preset_values(presets, PRESETS, kinds_of(SiameseConfig)), **changes})


def controlnet_config(presets: str = "tiny", **changes: Any) -> ControlNetConfig:
    """As `siamese_config`, for the mask branch alone."""
    values = preset_values(presets, CONTROLNET_PRESETS, kinds_of(ControlNetConfig))
    return ControlNetConfig(**{**_PLAIN, **values, **_NO_IMAGE, **changes})
