"""Atomic writing."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from morphogen.errors import InputError
from morphogen.files import refuse_unwritable, write_bytes, write_json, write_text


def test_json_holds_paths_sets_and_numpy_numbers(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"p": Path("x/y"), "f": np.float64(0.5), "v": np.arange(2), "s": {"b", "a"}})
    assert json.loads((tmp_path / "a.json").read_text()) == {"p": "x/y", "f": 0.5, "v": [0, 1], "s": ["a", "b"]}


def test_a_number_that_json_cannot_hold_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}


def test_a_full_disk_leaves_the_old_file_and_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as raised:
        write_bytes(path, b"new")
    assert raised.value.errno == errno.ENOSPC
    assert raised.value.filename == str(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_unwritable(tmp_path / "new" / "deep")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file: is a file; name a folder"):
        refuse_unwritable(tmp_path / "file" / "out")
    access = os.access  # nothing is denied to root, as whom tests may run
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path and access(path, mode))
    with pytest.raises(InputError, match=f"^{tmp_path}: cannot be written by this user; make it writable") as caught:
        refuse_unwritable(tmp_path / "new" / "deep")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists()
