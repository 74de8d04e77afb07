"""How much memory a step takes, found without taking it: the step runs on tensors that have a shape and no content."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

GB = 1e9
USABLE, CONTEXT = 0.92, 0.8 * GB
"""Share of a device's memory that fragments leave, and what the driver's context takes of a GPU."""
BYTES_A_MOMENT = {"adamw": 8.0, "adamw8bit": 2.03}
"""Of AdamW's two moments, per trained parameter; in 8 bits with a scale for each block of 256."""


@dataclass(frozen=True)
class Need:
    """Bytes of memory: for one row, and for each further one."""

    first: float
    further: float

    def rows(self, memory: float) -> int:
        """How many rows fit."""
        return 0 if self.first > memory else 1 + int((memory - self.first) / self.further)


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of what is made within it and not yet freed; `peak` is the most at any time.

    Args:
        there: Tensors that are there already, and whose views are therefore nothing new.
    """

    def __init__(self, there: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._there = [tensor.untyped_storage() for tensor in there]
        self._known: set[int] = {storage._cdata for storage in self._there}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def without_content(module: nn.Module) -> list[Tensor]:
    """Put tensors that claim to lie on the CPU into a module that was made on the meta device; returns them.

    To be called under `FakeTensorMode`, whose tensors have no content either but run as on the CPU, with autocast.
    """
    made: list[Tensor] = []
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None and parameter.is_meta:
                part._parameters[name] = nn.Parameter(
                    torch.empty(parameter.shape, dtype=parameter.dtype), requires_grad=parameter.requires_grad
                )
        for name, buffer in part._buffers.items():
            if buffer is not None and buffer.is_meta:
                part._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)
        made += [t for t in (*part._parameters.values(), *part._buffers.values()) if t is not None]
    return made


def peak_of_step(losses: Callable[[], Tensor], weights: Sequence[Tensor], mixed_precision: str) -> int:
    """Bytes at the peak of one forward and backward pass beside the weights; gradients count as there from the start.

    Args:
        losses: Makes the scalar loss; called within autocast, on networks that were made under `FakeTensorMode`.
        weights: Parameters and buffers; those that require gradients get them.
        mixed_precision: no, bf16 or fp16.
    """
    dtype = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}[mixed_precision]
    with PeakMemory(weights) as memory:
        for parameter in weights:
            if parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter)
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            loss = losses()
        loss.backward()
    return memory.peak


def usable_memory(device: torch.device) -> float:
    """Bytes that a training may take on this device; processes on one CPU share its memory."""
    if device.type == "cuda":
        return USABLE * torch.cuda.get_device_properties(device).total_memory - CONTEXT
    import psutil

    return USABLE * psutil.virtual_memory().total / int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - CONTEXT
