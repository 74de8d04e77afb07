"""Masks and the rule that reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from morphogen.data.mask_values import decide_mask_values, parse_mask_values, verify_mask_values
from morphogen.data.masks import apply_rule, load_mask, raw_mask, resize_labels, value_counts
from morphogen.data.records import Record
from morphogen.errors import InputError

RNG = np.random.default_rng(1)
DISC = (np.hypot(*np.mgrid[-20:20, -25:25]) < 12).astype(np.uint8)


def save(path: Path, values: np.ndarray, **options: object) -> Path:
    Image.fromarray(values).save(path, **options)
    return path


def read(path: Path, rule: dict[int, int]) -> np.ndarray:
    return load_mask(Record("a", path, path), rule)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (DISC, {0: 0, 1: 1}),
        (DISC * 255, {0: 0, 255: 1}),
        (DISC.astype(np.uint16) * 65535, {0: 0, 65535: 1}),
        (DISC.astype(np.uint16), {0: 0, 1: 1}),
        (np.zeros_like(DISC), {0: 0, 255: 1}),
    ],
)
def test_binary_masks(tmp_path: Path, values: np.ndarray, expected: dict[int, int]) -> None:
    path = save(tmp_path / "m.png", values)
    rule = decide_mask_values([path])
    assert rule.values == expected
    assert rule.classes == ("background", "lesion")
    assert np.array_equal(read(path, rule.values), values > 0)


def test_consecutive_labels_over_several_files(tmp_path: Path) -> None:
    files = [save(tmp_path / f"{i}.png", DISC * i) for i in (1, 2, 3)]
    rule = decide_mask_values(files)
    assert rule.values == {0: 0, 1: 1, 2: 2, 3: 3}
    assert len(rule.classes) == 4


def test_stated_classes_need_not_all_occur(tmp_path: Path) -> None:
    rule = decide_mask_values([save(tmp_path / "m.png", DISC * 2)], ("background", "vessel", "lesion"))
    assert rule.values == {0: 0, 1: 1, 2: 2}


def test_palette_masks(tmp_path: Path) -> None:
    coloured = Image.fromarray(DISC * 2, mode="P")
    coloured.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    coloured.save(tmp_path / "colour.png")
    inverted = Image.fromarray(1 - DISC, mode="P")  # index 0 is white
    inverted.putpalette([255, 255, 255, 0, 0, 0])
    inverted.save(tmp_path / "grey.png")
    assert np.array_equal(raw_mask(tmp_path / "colour.png"), DISC * 2)
    assert np.array_equal(raw_mask(tmp_path / "grey.png"), DISC * 255)


def test_rgba_masks(tmp_path: Path) -> None:
    white = np.full_like(DISC, 255)
    grey = save(tmp_path / "grey.png", np.dstack([DISC * 255] * 3 + [white]))
    alpha = save(tmp_path / "alpha.png", np.dstack([white] * 3 + [DISC * 255]))
    colour = save(tmp_path / "colour.png", np.dstack([DISC * 255, DISC * 0, DISC * 0]))
    assert np.array_equal(raw_mask(grey), DISC * 255)
    assert np.array_equal(raw_mask(alpha), DISC * 255)
    with pytest.raises(InputError, match=r"colour\.png: is a colour picture, not a label map"):
        raw_mask(colour)


def test_jpeg_smeared_masks_are_cut_at_127_and_reported(tmp_path: Path) -> None:
    smooth = (np.hypot(*np.mgrid[-100:100, -120:120]) < 60).astype(np.uint8) * 255
    path = save(tmp_path / "m.jpg", smooth, quality=90)
    assert len(value_counts(path)) > 5
    rule = decide_mask_values([path])
    assert "smeared" in rule.notes[0]
    assert rule.values == {**dict.fromkeys(range(128), 0), **dict.fromkeys(range(128, 256), 1)}
    assert (read(path, rule.values) != (smooth > 0)).mean() < 0.005
    again = tmp_path / "again.png"
    Image.open(path).save(again)
    assert decide_mask_values([again]).values == rule.values


def test_values_that_are_no_labels_name_file_values_and_remedy(tmp_path: Path) -> None:
    fine = [save(tmp_path / f"{i}.png", DISC * 255) for i in range(5)]
    bad = DISC * 255
    bad[0, :3] = 7
    path = save(tmp_path / "z.png", bad)
    for files in ([path], [*fine, path]):
        with pytest.raises(InputError) as caught:
            decide_mask_values(files)
        line = str(caught.value)
        assert line.startswith(f"{path}: holds the values 0, 7, 255, which are not labels")
        assert "--mask-values 0=0,7=1,255=2" in line
    rule = parse_mask_values("0=0,7=1,255=2")
    assert np.array_equal(np.unique(read(path, rule)), [0, 1, 2])


@pytest.mark.parametrize(
    "values",
    [
        [0, 2],
        [0, 2, 3, 4, 5],
        [0, 128],
        [0, 1, 255],
        [*range(9), 255],
        list(range(0, 256, 3)),
        list(range(256)),
        [0, 1, 65535],
    ],
)
def test_gaps_ignore_labels_and_soft_masks_are_refused(tmp_path: Path, values: list[int]) -> None:
    array = np.resize(np.array(values, np.uint16 if max(values) > 255 else np.uint8), (40, 40))
    with pytest.raises(InputError, match="not labels"):
        decide_mask_values([save(tmp_path / "m.png", array)])


def test_labels_through_a_jpeg_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not labels"):
        decide_mask_values([save(tmp_path / "m.jpg", DISC, quality=95)])


def test_stated_rules(tmp_path: Path) -> None:
    assert parse_mask_values("0=0, 255=1") == {0: 0, 255: 1}
    for text in ("0=0;255=1", "a=1", "0=0,255=2", ""):
        with pytest.raises(InputError, match="--mask-values"):
            parse_mask_values(text)
    path = save(tmp_path / "m.png", DISC * 9)
    verify_mask_values([path], {0: 0, 9: 1})
    with pytest.raises(InputError, match=r"m\.png: holds the value 9, which the stated rule does not cover"):
        verify_mask_values([path], {0: 0, 255: 1})


def test_loading_is_strict(tmp_path: Path) -> None:
    path = save(tmp_path / "m.png", DISC * 3)
    with pytest.raises(InputError, match="holds the value 3, for which no label was decided"):
        read(path, {0: 0, 255: 1})
    with pytest.raises(InputError, match="has no mask"):
        load_mask(Record("a", path), {0: 0})


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.integers(-300, 65535), st.integers(0, 9), min_size=1), st.integers(0, 2**31))
def test_apply_rule_is_the_mapping(rule: dict[int, int], seed: int) -> None:
    raw = np.random.default_rng(seed).choice(np.array(list(rule), dtype=np.int64), (4, 5))
    expected = [[rule[int(v)] for v in row] for row in raw]
    assert apply_rule(raw, rule, Path("m")).tolist() == expected


@pytest.mark.parametrize("value", [-40000, 70000, 2**40])
def test_apply_rule_refuses_values_far_outside(value: int) -> None:
    with pytest.raises(InputError, match=f"holds the value {value}"):
        apply_rule(np.array([[0, value]]), {0: 0, 65535: 1}, Path("m"))


def test_resizing_is_nearest_by_pixel_centres() -> None:
    labels = RNG.integers(0, 5, (37, 53))
    made = resize_labels(labels, (16, 20))
    rows = ((np.arange(16) + 0.5) * 37 / 16).astype(int)
    columns = ((np.arange(20) + 0.5) * 53 / 20).astype(int)
    assert np.array_equal(made, labels[np.ix_(rows, columns)])
