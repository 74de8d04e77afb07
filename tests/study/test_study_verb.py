"""``morphogen study`` with real segmenters, as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from morphogen.cli import main


@pytest.fixture
def words(phantom_folder: Path, tmp_path: Path) -> list[str]:
    options = "--generator copy-paste --annotated 6 --folds 2 --seeds 1 --arms real-geo syn-geo --resolution 32"
    options += " --steps 1 --train-batch-size 2"
    return ["study", str(phantom_folder), "--out", str(tmp_path / "study"), *options.split()]


def test_the_command_ends_with_verdict_and_report(
    words: list[str], tmp_path: Path, without_inception: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--json", str(tmp_path / "r.json")]) == 0
    results = json.loads((tmp_path / "r.json").read_text())
    assert results["verdict"]["outcome"] in ("helped", "hurt", "undecided")
    assert results["protocol"]["judges"]["unet"]
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[-1] == str(tmp_path / "study" / "report.html")
    assert lines[-3] == results["verdict"]["text"]
    log = (tmp_path / "study" / "runs" / "syn-geo.unet.fold0.n6" / "metrics.jsonl").read_text()
    assert '"step": 0' in log


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        (["--arms", "reel"], "--arms reel: is not known; did you mean real"),
        (["--annotated", "999"], "cannot be drawn"),
        (["--cells", "nothing"], "--cells nothing: matches no cell"),
        (["--preset", "no-such-model", "--arms", "autoencoded"], "no-such-model: no such foundation"),
        (["--preset", "no-such-model", "--generator", "siamese"], "--preset no-such-model: no such preset"),
        (["--preset", "sd15"], "--preset sd15: copy-paste has no presets"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(
    words: list[str], tmp_path: Path, extra: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, *extra]) == 2
    error = capsys.readouterr().err.strip()
    assert says in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "study").exists()


def test_a_plan_is_printed_without_work(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--dry-run"]) == 0
    assert "real-geo, syn-geo" in capsys.readouterr().out
    assert not (tmp_path / "study").exists()
