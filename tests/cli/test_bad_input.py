"""Bad input to `morphogen study`: one line with file and remedy, exit 2, before any training, nothing touched."""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from morphogen.cli import main
from morphogen.data.phantoms import phantom_dataset
from morphogen.study import run


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twelve phantoms of six subjects."""
    phantom_dataset(tmp_path / "data", "mucosa", 12, 32, subjects=6)
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def begun(*_: object, **__: object) -> None:
        raise AssertionError("training has begun")

    monkeypatch.setattr(run, "run_training", begun)


def refused(words: list[str], capsys: pytest.CaptureFixture[str], *parts: str, code: int = 2) -> None:
    """Run the command; it ends with `code` and one line on stderr that holds all `parts`."""
    assert main(words) == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    for part in parts:
        assert part in lines[0]


def first(folder: Path) -> Path:
    return sorted(folder.iterdir())[0]


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises width x height pixels and holds none."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def no_mask(data: Path) -> Path:
    path = first(data / "masks")
    path.unlink()
    return data / "images" / path.name


def other_size(data: Path) -> Path:
    path = first(data / "masks")
    Image.new("L", (31, 32)).save(path)
    return path


def text_file(data: Path) -> Path:
    path = first(data / "images")
    path.write_text("not a picture")
    return path


def truncated(data: Path) -> Path:
    path = first(data / "images")
    path.write_bytes(path.read_bytes()[:400])
    return path


def bomb(data: Path) -> Path:
    path = first(data / "images")
    path.write_bytes(png_header(60_000, 60_000))
    return path


def strange_values(data: Path) -> Path:
    path = first(data / "masks")
    Image.fromarray(np.repeat(np.array([[0, 7, 255, 255]], np.uint8), 32, 0).repeat(8, 1)).save(path)
    return path


def unknown_ids(data: Path) -> Path:
    with (data / "records.csv").open("a") as file:
        file.write("nobody,s1,,\n")
    return data / "records.csv"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (no_mask, ["mask"]),
        (other_size, ["31", "32"]),
        (text_file, []),
        (truncated, []),
        (bomb, ["80 million pixels"]),
        (strange_values, ["0, 7, 255", "--mask-values"]),
        (unknown_ids, ["nobody"]),
    ],
)
def test_spoilt_data(
    spoil: Callable[[Path], Path], words: list[str], data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = spoil(data)
    out = data.parent / "out"
    refused(["study", str(data), "--out", str(out)], capsys, path.name, *words)
    assert not (out / "runs").exists()


def test_strange_values_can_be_stated_where_they_are_refused(data: Path) -> None:
    """The remedy that the error names is one: the same commands take it."""
    strange_values(data)
    rule = ["--mask-values", "0=0,7=0,255=1"]
    assert main(["study", str(data), "--out", str(data.parent / "out"), "--folds", "2", "--dry-run", *rule]) == 0
    assert main(["data", "split", str(data), "--out", str(data.parent / "splits.json"), "--folds", "2", *rule]) == 0


def test_missing_and_empty_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(["study", str(tmp_path / "none"), "--out", str(tmp_path / "o")], capsys, "none")
    (tmp_path / "empty").mkdir()
    refused(["study", str(tmp_path / "empty"), "--out", str(tmp_path / "o")], capsys, "empty")
    assert not (tmp_path / "o").exists()


def test_an_output_folder_with_other_files_stays_as_it_is(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = data.parent / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    refused(["study", str(data), "--out", str(out)], capsys, "out", "--out")
    assert [file.name for file in out.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("generator: siamse", ["siamse"]),
        ("arms: [real, sin]", ["sin"]),
        ("preset: /no/such/foundation\narms: [real-geo, autoencoded]", ["/no/such/foundation"]),
        ("preset: .\narms: [real-geo, autoencoded]", ["model_index.json"]),
        ("preset: someone/model@main\narms: [real-geo, autoencoded]", ["someone/model"]),
        ("presett: tiny", ["presett", "preset"]),
    ],
)
def test_a_yaml_file_with_an_unknown_word_is_named(
    text: str, words: list[str], data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = data.parent / "study.yaml"
    path.write_text(text)
    command = ["study", str(data), "--out", str(data.parent / "out"), "--config", str(path)]
    refused(command, capsys, "study.yaml", *words)
    assert not (data.parent / "out" / "runs").exists()


def test_a_full_disk_is_exit_1(data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    command = ["study", str(data), "--out", str(data.parent / "out")]
    refused(command, capsys, "out", "the disk is full", code=1)
