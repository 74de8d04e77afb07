"""Encodings that are kept between runs under the hash of what they follow from; every file can be deleted."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from morphogen.files import write_bytes
from morphogen.training.processes import processes

VARIABLE = "MORPHOGEN_CACHE"
"""Environment variable: a folder that runs share, and that stays. Without it a run keeps its encodings to itself."""


def cache_of(run: Path) -> Path:
    """The folder of encodings for a run: the shared one, or its own, which `forget` removes with its end."""
    return Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else run / "cache"


def forget(run: Path) -> None:
    """Remove the run's own encodings: they are as good as the images that they were made of."""
    if processes().is_main_process:
        shutil.rmtree(run / "cache", ignore_errors=True)


def cached(
    folder: Path | None, content: Iterable[str | NDArray[np.uint8] | nn.Module], make: Callable[[], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """What `make` gives, read from `folder` where it has been made of the same `content` before.

    Of several processes the main one makes it, and the others read it.

    Args:
        folder: Where to look and to keep it; None: nowhere.
        content: All that the result depends on: texts, arrays (with their shape), and modules (by their weights).
        make: Named tensors, on the CPU.
    """
    if folder is None:
        return make()
    path = folder / f"{_digest(content)}.safetensors"
    with processes().main_process_first():
        try:
            return load_file(path)
        except (FileNotFoundError, SafetensorError):  # not there, or damaged
            made = {name: tensor.contiguous() for name, tensor in make().items()}
            folder.mkdir(parents=True, exist_ok=True)
            write_bytes(path, save(made))
            return made


def _digest(content: Iterable[str | NDArray[np.uint8] | nn.Module]) -> str:
    found = hashlib.sha256()
    for part in content:
        named: Iterable[tuple[str, NDArray[np.generic]]]
        if isinstance(part, str):
            named = [("text", np.frombuffer(part.encode(), dtype=np.uint8))]
        elif isinstance(part, nn.Module):
            named = ((name, t.detach().float().cpu().numpy()) for name, t in sorted(part.state_dict().items()))
        else:
            named = [("array", part)]
        for name, array in named:
            found.update(f"{name} {array.dtype} {array.shape}\n".encode())
            found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()
