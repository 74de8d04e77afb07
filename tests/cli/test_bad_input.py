"""Bad input to `morphogen study`: one line with file and remedy, exit 2, before any training, nothing touched."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import sysconfig
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from morphogen.cli import VERBS, main
from morphogen.data import mask_values
from morphogen.data.phantoms import phantom_dataset
from morphogen.study import stages


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twelve phantoms of six subjects."""
    phantom_dataset(tmp_path / "data", "mucosa", 12, 32, subjects=6)
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def begun(*_: object, **__: object) -> None:
        raise AssertionError("training has begun")

    monkeypatch.setattr(stages, "run_training", begun)


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


def truncated_mask(data: Path) -> Path:
    path = first(data / "masks")
    path.write_bytes(path.read_bytes()[:90])
    return path


def text_mask(data: Path) -> Path:
    path = first(data / "masks")
    path.write_text("not a picture")
    return path


def unknown_word(data: Path) -> Path:
    text = (data / "records.csv").read_text().replace("polyp,", "polyp,a dragon and ", 1)
    (data / "records.csv").write_text(text)
    return data


def no_foreground(data: Path) -> Path:
    for path in (data / "masks").iterdir():
        Image.new("L", (32, 32)).save(path)
    return data


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
        (truncated_mask, []),
        (text_mask, []),
        (no_foreground, ["no foreground"]),
        (unknown_word, ["'dragon'", "the caption of mucosa-"]),
    ],
)
def test_spoilt_data(
    spoil: Callable[[Path], Path], words: list[str], data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = spoil(data)
    out = data.parent / "out"
    refused(["study", str(data), "--out", str(out)], capsys, path.name, *words)
    assert not (out / "runs").exists()


@pytest.mark.parametrize("spoil", [no_mask, other_size, text_file, truncated, bomb, strange_values, truncated_mask])
@pytest.mark.parametrize("method", ["unet", "copy-paste", "siamese"])
def test_spoilt_data_of_a_single_training(
    method: str, spoil: Callable[[Path], Path], data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = spoil(data), data.parent / "run"
    refused(["train", method, str(data), "--out", str(out)], capsys, path.name)
    assert not out.exists()


@pytest.mark.parametrize("spoil", [truncated_mask, strange_values])
def test_a_mask_that_was_not_among_those_looked_at_for_their_values(
    spoil: Callable[[Path], Path], data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mask_values, "PIXEL_BUDGET", 1)
    good = first(data / "masks").read_bytes()
    spoil(data).rename(data / "masks" / "mucosa-000005.png")
    (data / "masks" / "mucosa-000000.png").write_bytes(good)  # the one that is looked at
    refused(["study", str(data), "--out", str(data.parent / "out")], capsys, "mucosa-000005.png")


@pytest.mark.parametrize(
    "words", [["--prompt", "a photo of a dragon"], ["--resolution", "50"], ["--preset", "/no/such/foundation"]]
)
def test_what_the_generator_would_refuse_is_refused_before_the_arms_without_it(
    words: list[str], data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = data.parent / "out"
    refused(["study", str(data), "--out", str(out), *words], capsys, words[1])
    assert not out.exists()


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
        ("preset: tini", ["tini"]),
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


def test_a_full_disk_names_the_file_of_any_verb(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Image.Image, "save", full)
    converted, demo = data.parent / "converted", data.parent / "demo"
    refused(["data", "convert", str(data), "--to", "nnunet", "--out", str(converted)], capsys, "converted", code=1)
    assert not converted.exists()
    refused(["demo", "--out", str(demo)], capsys, "mucosa-000000.png", "the disk is full", code=1)
    monkeypatch.setattr(os, "fsync", full)
    run_folder = data.parent / "run"
    refused(
        ["train", "unet", str(data), "--out", str(run_folder), "--encoder", "scratch"], capsys, "config.yaml", code=1
    )
    assert not list(run_folder.iterdir())


def test_an_output_folder_that_is_a_file(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = data.parent / "thesis.txt"
    out.write_text("mine")
    pretraining = ["pretrain", str(data), "--out", str(out), "--autoencoder-steps", "1", "--denoiser-steps", "1"]
    for words in (
        ["study", str(data), "--out", str(out)],
        ["train", "unet", str(data), "--out", str(out)],
        pretraining,
    ):
        refused(words, capsys, "thesis.txt", "file")
    refused(["demo", "--out", str(out)], capsys, "thesis.txt", "file")
    assert out.read_text() == "mine"


@pytest.mark.parametrize("held", ["final/generator.json", "study.yaml"])
def test_pretraining_refuses_the_folder_of_another_run(
    held: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = data.parent / "out"
    (out / held).parent.mkdir(parents=True)
    (out / held).write_text("mine")
    refused(["pretrain", str(data), "--out", str(out)], capsys, "out", "--out")
    assert [path for path in out.rglob("*") if path.is_file()] == [out / held]


def test_a_test_set_with_its_classes_in_another_order(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, classes in (("ours", "background\npolyp\ntool\n"), ("theirs", "background\ntool\npolyp\n")):
        phantom_dataset(data.parent / name, "mucosa", 12, 32, subjects=6, seed=7 if name == "ours" else 8)
        for path in (data.parent / name / "masks").iterdir():
            mask = np.array(Image.open(path)) // 255
            mask[0, 0] = 2
            Image.fromarray(mask).save(path)
        (data.parent / name / "classes.txt").write_text(classes)
    words = ["study", str(data.parent / "ours"), "--out", str(data.parent / "out"), "--generator", "copy-paste"]
    refused([*words, "--test", f"k={data.parent / 'theirs'}"], capsys, "theirs", "'polyp'", "classes.txt")


def test_the_rule_for_mask_values_reads_the_test_sets_too(data: Path) -> None:
    phantom_dataset(data.parent / "theirs", "mucosa", 6, 32, subjects=3, seed=8)
    strange_values(data.parent / "theirs")
    words = ["study", str(data), "--out", str(data.parent / "out"), "--folds", "2", "--dry-run"]
    test = ["--test", f"k={data.parent / 'theirs'}"]
    assert main([*words, *test]) == 2
    assert main([*words, *test, "--mask-values", "0=0,7=0,255=1"]) == 0


def test_white_masks_of_three_declared_classes_are_no_guess(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "classes.txt").write_text("background\npolyp\ntool\n")
    refused(["study", str(data), "--out", str(data.parent / "out")], capsys, "0, 255", "--mask-values 0=0,255=1")


def test_the_division_is_not_written_over_by_nnunets(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(["data", "split", str(data), "--out", str(data / "splits_final.json")], capsys, "splits_final.json")
    assert not (data / "splits_final.json").exists()


def test_json_goes_through_a_link(data: Path) -> None:
    target, link = data.parent / "target.json", data.parent / "link.json"
    target.write_text("old")
    link.symlink_to(target)
    assert main(["models", "--json", str(link)]) == 0
    assert link.is_symlink()
    assert target.read_text().startswith("{")


MISSING = {
    "demo": "--out {file}/demo",
    "study": "{gone} --out {out}",
    "compare": "{gone} --out {out}",
    "data check": "{gone}",
    "data split": "{gone} --out {out}/splits.json",
    "data convert": "{gone} --to nnunet --out {out}",
    "pretrain": "{gone} --out {out}",
    "train": "unet {gone} --out {out}",
    "sample": "{gone} --out {out}",
    "predict": "{gone} {gone} --out {out}",
    "eval masks": "{gone} {gone}",
    "eval images": "{gone} {gone}",
    "eval classes": "{gone} {gone}",
    "audit": "{gone} {gone}",
    "rate": "{gone} {gone} --out {out}",
    "report": "{gone}",
    "import-weights": "{gone} --out {out}",
    "models": "--json {gone}/models.json",
}


@pytest.mark.parametrize("verb", VERBS)
def test_the_installed_command_ends_with_one_line_and_exit_2(verb: str, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    places = {"gone": tmp_path / "gone", "file": tmp_path / "thesis.txt", "out": tmp_path / "out"}
    command = Path(sysconfig.get_path("scripts")) / "morphogen"
    words = [*verb.split(), *MISSING[verb].format(**places).split()]
    done = subprocess.run([command, *words], capture_output=True, text=True, timeout=120)
    lines = done.stderr.strip().splitlines()
    assert (done.returncode, len(lines)) == (2, 1), done.stderr
    assert "gone" in lines[0] or "thesis.txt" in lines[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["thesis.txt"]
