"""Planted leakage of each kind is found, what cannot be known is unknown, and clean parts are clean."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from morphogen.audit.nearest import ImageSet, image_set
from morphogen.audit.parts import Origin, Part, leakage, recorded_ids, without_test
from morphogen.data.duplicates import signatures
from morphogen.data.phantoms import phantom
from morphogen.data.records import Dataset, Record

SIZE = 64


def dataset(root: Path, ids: list[str], seeds: range, subjects: bool = True) -> Dataset:
    root.mkdir()
    records = []
    for id_, seed in zip(ids, seeds, strict=True):
        Image.fromarray(phantom("skin", seed, SIZE)[0]).save(root / f"{id_}.png")
        records.append(Record(id_, root / f"{id_}.png", subject=f"p{seed}" if subjects else None))
    return Dataset(root.name, root, tuple(records))


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, Dataset]:
    return {
        name: dataset(tmp_path / name, [f"{name}{i}" for i in seeds], seeds)
        for name, seeds in (("train", range(8)), ("val", range(20, 24)), ("test", range(40, 46)))
    }


@pytest.fixture
def origin() -> Origin:
    rows = [{"id": f"train{i}_00", "source_mask": f"train{i}"} for i in range(8)]
    card = {"sets": {"other": {"training_ids": ["x"], "phashes": ["0123456789abcdef"]}}}
    return Origin(rows, [f"train{i}" for i in range(8)], card)


SYNTHETIC = image_set(["s0", "s1", "s2"], [phantom("skin", seed, SIZE)[0] for seed in range(100, 103)])


def run(parts: dict[str, Dataset], origin: Origin, synthetic: ImageSet = SYNTHETIC) -> dict[str, Any]:
    of = {name: Part.of(name, part) for name, part in parts.items()}
    return leakage(synthetic, origin, of["train"], [of["val"]], (of["test"], parts["test"]))


def test_clean_parts_are_clean(parts: dict[str, Dataset], origin: Origin) -> None:
    result = run(parts, origin)
    assert (result["verdict"], result["unknown"], result["n_test"]) == ("none", [], 6)
    sections = ("provenance", "subjects", "foundation", "near_duplicates", "synthetic")
    assert all(result[name]["verdict"] == "none" and result[name]["n_found"] == 0 for name in sections)


def test_masks_of_test_images(parts: dict[str, Dataset], origin: Origin) -> None:
    rows = [*(origin.rows or ()), {"id": "test41_00", "source_mask": "test41"}]
    result = run(parts, replace(origin, rows=rows))
    assert result["verdict"] == "found"
    assert result["provenance"]["found"] == [{"id": "test41_00", "source_mask": "test41"}]


def test_a_generator_that_was_trained_on_test_images(parts: dict[str, Dataset], origin: Origin) -> None:
    result = run(parts, replace(origin, generator_ids=["train0", "test45"]))
    assert result["provenance"]["found"] == [{"generator_id": "test45"}]


def test_an_id_of_two_folders_counts_only_where_it_is_one_image(tmp_path: Path, origin: Origin) -> None:
    train = dataset(tmp_path / "train", ["a", "b"], range(2))
    rows = [{"id": "a_00", "source_mask": "a"}, {"id": "b_00", "source_mask": "b"}]
    val = dataset(tmp_path / "val", ["v"], range(5, 6))
    other = {"train": train, "val": val, "test": dataset(tmp_path / "test", ["a", "c"], range(10, 12))}
    assert run(other, Origin(rows, ["a", "b"], None, founded=False))["provenance"]["verdict"] == "none"
    same = {**other, "test": dataset(tmp_path / "same", ["a", "c"], range(0, 2))}
    found = run(same, Origin(rows, ["a", "b"], None, founded=False))["provenance"]["found"]
    assert found == [{"id": "a_00", "source_mask": "a"}, {"generator_id": "a"}]


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_subject_in_two_parts(parts: dict[str, Dataset], origin: Origin, part: str) -> None:
    first, *rest = parts["test"].records
    of_another = parts[part].records[2].subject
    parts["test"] = replace(parts["test"], records=(replace(first, subject=of_another), *rest))
    assert run(parts, origin)["subjects"]["found"] == [{"subject": of_another, "part": part}]


def test_a_foundation_that_knows_test_images(parts: dict[str, Dataset], origin: Origin) -> None:
    hashes = signatures(parts["test"]).hashes
    by_hash = run(parts, replace(origin, card={"sets": {"old": {"phashes": [hashes[3]]}}}))
    assert by_hash["foundation"]["found"] == [{"id": "test43", "set": "old", "by": "hash"}]
    by_id = run(parts, replace(origin, card={"sets": {"test": {"training_ids": ["test40"]}}}))
    assert by_id["foundation"]["found"] == [{"id": "test40", "set": "test", "by": "id"}]


@pytest.mark.parametrize("part", ["train", "val"])
def test_near_duplicates_between_parts(parts: dict[str, Dataset], origin: Origin, part: str) -> None:
    record = parts[part].records[1]
    image = np.asarray(Image.open(parts["test"].records[2].image))
    Image.fromarray((image * 0.95).astype(np.uint8)).save(record.image)
    assert run(parts, origin)["near_duplicates"]["found"] == [{"test": "test42", part: record.id}]


def test_near_duplicates_within_a_part_are_no_leak(parts: dict[str, Dataset], origin: Origin) -> None:
    for part in ("train", "test"):
        first, *_, last = parts[part].records
        image = np.asarray(Image.open(first.image))
        Image.fromarray((image * 0.95).astype(np.uint8)).save(last.image)
    assert run(parts, origin)["near_duplicates"]["found"] == []


def test_synthetic_copies_of_test_images(parts: dict[str, Dataset], origin: Origin) -> None:
    image = phantom("skin", 44, SIZE)[0]
    copies = image_set(["s0", "s1", "s2"], [phantom("skin", 99, SIZE)[0], image[:, ::-1], image])
    found = run(parts, origin, copies)["synthetic"]["found"]
    assert found == [{"id": "s1", "test": "test44"}, {"id": "s2", "test": "test44"}]


def test_what_is_not_given_is_unknown(parts: dict[str, Dataset], origin: Origin, tmp_path: Path) -> None:
    result = run(parts, Origin())
    assert result["verdict"] == "unknown"
    assert result["unknown"] == ["provenance", "foundation"]
    assert "no manifest.jsonl" in result["provenance"]["note"]
    assert "was not given" in result["foundation"]["note"]
    assert "does not say" in run(parts, replace(origin, card={}))["foundation"]["note"]
    assert run(parts, replace(origin, card=None, founded=False))["foundation"]["verdict"] == "none"
    prompts = [{"id": "text0001_00", "source_mask": None}]
    assert run(parts, replace(origin, rows=prompts))["provenance"]["verdict"] == "unknown"
    assert "source masks alone" in run(parts, replace(origin, generator_ids=None))["provenance"]["note"]
    bare = dataset(tmp_path / "bare", ["n"], range(60, 61), subjects=False)
    assert run({**parts, "test": bare}, origin)["subjects"]["verdict"] == "unknown"
    assert without_test("why")["verdict"] == "unknown"


def test_many_findings_are_counted_and_the_first_listed(tmp_path: Path, origin: Origin) -> None:
    ids = [f"i{k}" for k in range(3)]
    part = dataset(tmp_path / "train", ids, range(3))
    rows = [{"id": f"{i}_{k}", "source_mask": i} for i in ids for k in range(30)]
    of = Part.of("train", part)
    found = leakage(SYNTHETIC, Origin(rows), of, [], (of, part))["provenance"]
    assert (found["n_found"], len(found["found"])) == (90, 50)


def test_ids_that_a_run_records(tmp_path: Path) -> None:
    assert recorded_ids(tmp_path) is None
    (tmp_path / "config.yaml").write_text("records: [a, 12]\nseed: 0\n")
    assert recorded_ids(tmp_path) == ["a", "12"]
    for text in ("seed: 0\n", "- a\n", "a: [b\n"):
        (tmp_path / "config.yaml").write_text(text)
        assert recorded_ids(tmp_path) is None
