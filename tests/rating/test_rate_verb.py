"""The verb rate, in both of its directions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from morphogen.cli import main
from morphogen.rating.page import read_key

Write = Callable[..., Path]


def by_origin(synthetic: int, real: int) -> Callable[[str, dict[str, Any]], int]:
    return lambda _, showing: synthetic if showing["origin"] == "synthetic" else real


def test_a_page_is_made_and_scored(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, file = tmp_path / "out", tmp_path / "made.json"
    words = ["rate", *map(str, folders), "--out", str(out), "--n", "4", "--repeats", "1", "--json", str(file)]
    assert main(words) == 0
    made = json.loads(file.read_text())
    assert (made["n_synthetic"], made["n_real"], made["repeats"], made["size"]) == (4, 4, 1, [32, 32])
    assert sorted(path.name for path in out.iterdir()) == ["key.json", "page.html"]
    assert made["study"] == read_key(out)["study"]
    assert (read_key(out)["syn"], read_key(out)["seed"]) == (str(folders[0]), 0)
    printed = capsys.readouterr().out
    assert "send to the raters" in printed
    assert "9 images: 4 synthetic, 4 real, 1 of them again" in printed
    assert main(words) == 0


def test_scores(page: Path, answer: Write, capsys: pytest.CaptureFixture[str]) -> None:
    files = [answer("ada", by_origin(2, 4)), answer("ben", by_origin(3, 4)), answer("eva", by_origin(1, 5))]
    result_file = page / "result.json"
    command = ["rate", "--import", *map(str, files), "--out", str(page), "--json", str(result_file)]
    assert main(command) == 0
    result = json.loads(result_file.read_text())
    means = {name: value["mean"] for name, value in result["mos"].items()}
    assert means == {"synthetic": 2, "real": pytest.approx(13 / 3), "difference": pytest.approx(-7 / 3)}
    low, high = result["mos"]["difference"]["ci95"]
    assert low < -7 / 3 < high
    assert result["auc"]["mean"] == 1
    assert (result["n_raters"], result["n_pictures"]) == (3, {"synthetic": 5, "real": 5})
    assert len(result["agreement"]["pairs"]) == 3
    assert 0 < result["agreement"]["icc_single"]["mean"] < result["agreement"]["icc_mean"]["mean"] < 1
    assert result["raters"]["ada"]["mos"]["difference"]["mean"] == -2
    assert result["raters"]["ada"]["repeats"] == {
        "n": 3,
        "same": 1,
        "mean_absolute_difference": 0,
        "kappa": result["raters"]["ada"]["repeats"]["kappa"],
    }
    assert {frozenset(p["scores"].items()) for p in result["pictures"].values()} == {
        frozenset({"ada": 2, "ben": 3, "eva": 1}.items()),
        frozenset({"ada": 4, "ben": 4, "eva": 5}.items()),
    }
    printed = capsys.readouterr().out
    assert "MOS synthetic   2.00 (" in printed
    assert "Krippendorff's alpha" in printed


def test_confidence_weighs(page: Path, answer: Write) -> None:
    rng = np.random.default_rng(0)
    scores = {name: int(rng.integers(1, 6)) for name in read_key(page)["showings"]}
    file = answer("ada", lambda name, _: scores[name])
    main(["rate", "--import", str(file), "--out", str(page), "--json", str(page / "r.json")])
    result = json.loads((page / "r.json").read_text())
    key = read_key(page)["showings"]
    rows = [row for row in json.loads(file.read_text())["answers"] if key[row["id"]]["repeats"] is None]
    for origin in ("synthetic", "real"):
        of = [row for row in rows if key[row["id"]]["origin"] == origin]
        weighted = sum(r["score"] * r["confidence"] for r in of) / sum(r["confidence"] for r in of)
        assert result["weighted"][origin]["mean"] == pytest.approx(weighted)
        assert result["mos"][origin]["mean"] == pytest.approx(np.mean([r["score"] for r in of]))


def test_repeats_compare_the_two_showings(page: Path, answer: Write) -> None:
    again = [name for name, showing in read_key(page)["showings"].items() if showing["repeats"]]
    file = answer("ada", lambda name, _: 5 if name == again[0] else 3)
    main(["rate", "--import", str(file), "--out", str(page), "--json", str(page / "r.json")])
    repeats = json.loads((page / "r.json").read_text())["raters"]["ada"]["repeats"]
    assert (repeats["n"], repeats["same"]) == (3, pytest.approx(2 / 3))
    assert repeats["mean_absolute_difference"] == pytest.approx(2 / 3)


def test_one_rater_who_always_says_the_same(page: Path, answer: Write, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rate", "--import", str(answer("ada")), "--out", str(page), "--json", str(page / "r.json")]) == 0
    result = json.loads((page / "r.json").read_text())
    assert result["mos"]["difference"]["mean"] == 0
    assert result["auc"]["mean"] == 0.5
    assert result["agreement"] == {}
    assert any("one rater" in note for note in result["notes"])
    assert "this one rater" in result["protocol"]
    two = ["rate", "--import", str(answer("a")), str(answer("b")), "--out", str(page), "--json", str(page / "r.json")]
    assert main(two) == 0
    result = json.loads((page / "r.json").read_text())
    assert result["agreement"]["alpha"] is None
    assert result["agreement"]["pairs"] == [{"raters": ["a", "b"], "kappa": None}]
    assert "undefined" in capsys.readouterr().out


def refused(words: list[str], capsys: pytest.CaptureFixture[str], *parts: str) -> None:
    assert main(words) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    for part in parts:
        assert part in lines[0]


def test_bad_words(folders: tuple[Path, Path], page: Path, answer: Write, capsys: pytest.CaptureFixture[str]) -> None:
    syn, real = map(str, folders)
    empty = page.parent / "empty"
    empty.mkdir()
    out = ["--out", str(page.parent / "new")]
    refused(["rate", str(empty), real, *out], capsys, "empty: is empty")
    refused(["rate", syn, str(empty), *out], capsys, "empty: is empty")
    refused(["rate", syn, *out], capsys, "SYN and REAL", "--import")
    refused(["rate", syn, real, *out, "--n", "0"], capsys, "--n")
    refused(["rate", syn, real, "--out", str(page), "--seed", "7"], capsys, "another page")
    refused(["rate", syn, real, "--import", str(answer("a")), "--out", str(page)], capsys, "--import")
    refused(["rate", "--import", str(answer("a")), *out], capsys, "key.json: does not exist")
    refused(["rate", "--import", str(page / "key.json"), "--out", str(page)], capsys, "no answers of a rating page")
    refused(["rate", syn, real, "--out", str(answer("a"))], capsys, "is a file")
    assert not (page.parent / "new").exists()


def test_options_from_a_file(page: Path, answer: Write) -> None:
    config = page / "rate.yaml"
    config.write_text(f"import: [{answer('a')}]\nout: {page}\n")
    assert main(["rate", "--config", str(config), "--json", str(page / "r.json")]) == 0
    assert json.loads((page / "r.json").read_text())["n_raters"] == 1
