"""Site, age and sex: read from tables, kept by writers, said where the grammar has words for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from morphogen.data.facts import BANDS, facts_of
from morphogen.data.prompts import Grammar, caption, check_words, vocabulary
from morphogen.data.readers import read_dataset
from morphogen.data.writers import WRITTEN, write_dataset

SKIN, POLYP = Grammar.load("skin"), Grammar.load("polyp")


def lesion() -> np.ndarray:
    mask = np.zeros((32, 32), np.int64)
    mask[10:22, 10:22] = 1
    return mask


def folder(root: Path, *lines: str) -> Path:
    """Pairs a, b, ... and a records.csv of these lines, the header first."""
    for k in range(len(lines) - 1):
        for part, pixels in (("images", np.full((32, 32, 3), 90 + k, np.uint8)), ("masks", lesion() * 255)):
            (root / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(root / part / f"{'abcd'[k]}.png")
    (root / "records.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.mark.parametrize(
    ("age", "band"),
    [("0", "child"), ("17.9", "child"), ("18", "young"), ("39", "young"), ("40.0", "middle-aged"),
     ("64", "middle-aged"), ("65", "elderly"), ("85.0", "elderly"), ("Elderly", "elderly"), ("Young", "young"),
     ("", None), ("unknown", None), ("nan", None), ("NaN", None), ("-3", None)],
)  # fmt: skip
def test_ages_are_banded(age: str, band: str | None) -> None:
    assert facts_of({"age": age}).get("age") == band


def test_bands_are_words_of_the_grammar() -> None:
    assert tuple(SKIN.slots["age"].words) == BANDS


def test_the_site_has_two_names() -> None:
    assert facts_of({"localization": "lower_extremity", "sex": "Female "}) == {
        "site": "lower extremity",
        "sex": "female",
    }
    assert facts_of({"site": "Back", "localization": "chest"}) == {"site": "back"}
    assert facts_of({"site": "unknown", "localization": "chest"}) == {"site": "chest"}
    assert facts_of({"dx": "mel", "sex": "unknown"}) == {}


def test_records_csv_gives_facts(tmp_path: Path) -> None:
    data = read_dataset(
        folder(
            tmp_path / "set", "id,class,age,sex,localization", "a,nevus,55,female,back", "b,melanoma,,,", "c,,7,male,"
        )
    )
    assert [dict(r.facts) for r in data] == [
        {"site": "back", "age": "middle-aged", "sex": "female"}, {}, {"age": "child", "sex": "male"},
    ]  # fmt: skip
    assert len({hash(record) for record in data}) == 3


@pytest.mark.parametrize("layout", WRITTEN)
def test_facts_outlive_a_conversion(tmp_path: Path, layout: str) -> None:
    data = read_dataset(folder(tmp_path / "set", "id,class,age,sex", "a,nevus,55,female", "b,melanoma,80,"))
    again = read_dataset(write_dataset(data, tmp_path / "out", layout))
    assert [r.facts for r in again] == [{"age": "middle-aged", "sex": "female"}, {"age": "elderly"}]


def test_captions_say_what_is_known(tmp_path: Path) -> None:
    data = read_dataset(
        folder(tmp_path / "set", "id,class,age,sex,site", "a,seborrheic_keratosis,70,male,upper extremity")
    )
    text = caption(SKIN, None, lesion(), data[0].label, SKIN.known(data[0].facts))
    assert text.startswith("dermoscopic image of seborrheic keratosis, medium-sized round lesion")
    assert text.endswith("on the upper extremity of an elderly male")
    check_words(text, vocabulary())


def test_texture_is_said_in_any_grammar_that_has_words_for_it(tmp_path: Path) -> None:
    data = read_dataset(folder(tmp_path / "set", "id,texture", "a,Pigment_Network", "b,villous surface", "c,unknown"))
    assert [dict(r.facts) for r in data] == [{"texture": "pigment network"}, {"texture": "villous surface"}, {}]
    said = [caption(g, None, lesion(), None, g.known(r.facts)) for g, r in zip((SKIN, POLYP, SKIN), data, strict=True)]
    assert ", pigment network, in the center" in said[0]
    assert said[1].endswith("polyp with villous surface")
    again = read_dataset(write_dataset(data, tmp_path / "out", "folders"))
    assert [r.facts for r in again] == [r.facts for r in data]


def test_words_that_a_grammar_lacks_stay_unsaid() -> None:
    facts = {"site": "head/neck", "age": "adult", "sex": "female"}
    assert SKIN.known(facts) == {"sex": "female"}
    without = caption(SKIN, None, lesion(), "nevus")
    assert caption(SKIN, None, lesion(), "nevus", SKIN.known(facts)) == f"{without} of a female"
    assert POLYP.known({"site": "back", "sex": "female"}) == {}


def test_own_captions_of_a_table_and_of_files(tmp_path: Path) -> None:
    root = folder(
        tmp_path / "set", "id,class,caption", "a,nevus,a mole of the back", "b,nevus,", "c,nevus,the table says"
    )
    for name in "bc":
        (root / "images" / f"{name}.txt").write_text("the file says\n")
    assert [r.caption for r in read_dataset(root)] == ["a mole of the back", "the file says", "the table says"]
