"""Pretrained encoders: a local safetensors file or a hub id at a pinned revision, matched key for key."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from torch import Tensor, nn

from morphogen.errors import InputError
from morphogen.hub import hub_folder, is_hub_id

NONE = "none"
"""The value of an option ``weights`` that asks for a random start."""
IMAGENET = "imagenet"
"""The value that asks for the encoder's published weights."""
FILE = "model.safetensors"
Names = str | tuple[str, ...] | None


def check_encoder(segmenter: str, size: str, sizes: Sequence[str], weights: str) -> None:
    """Refuse the options of an encoder that cannot be, before anything is loaded.

    Raises:
        InputError: There is no such size, or `weights` names nothing.
    """
    if size not in sizes:
        raise InputError(f"{segmenter}: has no size {size!r}; choose one of {', '.join(sizes)}")
    if not isinstance(weights, str) or not weights:
        raise InputError(f"{segmenter}: weights {weights!r}: give {IMAGENET}, {NONE}, a file, folder or hub id")


def weights_file(name: str) -> Path:
    """The local file behind `name`.

    Args:
        name: A safetensors file, a folder with model.safetensors, or a hub id (``owner/name@revision``), which is
            downloaded unless the hub's cache holds it.

    Raises:
        InputError: There is no such file, or the hub cannot be reached.
    """
    path = Path(name)
    if path.is_dir():
        path = path / FILE
    if path.is_file():
        return path
    if not is_hub_id(name):
        raise InputError(
            f"{name}: no such weights; give a safetensors file, a folder with {FILE}, a hub id as owner/name@revision, "
            f"or {NONE} for a random start"
        )
    remedy = (
        "download it where there is a network and give its folder as the segmenter's option weights=FOLDER "
        f"(train: --preset weights=FOLDER), or start with weights={NONE}"
    )
    path = hub_folder(name, [FILE], remedy) / FILE
    if not path.is_file():
        raise InputError(f"{name}: that model has no {FILE}; name one that has, or start with weights={NONE}")
    return path


def load_encoder(
    encoder: nn.Module, file: Path, rename: Callable[[str], Names] = lambda key: key, ignore: Collection[str] = ()
) -> None:
    """Load an encoder's weights in place, every tensor by its name.

    Args:
        encoder: What is loaded.
        file: A safetensors file.
        rename: The encoder's name of a key in the file; None for a part that the encoder does not have (a classifier);
            several for a tensor that holds as many of the encoder's, one after another along its first axis.
        ignore: Keys of the encoder that the file may lack (counters of batch norm).

    Raises:
        InputError: The file is damaged, a key is missing or unknown, or a tensor has another shape.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        read = load_file(file)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{file}: is no whole safetensors file; download it again") from error
    found = {name: part for key, tensor in read.items() for name, part in _parts(rename(key), tensor)}
    wanted = encoder.state_dict()
    fault = _fault(found, wanted, ignore)
    if fault:
        raise InputError(f"{file}: is not this encoder ({fault}); give weights of the same architecture and size")
    encoder.load_state_dict(found, strict=False)


def _parts(names: Names, tensor: Tensor) -> list[tuple[str, Tensor]]:
    if isinstance(names, str):
        return [(names, tensor)]
    return list(zip(names, tensor.chunk(len(names)), strict=False)) if names else []


def _fault(found: dict[str, Tensor], wanted: dict[str, Tensor], ignore: Collection[str]) -> str:
    for name, tensor in wanted.items():
        if name not in found:
            if name not in ignore:
                return f"it lacks {name}"
        elif found[name].shape != tensor.shape:
            return f"{name} is {tuple(found[name].shape)}, not {tuple(tensor.shape)}"
    unknown = sorted(found.keys() - wanted.keys())
    return f"it holds {unknown[0]} too" if unknown else ""
