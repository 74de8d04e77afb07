"""The rules of evidence about who sees which image."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from morphogen.data.readers import read_dataset
from morphogen.data.records import Dataset
from morphogen.errors import InputError
from morphogen.study.recipe import StudyConfig
from morphogen.study.splits import Splits, frozen_splits, has_extra, make

Make = Callable[..., StudyConfig]


@pytest.fixture
def dataset(phantom_folder: Path) -> Dataset:
    return read_dataset(phantom_folder)


def test_every_record_has_one_use_and_every_subject_one_side(make_config: Make, dataset: Dataset) -> None:
    splits = make(make_config(folds=5), dataset)
    subject = {record.id: record.subject for record in dataset}
    for r in splits.repetitions:
        parts = [r.train, r.validation, r.extra, r.pool, r.test]
        assert sorted(i for part in parts for i in part) == sorted(dataset.ids)
        learnt = {subject[i] for part in parts[:-1] for i in part}
        assert learnt.isdisjoint(subject[i] for i in r.test)
        held = {subject[i] for i in r.validation}
        assert held.isdisjoint(subject[i] for i in (*r.train, *r.extra))


def test_folds_test_everything_once_with_their_own_seed(make_config: Make, dataset: Dataset) -> None:
    splits = make(make_config(folds=5), dataset)
    assert splits.kind == "kfold"
    assert sorted(i for r in splits.repetitions for i in r.test) == sorted(dataset.ids)
    assert [(r.fold, r.seed, r.label) for r in splits.repetitions] == [(f, f, f"fold{f}") for f in range(5)]


def test_annotated_pairs_are_nested_and_a_fifth_validates(make_config: Make, dataset: Dataset) -> None:
    found = {n: make(make_config(annotated=n), dataset) for n in (5, 10, 15)}
    for repetitions in zip(*(s.repetitions for s in found.values()), strict=True):
        drawn = [{*r.train, *r.validation} for r in repetitions]
        assert [len(d) for d in drawn] == [5, 10, 15]
        assert drawn[0] < drawn[1] < drawn[2]
        for r in repetitions:
            assert 1 <= len(r.validation) <= 0.4 * len((*r.train, *r.validation))


def test_extra_pairs_match_the_synthetic_ones_or_are_said_to_be_missing(make_config: Make, dataset: Dataset) -> None:
    for annotated, per_mask, enough in ((5, 1, True), (5, 2, True), (15, 1, False), (None, 1, False)):
        splits = make(make_config(annotated=annotated, per_mask=per_mask), dataset)
        assert has_extra(splits, per_mask) is enough
        if enough:
            assert all(len(r.extra) == per_mask * len(r.train) for r in splits.repetitions)


def test_seeds_choose_the_first_folds(make_config: Make, dataset: Dataset) -> None:
    one = make(make_config(folds=5, seeds=1), dataset)
    assert [r.label for r in one.repetitions] == ["fold0"]
    assert one.notes == ("one repetition: exploratory",)
    with pytest.raises(InputError, match="--seeds 6: there are 5 folds"):
        make(make_config(folds=5, seeds=6), dataset)


def test_a_stated_split_is_repeated_with_crossed_seeds(make_config: Make, dataset: Dataset) -> None:
    stated = replace(
        dataset,
        records=tuple(replace(r, split="test" if i % 4 == 0 else "train") for i, r in enumerate(dataset)),
    )
    splits = make(make_config(), stated)
    assert splits.kind == "given"
    assert [(r.fold, r.seed, r.label) for r in splits.repetitions] == [(0, s, f"fold0-seed{s}") for s in range(3)]
    assert len({r.test for r in splits.repetitions}) == 1
    assert len(make(make_config(seeds=4), stated).repetitions) == 4


def test_a_stated_validation_part_is_honoured(make_config: Make, dataset: Dataset) -> None:
    names = ("test", "val", "train", "train")
    stated = replace(dataset, records=tuple(replace(r, split=names[i % 4]) for i, r in enumerate(dataset)))
    repetition = make(make_config(annotated=None), stated).repetitions[0]
    assert set(repetition.validation) == {r.id for r in stated if r.split == "val"}
    assert set(repetition.train) == {r.id for r in stated if r.split == "train"}


def test_frozen_splits_come_back_and_fit_their_data_only(make_config: Make, dataset: Dataset) -> None:
    config = make_config()
    splits = frozen_splits(config, dataset)
    assert not config.out.exists()
    config.out.mkdir()
    path = config.out / "splits.json"
    path.write_text(json.dumps(asdict(splits)))
    assert frozen_splits(make_config(annotated=5), dataset) == splits
    assert Splits.of(json.loads(path.read_text())).hash == splits.hash
    with pytest.raises(InputError, match=r"splits\.json: was made from other images"):
        frozen_splits(config, dataset.select(dataset.ids[1:]))
    path.write_text("{}")
    with pytest.raises(InputError, match=r"splits\.json: cannot be read"):
        frozen_splits(config, dataset)
