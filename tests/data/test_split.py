"""Splits: nobody in two parts, everyone tested once, annotations nested."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from morphogen.data.readers import read_dataset
from morphogen.data.records import Dataset, Record
from morphogen.data.split import draw_annotated, grouped_folds, groups, make_splits, take_validation
from morphogen.data.split_files import nnunet_splits, read_splits, write_splits
from morphogen.errors import InputError

IMAGE = Path("no/such/image.png")


def dataset(sizes: list[int], split: str | None = None) -> Dataset:
    """Subject s has sizes[s] records; no file is needed, for subjects are known."""
    names = [(f"s{s:03d}", f"s{s:03d}_{i:02d}") for s, n in enumerate(sizes) for i in range(n)]
    return Dataset("x", Path("x"), tuple(Record(i, IMAGE, IMAGE, subject=s, split=split) for s, i in names))


SIZES = st.lists(st.integers(1, 12), min_size=5, max_size=40)


@settings(max_examples=60, deadline=None)
@given(SIZES, st.integers(2, 5), st.integers(0, 99))
def test_folds_part_no_subject_and_test_everyone_once(sizes: list[int], k: int, seed: int) -> None:
    data = dataset(sizes)
    folds = grouped_folds(data, k, seed)
    subject = {r.id: r.subject for r in data}
    assert len(folds) == k
    assert sorted(i for fold in folds for i in fold.test_ids) == sorted(data.ids)
    for fold in folds:
        assert {subject[i] for i in fold.train_ids}.isdisjoint({subject[i] for i in fold.test_ids})
        assert sorted(fold.train_ids + fold.test_ids) == sorted(data.ids)
        assert fold.test_ids
    counts = [len(fold.test_ids) for fold in folds]
    assert max(counts) - min(counts) <= max(sizes)


@settings(max_examples=60, deadline=None)
@given(SIZES, st.integers(0, 99), st.data())
def test_annotations_are_nested_and_spread_evenly(sizes: list[int], seed: int, data: st.DataObject) -> None:
    records = dataset(sizes)
    few = data.draw(st.integers(1, len(records)))
    many = data.draw(st.integers(few, len(records)))
    order = draw_annotated(records, len(records), seed)
    assert sorted(order) == sorted(records.ids)
    assert draw_annotated(records, few, seed) == order[:few]
    assert set(order[:few]) <= set(draw_annotated(records, many, seed))
    held = Counter(i.split("_")[0] for i in order[:few])
    for s, size in enumerate(sizes):  # nobody has two more than a subject that could still give one
        if held[f"s{s:03d}"] < size:
            assert max(held.values()) - held[f"s{s:03d}"] <= 1


@settings(max_examples=60, deadline=None)
@given(SIZES, st.integers(0, 99))
def test_validation_is_whole_subjects_and_about_a_fifth(sizes: list[int], seed: int) -> None:
    data = dataset(sizes)
    train, val = take_validation(data, data.ids, 0.2, seed)
    assert sorted(train + val) == sorted(data.ids)
    assert train
    assert val
    assert {i.split("_")[0] for i in train}.isdisjoint({i.split("_")[0] for i in val})
    assert len(val) <= 0.2 * len(data) + max(sizes) / 2 or len(val) == min(sizes)


@pytest.mark.parametrize("seed", range(5))
def test_large_subjects_are_placed_first(seed: int) -> None:
    folds = grouped_folds(dataset([10] + [1] * 10), 2, seed)
    assert [len(fold.test_ids) for fold in folds] == [10, 10]


def test_seeds_matter_and_repeat() -> None:
    data = dataset([3] * 30)
    assert draw_annotated(data, 20, 1) == draw_annotated(data, 20, 1) != draw_annotated(data, 20, 2)
    assert grouped_folds(data, 5, 1) == grouped_folds(data, 5, 1) != grouped_folds(data, 5, 2)


def test_kfold_below_150_subjects_else_fixed() -> None:
    few, many = make_splits(dataset([2] * 149)), make_splits(dataset([2] * 150))
    assert (few.kind, few.grouped_by, len(few.folds)) == ("kfold", "subject", 5)
    assert (many.kind, len(many.folds)) == ("fixed", 1)
    fold = many.folds[0]
    assert (len(fold.test_ids), len(fold.val_ids), len(fold.train_ids)) == (60, 30, 210)
    parts = [{i.split("_")[0] for i in ids} for ids in (fold.train_ids, fold.val_ids, fold.test_ids)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 150
    assert not many.notes


def test_stated_splits_are_honoured_and_their_leaks_noted() -> None:
    data = dataset([4] * 6)
    stated = {"s000": "test", "s001": "val"}
    given_ = replace(data, records=tuple(replace(r, split=stated.get(str(r.subject), "train")) for r in data))
    division = make_splits(given_)
    assert division.kind == "given"
    assert {i[:4] for i in division.folds[0].test_ids} == {"s000"}
    assert {i[:4] for i in division.folds[0].val_ids} == {"s001"}
    leaky = replace(given_, records=(*given_.records[:-1], replace(given_.records[-1], split="test")))
    where = "1 groups (subject) are in both the training and the test part"
    assert make_splits(leaky).notes == (f"{where}: the stated split leaks, 1 of 5 test images are of these groups",)
    with pytest.raises(InputError, match="'s000_00' has no split although others have"):
        make_splits(replace(given_, records=(replace(given_[0], split=None), *given_.records[1:])))
    with pytest.raises(InputError, match="no test part"):
        make_splits(dataset([2, 2], split="train"))


def test_too_few() -> None:
    with pytest.raises(InputError, match="has 3 subjects or groups of near-duplicates, too few for 5 folds"):
        grouped_folds(dataset([2, 2, 2]), 5)
    with pytest.raises(InputError, match="--folds: 1 is not enough"):
        grouped_folds(dataset([2, 2, 2]), 1)
    for n in (0, 7):
        with pytest.raises(InputError, match=f"--annotated: {n} pairs cannot be drawn from the 6"):
            draw_annotated(dataset([2, 2, 2]), n)


def pictures(root: Path) -> Dataset:
    """Eight images without subjects; 0 and 1 are near-duplicates."""
    (root / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(8):
        small = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        picture = Image.fromarray(small).resize((60, 60), Image.Resampling.BICUBIC)
        picture.save(root / "images" / f"{max(i, 1) if i != 1 else 9}.png")
        if i == 0:
            picture.resize((50, 50)).save(root / "images" / "0.png")
    return read_dataset(root)


def test_near_duplicates_group_what_has_no_subject(tmp_path: Path) -> None:
    data = pictures(tmp_path)
    assert groups(data)[:2] == ["0", "0"]
    assert len(set(groups(data))) == len(data) - 1
    division = make_splits(data, k=4)
    assert division.grouped_by == "near-duplicates"
    assert all(("0" in fold.test_ids) == ("1" in fold.test_ids) for fold in division.folds)


def test_a_record_without_subject_stays_with_its_near_duplicate_that_has_one(tmp_path: Path) -> None:
    data = pictures(tmp_path)

    def grouped(**subjects: str) -> list[str]:
        named = {f"{name[1:]}": subject for name, subject in subjects.items()}
        return groups(replace(data, records=tuple(replace(r, subject=named.get(r.id)) for r in data)))

    rest = list(data.ids[2:])
    assert data.ids[:2] == ("0", "1")
    assert grouped(_1="p") == ["p", "p", *rest]
    assert grouped(_0="p", **{f"_{rest[-1]}": "p"}) == ["p", "p", *rest[:-1], "p"]
    assert grouped(_0="p", _1="q") == ["p", "q", *rest]  # subjects as stated
    one_more = replace(data, records=(*data.records, replace(data[0], id="copy", subject="q")))
    named = tuple(replace(r, subject="p") if r.id == "0" else r for r in one_more)
    assert groups(replace(one_more, records=named)) == ["p", "p", *rest, "p"]  # 1 holds p and q together


def test_few_subjects_validate_by_near_duplicates(tmp_path: Path) -> None:
    data = pictures(tmp_path)
    one = replace(data, records=tuple(replace(r, subject="p") for r in data))
    train, val = take_validation(one, one.ids, 0.25, 0)
    assert train
    assert val
    assert ("0" in val) == ("1" in val)


def test_frozen_files(tmp_path: Path) -> None:
    data = dataset([3] * 10)
    division = make_splits(data)
    path = tmp_path / "new" / "splits.json"
    final = write_splits(division, path, data)
    assert read_splits(path, data) == division
    assert json.loads(final.read_text()) == [
        {"train": sorted(f.train_ids), "val": sorted(f.test_ids)} for f in division.folds
    ]
    assert write_splits(division, path, data) == final
    with pytest.raises(InputError, match="holds another split"):
        write_splits(make_splits(data, seed=1), path, data)
    with pytest.raises(InputError, match="was made from other records"):
        read_splits(path, dataset([3] * 9))
    path.write_text("{}")
    with pytest.raises(InputError, match="is not a file of splits"):
        read_splits(path, data)


def test_nnunet_cases_are_volumes() -> None:
    slices = [Record(f"{c}_z{i:03d}", IMAGE, IMAGE, subject=c, plane=(2, i)) for c in "abcdef" for i in range(3)]
    data = Dataset("x", Path("x"), tuple(slices))
    cases = nnunet_splits(make_splits(data, k=3), data)
    assert all(len(fold["val"]) == 2 and len(fold["train"]) == 4 for fold in cases)
