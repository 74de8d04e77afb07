"""Pairs that a quality gate dropped are left out of what is read for use, and stay where they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from morphogen.data.phantoms import phantom_dataset
from morphogen.data.readers import read_dataset, scan
from morphogen.errors import InputError


def drop(folder: Path, dropped: dict[str, list[str]]) -> None:
    rows = [json.dumps({"id": i, "dropped": reasons}) for i, reasons in dropped.items()]
    (folder / "manifest.jsonl").write_text("\n".join(rows) + "\n")


def test_dropped_pairs_are_left_out_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = phantom_dataset(tmp_path / "syn", "skin", 4, 24, seed=0)
    a, b, c, d = whole.ids
    drop(tmp_path / "syn", {a: [], b: ["blur"], c: ["copies", "blur"]})
    assert read_dataset(tmp_path / "syn").ids == (a, d)
    assert "2 of 4 pairs are left out" in capsys.readouterr().out
    assert [record.id for record in scan(tmp_path / "syn")] == list(whole.ids)


def test_all_dropped_is_an_error(tmp_path: Path) -> None:
    whole = phantom_dataset(tmp_path / "syn", "skin", 3, 24, seed=0)
    drop(tmp_path / "syn", {i: ["blur"] for i in whole.ids})
    with pytest.raises(InputError, match="quality gates dropped all 3 pairs"):
        read_dataset(tmp_path / "syn")


def test_training_passes_over_them(tmp_path: Path) -> None:
    from morphogen.cli.train import without_parts

    whole = phantom_dataset(tmp_path / "syn", "skin", 3, 24, seed=0)
    drop(tmp_path / "syn", {whole.ids[1]: ["blur"]})
    assert without_parts(("test",), tmp_path / "syn", None).ids == (whole.ids[0], whole.ids[2])
