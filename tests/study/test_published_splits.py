"""The scripts that write the divisions of SynDiff's protocols."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from morphogen.data.phantoms import phantom_dataset
from morphogen.data.readers import read_dataset
from morphogen.errors import InputError
from morphogen.study.recipe import StudyConfig
from morphogen.study.run import prepare

RUNS = Path(__file__).parents[2] / "runs"
Make = Callable[..., StudyConfig]


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(RUNS))
    spec = spec_from_file_location(name, RUNS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


def run(module: ModuleType, monkeypatch: pytest.MonkeyPatch, *words: Any) -> None:
    monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, words)])
    module.main()


@pytest.mark.parametrize("links", [True, False])
def test_the_random_split_is_given_to_a_study_which_says_that_it_leaks(
    tmp_path: Path, make_config: Make, monkeypatch: pytest.MonkeyPatch, links: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    module = script("syndiff_random_split", monkeypatch)
    data = tmp_path / "data"
    phantom_dataset(data, "mucosa", 30, 24, seed=0, subjects=5)
    with pytest.raises(InputError, match="holds 30 annotated frames, not the 612 of CVC-ClinicDB"):
        run(module, monkeypatch, data, tmp_path / "no")
    monkeypatch.setattr(module, "PARTS", {"train": 18, "val": 6, "test": 6})
    if not links:

        def nowhere(*args: Any) -> None:
            raise OSError("no links here")

        monkeypatch.setattr(module.os, "symlink", nowhere)
    run(module, monkeypatch, data, tmp_path / "out")
    assert "sequences with test frames have training frames too" in capsys.readouterr().out
    with (tmp_path / "out" / "records.csv").open() as file:
        parts = {row["id"]: row["split"] for row in csv.DictReader(file)}
    assert list(parts) == sorted(parts)
    assert list(parts.values()) != sorted(parts.values())
    assert all(path.is_symlink() is links for path in (tmp_path / "out" / "images").iterdir())
    bench = prepare(make_config(data=tmp_path / "out", annotated=None, arms=("real",)))
    assert bench.splits.kind == "given"
    assert [r.label for r in bench.splits.repetitions] == [f"fold0-seed{k}" for k in range(3)]
    for r in bench.splits.repetitions:
        for name, ids in (("train", r.train), ("val", r.validation), ("test", r.test)):
            assert {i for i, part in parts.items() if part == name} == set(ids)
    assert any("the stated split leaks" in note for note in bench.splits.notes)
    with pytest.raises(InputError, match="is not empty; name a new folder"):
        run(module, monkeypatch, data, tmp_path / "out")


def test_the_same_frames_fall_into_the_same_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = script("syndiff_random_split", monkeypatch)
    dataset = phantom_dataset(tmp_path, "mucosa", 10, 16, seed=0)
    monkeypatch.setattr(module, "PARTS", {"train": 6, "val": 2, "test": 2})
    assert module.split(dataset) == module.split(dataset.select(reversed(dataset.ids)))


@pytest.mark.realdata
def test_the_held_out_part_of_kvasir_is_what_a_study_on_tiny_takes(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from morphogen.audit.leakage import refuse_overlaps
    from morphogen.study.synthesis import card_of

    kvasir, card = real_data / "polyps" / "kvasir_seg", card_of("tiny")
    run(script("kvasir_held_out", monkeypatch), monkeypatch, kvasir, tmp_path / "kvasir")
    held_out = read_dataset(tmp_path / "kvasir").annotated
    assert len(held_out) == 179
    refuse_overlaps(held_out, card, "tiny")
    learnt = [i for i in read_dataset(kvasir).ids if i not in held_out.ids][:4]
    with pytest.raises(InputError, match="4 of 4 test images were used to train tiny"):
        refuse_overlaps(read_dataset(kvasir).select(learnt), card, "tiny")
