"""What is known of the pairs in an output folder: one JSON line each, checked against the files by SHA-256."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from morphogen.errors import InputError
from morphogen.files import refuse_unwritable, write_json, write_text

Row = dict[str, Any]
MERGED = "manifest.jsonl"
"""Written when every pair of the plan is there."""
CLAIM = "run.json"
"""Says whose folder it is."""


def encode_png(array: np.ndarray) -> bytes:
    """PNG of an (H, W) or (H, W, 3) uint8 or (H, W) uint16 array; it holds pixels and nothing else."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    return buffer.getvalue()


def write_file(path: Path, content: bytes) -> None:
    """Write beside and rename, so that `path` never holds half of it.

    Unlike `morphogen.files.write_bytes` it does not wait for the disk (a file lost with the power fails its SHA-256
    and is made again), and the name beside is fixed, so that the next run takes up what a killed one left there.
    """
    beside = path.with_name(f".{path.name}.tmp")
    try:
        beside.write_bytes(content)
        os.replace(beside, path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def file_name(part: str, id_: str) -> str:
    """The file of one part (``image`` or ``mask``) of a pair, relative to the output folder."""
    return f"{part}s/{id_}.png"


def verifies(out: Path, row: Row, parts: Sequence[str]) -> bool:
    """Whether the files of the row are there with the bytes that the row states."""
    try:
        return all(
            hashlib.sha256((out / file_name(part, row["id"])).read_bytes()).hexdigest() == row["sha256"][part]
            for part in parts
        )
    except (OSError, KeyError, TypeError):
        return False


def append_rows(path: Path, rows: Iterable[Row]) -> None:
    """Append rows; a line torn by a kill is closed first, and readers pass over it."""
    text = "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows)
    with path.open("ab") as file:
        if file.tell() and not _ends_line(path):
            text = "\n" + text
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def read_rows(out: Path) -> dict[str, Row]:
    """Rows of all workers by id, from ``manifest-*.jsonl`` and ``manifest.jsonl``.

    The merged file is read last: a worker that merges writes it before it removes the others.
    """
    rows: dict[str, Row] = {}
    for path in [*sorted(out.glob("manifest-*.jsonl")), out / MERGED]:
        try:
            lines = path.read_text().splitlines()
        except FileNotFoundError:
            continue
        for line in lines:
            row = _parse(line)
            if row is not None:
                rows[row["id"]] = row
    return rows


def is_whole(out: Path) -> bool:
    """Whether the run was merged, and every pair still has the bytes that its row states."""
    path = out / MERGED
    rows = [_parse(line) for line in path.read_text().splitlines()] if path.exists() else []
    return bool(rows) and all(row is not None and verifies(out, row, tuple(row["sha256"])) for row in rows)


def merge(out: Path, rows: Mapping[str, Row]) -> Path:
    """Write ``manifest.jsonl``, sorted by id, then remove the workers' files."""
    path = out / MERGED
    write_text(path, "".join(json.dumps(rows[i], sort_keys=True) + "\n" for i in sorted(rows)))
    for part in out.glob("manifest-*.jsonl"):
        part.unlink(missing_ok=True)
    return path


def claim_folder(out: Path, identity: Mapping[str, Any]) -> None:
    """Make `out` the folder of the run that `identity` describes, or find that it is already.

    Raises:
        InputError: `out` holds another run, or something else.
    """
    path = out / CLAIM
    refuse_unwritable(out)
    if path.exists():
        if _parse_object(path.read_text()) != dict(identity):
            raise InputError(f"{out}: holds another sampling run; choose another --out or remove the folder")
    elif out.exists() and any(not entry.name.startswith(".run.json.") for entry in out.iterdir()):
        # Several workers may start at once: the other one's run.json can have come between the two looks.
        if not path.exists():
            raise InputError(f"{out}: holds other files; choose an empty folder with --out")
        claim_folder(out, identity)
    else:
        out.mkdir(parents=True, exist_ok=True)
        write_json(path, identity)


def _ends_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _parse_object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _parse(line: str) -> Row | None:
    row = _parse_object(line)
    return row if row is not None and isinstance(row.get("id"), str) else None
