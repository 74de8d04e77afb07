"""Which weights a folder holds, as a hash of its files: no path but those inside goes into it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from morphogen.foundation.model import PARTS
from morphogen.training.checkpoint import sha256


def files_hash(folder: Path, files: Iterable[Path]) -> str:
    """SHA-256 over the names, relative to `folder`, and contents of files."""
    return hashlib.sha256("".join(f"{f.relative_to(folder)} {sha256(f)}\n" for f in sorted(files)).encode()).hexdigest()


def weights_hash(folder: Path) -> str:
    """SHA-256 over the weights of a foundation's folder."""
    return files_hash(folder, [file for part in PARTS for file in (folder / part).glob("*.safetensors")])
