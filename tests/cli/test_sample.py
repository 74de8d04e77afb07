"""``morphogen sample``: what a generator needs, and how the command fails."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from morphogen.cli import main
from morphogen.data.phantoms import phantom_dataset
from morphogen.data.readers import read_dataset
from morphogen.generators.copy_paste.model import CopyPasteConfig, train


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/ and a trained run/."""
    root = tmp_path_factory.mktemp("sample")
    train(phantom_dataset(root / "data", "mucosa", 3, 32), CopyPasteConfig(resolution=32), root / "run")
    return root


def _sample(folder: Path, *words: str | Path) -> int:
    return main(["sample", str(folder / "run"), *map(str, words)])


def test_shards_together_make_the_whole(folder: Path, tmp_path: Path) -> None:
    words = ("--masks", folder / "data", "--per-mask", 2, "--out", tmp_path / "out", "--json", tmp_path / "r.json")
    for worker, made, complete in ((0, 3, False), (1, 3, True), (1, 0, True)):
        assert _sample(folder, *words, "--shard", f"{worker}/2") == 0
        result = json.loads((tmp_path / "r.json").read_text())
        assert result == {"out": str(tmp_path / "out"), "n": 6, "share": 3, "made": made, "complete": complete}
    assert len(read_dataset(tmp_path / "out").annotated) == 6


def test_a_folder_of_mask_files_will_do(folder: Path, tmp_path: Path) -> None:
    for name, masks in (("a", folder / "data"), ("b", shutil.copytree(folder / "data" / "masks", tmp_path / "loose"))):
        assert _sample(folder, "--masks", masks, "--out", tmp_path / name) == 0
    for path in (tmp_path / "a" / "masks").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / "masks" / path.name).read_bytes()


def test_prompts_are_recorded(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a polyp\n\na small polyp\n")
    words = ("--masks", folder / "data", "--prompts", tmp_path / "prompts.txt")
    assert _sample(folder, *words, "--out", tmp_path / "out") == 0
    assert [record.caption for record in read_dataset(tmp_path / "out")] == ["a polyp", "a small polyp", "a polyp"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "needs masks; give them with --masks"),
        (["--masks", "{}/data", "--images", "{}/data"], "--images: this generator takes no images"),
        (["--masks", "{}/data", "--prompts", "{}/none.txt"], "none.txt: does not exist"),
        (["--masks", "{}/data", "--shard", "2/2"], "--shard: 2/2"),
        (["--masks", "{}/data", "--shard", "half"], "--shard: 'half'"),
        (["--masks", "{}/data", "--batch-size", "0"], "--batch-size: is 0"),
        (["--masks", "{}/data", "--mask-transform", "bend"], "--mask-transform: 'bend'"),
        (["--masks", "{}/nowhere"], "nowhere"),
    ],
)
def test_wrong_input_is_one_line_and_exit_2(
    words: list[str], line: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _sample(folder, *(word.format(folder) for word in words), "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (None, "holds no trained generator"),
        ("{}", "names no generator of this version"),
        ("not json", "names no generator of this version"),
    ],
)
def test_a_folder_without_generator_is_refused(
    content: str | None, line: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "final").mkdir()
    if content is not None:
        (tmp_path / "final" / "generator.json").write_text(content)
    assert main(["sample", str(tmp_path), "--masks", str(folder / "data"), "--out", str(tmp_path / "out")]) == 2
    assert line in capsys.readouterr().err


def test_a_foundation_is_refused_for_now(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", "tiny", "--out", str(tmp_path / "out")]) == 2
    assert "is a foundation" in capsys.readouterr().err
