"""The trained generator on disk: one file a training image with all scales of it, and generator.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from morphogen.errors import InputError
from morphogen.foundation.identity import files_hash
from morphogen.generators.singan_seg.config import SinganConfig
from morphogen.generators.singan_seg.networks import Generator
from morphogen.generators.singan_seg.pyramid import Scale, width
from morphogen.training.checkpoint import sha256

INFO = "generator.json"
_Z_STAR, _AMPLITUDES = "z_star", "amplitudes"


@dataclass(frozen=True)
class Trained:
    """A generator as it samples; the models are read when they are wanted, as there may be many.

    Attributes:
        folder: Holds them.
        files: Name of the file of every model -> its SHA-256.
        labels: Class of the training image of every model, or None.
        classes: Class names by label id of the masks.
        config: Its settings.
        hash: Of weights and settings.
    """

    folder: Path
    files: dict[str, str]
    labels: tuple[str | None, ...]
    classes: tuple[str, ...]
    config: SinganConfig
    hash: str


@dataclass(frozen=True)
class Model:
    """All scales of one image, the coarsest first, and z*, its fixed noise (1, 1, side, side)."""

    scales: tuple[Scale, ...]
    z_star: Tensor


def save_model(folder: Path, index: int, scales: Sequence[Scale], z_star: Tensor) -> None:
    """Write the model of one image."""
    tensors = {
        f"{n}.{name}": tensor.detach().cpu()
        for n, scale in enumerate(scales)
        for name, tensor in scale.generator.state_dict().items()
    }
    amplitudes = torch.tensor([scale.amplitude for scale in scales], dtype=torch.float64)
    save_file({**tensors, _Z_STAR: z_star, _AMPLITUDES: amplitudes}, folder / _name(index))


def save_info(folder: Path, labels: Sequence[str | None], classes: Sequence[str], config: SinganConfig) -> None:
    """Write what is known beside the models, which are there."""
    info = {
        "generator": config.method,
        "classes": list(classes),
        "labels": list(labels),
        "files": {_name(k): sha256(folder / _name(k)) for k in range(len(labels))},
        "config": asdict(config),
    }
    (folder / INFO).write_text(json.dumps(info, indent=1) + "\n")


def load(folder: Path) -> Trained:
    """A trained generator.

    Raises:
        InputError: The folder is not whole.
    """
    try:
        info: dict[str, Any] = json.loads((folder / INFO).read_text())
        config, files = SinganConfig(**info["config"]), dict(info["files"])
        labels, classes = tuple(info["labels"]), tuple(info["classes"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(folder / INFO, error) from error
    if missing := next((name for name in files if not (folder / name).is_file()), None):
        raise InputError(f"{folder / missing}: is missing; train the generator again")
    return Trained(folder, files, labels, classes, config, files_hash(folder, [folder / INFO]))


def load_model(trained: Trained, index: int, device: str | torch.device = "cpu") -> Model:
    """The model of one training image, ready to sample.

    Raises:
        InputError: Its file is damaged.
    """
    path = trained.folder / _name(index)
    try:
        content = load_file(path) if sha256(path) == trained.files[path.name] else {}
        z_star, amplitudes = content.pop(_Z_STAR), content.pop(_AMPLITUDES).tolist()
    except (OSError, SafetensorError, KeyError) as error:
        raise _damaged(path, error) from error
    scales = []
    for n, amplitude in enumerate(amplitudes):
        generator = Generator(width(n))
        generator.load_state_dict({k.removeprefix(f"{n}."): v for k, v in content.items() if k.startswith(f"{n}.")})
        scales.append(Scale(generator.to(device).eval().requires_grad_(False), amplitude))
    return Model(tuple(scales), z_star.to(device))


def _name(index: int) -> str:
    return f"model-{index:04d}.safetensors"


def _damaged(path: Path, error: Exception) -> InputError:
    line = " ".join(str(error).split())[:200]
    return InputError(f"{path}: is damaged ({line}); train the generator again")
