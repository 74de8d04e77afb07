"""Settings of Siamese-Diffusion, and its presets: the paper's recipe, its ablation table, ControlNet, and `tiny`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from morphogen.errors import InputError
from morphogen.generators.latent_config import AT_LEAST_ONE, NOT_NEGATIVE, SHARE, LatentConfig
from morphogen.generators.presets import preset_values
from morphogen.words import kinds_of


@dataclass(frozen=True, kw_only=True)
class SiameseConfig(LatentConfig):
    """How to train and sample Siamese-Diffusion. The defaults are the method of the paper at the size of `tiny`."""

    method: ClassVar[str] = "siamese"
    choices: ClassVar = {
        **LatentConfig.choices,
        "hint": ("dense", "plain"),
        "init": ("zero", "pretrained", "auto"),
        "w_i": ("linear", "one"),
        "tuning": ("full", "locked", "lora", "auto"),
        "optimizer": ("adamw", "adamw8bit", "auto"),
    }
    limits: ClassVar = {
        **LatentConfig.limits,
        **dict.fromkeys(("hint_width", "lora_rank"), AT_LEAST_ONE),
        **dict.fromkeys(("w_c", "T_tau", "gradient_accumulation_steps"), NOT_NEGATIVE),
        "prompt_drop": SHARE,
    }

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
    gradient_accumulation_steps: int = 1
    """Parts that a step's rows are computed in; 0: as few as the device's memory allows."""
    optimizer: str = "adamw"
    """adamw, adamw8bit (a quarter of its memory; needs bitsandbytes), or auto: the first that the memory allows."""

    def __post_init__(self) -> None:
        """Refuse, beside what cannot be, what would act on nothing.

        Raises:
            InputError: An option has none of its values, or belongs to a loss that is off.
        """
        super().__post_init__()
        if not self.image_branch:
            fault = "acts on the image branch, which is off (image_branch=false); leave it out"
            self._refuse_set(("w_i", "adaptive_w_c"), fault)
        if not self.w_c:
            fault = "weighs the Noise Consistency Loss, which is off (w_c=0); leave it out, or give a w_c"
            self._refuse_set(("adaptive_w_c",), fault)

    def _refuse_set(self, names: tuple[str, ...], fault: str) -> None:
        """Refuse options that have not their default."""
        for name in names:
            if (value := getattr(self, name)) != getattr(type(self), name):
                raise InputError(f"--preset {name}={str(value).lower()}: {fault}")

    @property
    def both_hints(self) -> bool:
        """Whether the networks read mask and image, in sampling too."""
        return False

    def stated(self) -> dict[str, Any]:
        """All settings; those that are younger than the oldest runs only where they are set, so that these go on."""
        return {k: v for k, v in super().stated().items() if k not in _YOUNGER or v != _YOUNGER[k]}


_YOUNGER = {"w_i": "linear", "adaptive_w_c": False, "hint_input": "mask"}


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
        fault = "controlnet trains the mask branch alone, without it; leave it out, or take siamese"
        self._refuse_set(("image_branch", "w_i", "w_c", "adaptive_w_c", "online_augmentation", "T_tau"), fault)
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
    return ControlNetConfig(**{**_PLAIN, **values, **changes})
