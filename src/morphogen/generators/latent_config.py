"""Settings that every generator on a latent diffusion foundation has, and one-line refusals of what cannot be."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, NamedTuple

from morphogen.errors import InputError


class Limit(NamedTuple):
    """The numbers that an option takes (never nan or infinity), and what is said of others."""

    words: str
    takes: Callable[[float], bool]


POSITIVE = Limit("must be positive", lambda value: 0 < value < math.inf)
AT_LEAST_ONE = Limit("must be 1 or more", lambda value: 1 <= value < math.inf)
NOT_NEGATIVE = Limit("must be 0 or more", lambda value: 0 <= value < math.inf)
STEPS_OR_NONE = Limit("is negative; give 0 for none", lambda value: 0 <= value < math.inf)
SHARE = Limit("must lie between 0 and 1", lambda value: 0 <= value <= 1)
BELOW_ONE = Limit("must lie in 0 to 1, 1 excluded", lambda value: 0 <= value < 1)


def flag(option: str) -> str:
    """How an error names an option."""
    return f"--{option.replace('_', '-')}"


@dataclass(frozen=True, kw_only=True)
class LatentConfig:
    """What all of these generators can be told. A method declares again what it has another default or meaning for."""

    method: ClassVar[str]
    """Name in the table of generators."""
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "lr_scheduler": ("constant", "cosine"),
        "mixed_precision": ("no", "bf16", "fp16"),
        "solver": ("dpm", "ddim"),
    }
    """Option -> its words; a method adds its own."""
    limits: ClassVar[Mapping[str, Limit]] = {
        **dict.fromkeys(("adapt_steps", "lr_warmup_steps", "validation_steps"), STEPS_OR_NONE),
        **dict.fromkeys(("max_train_steps", "train_batch_size", "gradient_accumulation_steps"), POSITIVE),
        **dict.fromkeys(("lr", "sampling_steps", "checkpointing_steps"), POSITIVE),
        **dict.fromkeys(("resolution", "weight_decay", "max_grad_norm", "guidance", "seed"), NOT_NEGATIVE),
        "ema_decay": BELOW_ONE,
    }
    """Option -> its numbers; a method adds its own."""

    foundation: str = "tiny"
    """tiny, a diffusers folder, or a hub id (owner/name@revision)."""
    adapt_steps: int | None = None
    """Steps of fine-tuning the foundation on the training images first, the autoencoder's decoder and the denoiser for
    so many each; 0 for none. By default, on a foundation that `pretrain` made, 200 for the decoder, and 300 for the
    denoiser where the images are far from what it was made of."""
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
    lr: float = 2e-4
    """AdamW's learning rate."""
    lr_scheduler: str = "constant"
    """constant, or cosine, down to 0 at the last step."""
    lr_warmup_steps: int = 0
    """Steps in which the learning rate grows from 0."""
    weight_decay: float = 1e-2
    """AdamW's weight decay."""
    max_grad_norm: float = 1.0
    """Bound on the gradient's norm; 0 is none."""
    mixed_precision: str = "no"
    """no, bf16 or fp16 (autocast; the weights stay in fp32)."""
    gradient_checkpointing: bool = False
    """Keep no activations inside the blocks that the gradient passes: less memory, a third more time."""
    ema_decay: float = 0.0
    """Moving average of the trained weights; 0 is off."""
    solver: str = "dpm"
    """Sampler: dpm (DPM-Solver++ 2M) or ddim (eta 0)."""
    sampling_steps: int = 15
    """Steps of the sampler."""
    guidance: float = 2.5
    """Classifier-free guidance of the text; what else is read (mask, hole and masked image) is given to both."""
    checkpointing_steps: int = 200
    """Steps between checkpoints."""
    validation_steps: int = 0
    """Steps between previews of eight rows; 0 for one at the end."""
    seed: int = 0
    """Of everything random."""

    def __post_init__(self) -> None:
        """Refuse unknown words and numbers out of range before a run folder is made.

        Raises:
            InputError: An option has none of its values.
        """
        for name, choices in self.choices.items():
            if getattr(self, name) not in choices:
                raise InputError(f"{flag(name)} {getattr(self, name)}: choose {' or '.join(choices)}")
        for name, limit in self.limits.items():
            value = getattr(self, name)
            if value is not None and not limit.takes(value):
                raise InputError(f"{flag(name)} {value:g}: {limit.words}")

    def stated(self) -> dict[str, Any]:
        """All settings, as generator.json has them: in one order for good, since a run is known by that file's bytes.

        The method's own ones stand behind `adapt_steps`, but for those of `_BEHIND`.
        """
        values, last = asdict(self), "adapt_steps"
        order = [field.name for field in fields(LatentConfig)]
        for name in values:
            if name not in order:
                order.insert(order.index(_BEHIND.get(name, last)) + 1, name)
                last = last if name in _BEHIND else name
        return {name: values[name] for name in order}


_BEHIND = {
    "layout": "foundation", "optimizer": "gradient_accumulation_steps", "conv_lr": "lr", "strength": "guidance",
    "keep_known": "strength", "hint_input": "seed",
}  # fmt: skip
