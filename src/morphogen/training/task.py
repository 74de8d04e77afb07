"""What a method tells the training loop about itself, and what the loop tells a method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from morphogen.errors import InputError

Batch = dict[str, Any]
"""One batch of this process: tensors of leading size B, among them ``seed`` (B,) int64, the per-sample seeds."""


@dataclass(frozen=True)
class Progress:
    """Where training stands. `step` counts from 0; `fraction` is step / max_steps in [0, 1)."""

    step: int
    max_steps: int

    @property
    def fraction(self) -> float:
        return self.step / self.max_steps


@dataclass(frozen=True)
class Group:
    """Some parameters of a phase that are trained in their own way.

    Attributes:
        parameters: Which.
        lr_scale: Factor on the phase's learning rate.
        weight_decay: In place of the phase's.
    """

    parameters: Sequence[nn.Parameter]
    lr_scale: float = 1.0
    weight_decay: float = 1e-2


@dataclass(frozen=True)
class Phase:
    """One optimiser and the loss that it follows.

    Attributes:
        name: Prefix of the logged scalars where a task has more than one phase.
        parameters: What this phase updates.
        loss: ``loss(batch, progress)`` -> named scalars, each already the mean over this process's rows; they are
            summed, except those whose name begins with ``log/``, which are only logged.
        lr: Learning rate after the warm-up.
        weight_decay: AdamW's decoupled weight decay; SGD's L2 penalty.
        betas: AdamW's betas; SGD's momentum is the first.
        every: The phase runs on every `every`-th step.
        schedule: Key of `optim.SCHEDULES`, after `warmup` steps of linear growth.
        warmup: Warm-up steps.
        groups: `parameters` in parts that are trained differently; one part where empty.
        max_grad_value: Each element of the gradient is cut to this size, before its norm is; 0 switches that off.
    """

    name: str
    parameters: Sequence[nn.Parameter]
    loss: Callable[[Batch, Progress], Mapping[str, Tensor]]
    lr: float = 1e-4
    weight_decay: float = 1e-2
    betas: tuple[float, float] = (0.9, 0.999)
    every: int = 1
    schedule: str = "constant"
    warmup: int = 0
    groups: Sequence[Group] = ()
    max_grad_value: float = 0.0


@dataclass(frozen=True)
class Draw:
    """One position of a global batch: which item, and the seed of everything random about it."""

    index: int
    seed: int


class Task(Protocol):
    """A trainable method. The loop owns devices, precision, EMA, clipping, checkpoints, resume, previews and logs."""

    modules: nn.ModuleDict
    """Everything that is saved in a checkpoint; frozen parts that can be loaded again stay out of it."""

    def __len__(self) -> int:
        """Number of training items."""
        ...

    def phases(self) -> Sequence[Phase]: ...

    def batch(self, draws: Sequence[Draw]) -> Batch:
        """Load the items of `draws`, augmented by their seeds, on the CPU; includes ``seed``."""
        ...

    def to(self, device: Any) -> None:
        """Move frozen parts that are not in `modules` to `device`."""
        ...

    def preview(self, step: int, folder: Path) -> None:
        """Write preview pictures into `folder`; may do nothing."""
        ...

    def validate(self, step: int) -> Mapping[str, float]:
        """Scalars on the validation part, maybe none; the highest ``score`` among them selects ``best``."""
        ...

    def save(self, folder: Path) -> None:
        """Write the final artefact (safetensors + JSON) from what the modules hold now (EMA where used)."""
        ...


OPTIMIZERS = ("adamw", "adamw8bit", "sgd")


@dataclass(frozen=True)
class LoopConfig:
    """How to train, whatever is trained. The words are those of the diffusers scripts."""

    max_train_steps: int = 1000
    train_batch_size: int = 16
    """Global batch: rows per optimiser step over all processes and accumulation steps."""
    gradient_accumulation_steps: int = 1
    mixed_precision: str = "no"
    """no, bf16 or fp16."""
    optimizer: str = "adamw"
    """adamw; adamw8bit: moments in 8 bits (Dettmers et al. 2022), by bitsandbytes; or sgd with Nesterov's momentum."""
    max_grad_norm: float = 1.0
    """0 switches clipping off."""
    ema_decay: float = 0.0
    """0 switches the moving average off."""
    seed: int = 0
    checkpointing_steps: int = 500
    checkpoints_total_limit: int = 2
    validation_steps: int = 0
    """0: previews and validation at the end only."""
    report_to: tuple[str, ...] = ()
    """accelerate's trackers (tensorboard, wandb, ...) beside metrics.jsonl, which is always written."""
    keep_best: bool = field(default=False)
    """Keep the weights of the best validation score beside the last ones; `save` then takes the best."""
    keep_last: bool = False
    """Write what the last step left, too: into the run's ``last``, where ``final`` has the best."""

    def __post_init__(self) -> None:
        """Refuse what cannot be, before a run folder is made.

        Raises:
            InputError: A number that is not positive, an unknown precision, more parts than rows.
        """
        for name in ("max_train_steps", "train_batch_size", "gradient_accumulation_steps", "checkpointing_steps"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be positive")
        if self.mixed_precision not in ("no", "bf16", "fp16"):
            raise InputError(f"--mixed-precision {self.mixed_precision}: choose no, bf16 or fp16")
        if self.optimizer not in OPTIMIZERS:
            raise InputError(f"--optimizer {self.optimizer}: choose {' or '.join(OPTIMIZERS)}")
        if self.optimizer == "adamw8bit" and find_spec("bitsandbytes") is None:
            raise InputError("--optimizer adamw8bit: bitsandbytes is not installed; run pip install bitsandbytes")
        if self.train_batch_size < self.gradient_accumulation_steps:
            parts = self.gradient_accumulation_steps
            raise InputError(f"--train-batch-size {self.train_batch_size}: fewer rows than {parts} parts; raise it")
