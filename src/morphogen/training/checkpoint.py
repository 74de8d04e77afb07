"""Checkpoints that are either whole or absent: written beside, fsynced, renamed, verified; only then do old ones go."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from morphogen.errors import WorkError

_DONE = "complete.json"


def save_checkpoint(
    folder: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]
) -> Path:
    """Write ``folder/step-XXXXXXXX``.

    Args:
        folder: The run's ``checkpoints`` folder.
        step: Optimiser steps done.
        tensors: File stem -> named tensors; each becomes one safetensors file.
        state: JSON values (counters, scores).

    Raises:
        WorkError: The disk is full, or the written files do not verify. Earlier checkpoints are intact.
    """
    final = folder / f"step-{step:08d}"

    def write(temporary: Path) -> None:
        for stem, named in tensors.items():
            _save_tensors(temporary / f"{stem}.safetensors", named)
        (temporary / "state.json").write_text(json.dumps({"step": step, **state}, indent=1))
        hashes = {path.name: sha256(path) for path in sorted(temporary.iterdir())}
        (temporary / _DONE).write_text(json.dumps(hashes, indent=1))

    write_folder(final, write)
    if not verify(final):
        raise WorkError(f"{final}: does not read back as written; check the disk and run the same command again")
    return final


def load_checkpoint(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Tensors by file stem, and the JSON state."""
    tensors = {file.stem: load_file(file) for file in sorted(path.glob("*.safetensors"))}
    return tensors, json.loads((path / "state.json").read_text())


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that verifies, or None."""
    found = sorted((p for p in folder.glob("step-*") if p.is_dir() and p.suffix != ".tmp"), reverse=True)
    return next((path for path in found if verify(path)), None)


def prune(folder: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints, and what an interrupted write left behind."""
    found = sorted(p for p in folder.glob("step-*") if p.is_dir() and p.suffix != ".tmp")
    for path in [*found[:-keep], *folder.glob("*.tmp")]:
        shutil.rmtree(path, ignore_errors=True)


def verify(path: Path) -> bool:
    """Whether every file of a checkpoint is there with the hash that was noted when it was written."""
    try:
        hashes = json.loads((path / _DONE).read_text())
        return all(sha256(path / name) == value for name, value in hashes.items())
    except (OSError, ValueError):
        return False


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_folder(final: Path, write: Any) -> None:
    """Fill a folder through ``write(temporary folder)`` so that `final` appears whole or not at all.

    Raises:
        WorkError: The disk is full; `final` is as it was.
    """
    temporary = final.with_name(final.name + ".tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        write(temporary)
        for path in temporary.rglob("*"):
            _fsync(path)
        _fsync(temporary)
        if final.exists():
            shutil.rmtree(final)
        os.replace(temporary, final)
        _fsync(final.parent)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if _disk_is_full(error):
            raise WorkError(f"{final}: the disk is full; free some space and run the same command again") from error
        raise


def _disk_is_full(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    # safetensors has an error of its own, with the number of the system's error in its text
    return any(f"(os error {number})" in str(error) for number in (errno.ENOSPC, errno.EDQUOT))


def _save_tensors(path: Path, named: Mapping[str, Tensor]) -> None:
    # safetensors refuses shared and strided storage; a checkpoint is a plain copy of the values.
    save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in named.items()}, path)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
