"""Writing a file so that a reader sees the old one or the new one, whenever the power goes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from morphogen.errors import InputError


def refuse_file(out: Path) -> None:
    """Refuse an output folder that is a file, or would lie in one.

    Raises:
        InputError: It is.
    """
    for path in (out, *out.parents):
        if path.exists():
            if not path.is_dir():
                raise InputError(f"{path}: is a file; name a folder for --out")
            return


def refuse_unwritable(out: Path) -> None:
    """Refuse an output folder that is a file, would lie in one, or cannot be written, before any work for it.

    Raises:
        InputError: It is.
    """
    refuse_file(out)
    nearest = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(f"{nearest}: cannot be written by this user; make it writable, or name another --out")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Give an OSError of the block the name of the file that it is about; those of a full disk have none."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` beside `path`, flush it to the disk, then rename it into place.

    Raises:
        OSError: The disk is full or the folder cannot be written; carries the file name, and `path` is untouched.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_text(path: Path, text: str) -> None:
    """`write_bytes` in UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """`write_bytes` of indented JSON; paths become text and numpy scalars numbers.

    What is no plain file (a pipe, a device, a link) is written through, not replaced.

    Raises:
        ValueError: A value is NaN or infinite, which JSON cannot hold.
    """
    text = json.dumps(value, indent=1, allow_nan=False, default=_plain) + "\n"
    if path.is_symlink() or (path.exists() and not path.is_file()):
        with naming(path):
            path.write_text(text, encoding="utf-8")
    else:
        write_text(path, text)


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # numpy scalars and arrays, without importing numpy
        return value.tolist()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return str(value)
