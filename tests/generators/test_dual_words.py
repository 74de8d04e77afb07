"""Words of the dual generator: they turn with the image, follow the record, and come in their shares."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from generators.dual_parts import labelled
from morphogen.data.pairs import Pairs
from morphogen.data.prompts import Grammar
from morphogen.data.records import Dataset, Record
from morphogen.errors import InputError
from morphogen.foundation.images import turned
from morphogen.generators.dual.words import Sentences, captions, grammar_for, sentences

SKIN = Grammar.load("skin")
IMAGE = np.full((3, 40, 40), 120, dtype=np.uint8)
BARE = Record("a", Path("a.png"))


def corner() -> np.ndarray:
    """A lesion in the upper right, of no symmetry."""
    mask = np.zeros((40, 40), dtype=np.uint8)
    mask[3:9, 28:38] = 1
    mask[9:12, 30:33] = 1
    return mask


@pytest.mark.parametrize("turn", range(8))
def test_the_caption_is_that_of_the_turned_pair(turn: int) -> None:
    image = np.random.default_rng(0).integers(90, 160, (3, 40, 40), dtype=np.uint8)
    record = replace(BARE, label="melanoma", facts={"site": "back"})
    said = Sentences.of(SKIN, record, image, corner()).full(turn)
    again = Sentences.of(SKIN, record, turned(image, turn), turned(corner(), turn)).full()
    assert said == again
    assert ("upper right" in said) == (turn in (0, 5))


def test_what_is_known_is_said() -> None:
    record = replace(BARE, label="melanoma", facts={"site": "back", "age": "elderly", "sex": "male"})
    said = Sentences.of(SKIN, record, IMAGE, corner()).full()
    assert said.startswith("dermoscopic image of melanoma, small ")
    assert said.endswith(", on the back of an elderly male")
    unknown = replace(record, facts={"site": "left knee", "age": "elderly", "weather": "fine"})
    assert " on the " not in Sentences.of(SKIN, unknown, IMAGE, corner()).full()


def test_images_without_a_mask_or_a_lesion() -> None:
    record = replace(BARE, label="nevus", facts={"site": "back"})
    bare = Sentences.of(SKIN, record, IMAGE, None)
    assert (bare.full(), bare.plain()) == ("dermoscopic image of nevus, on the back", "dermoscopic image of nevus")
    assert Sentences.of(SKIN, replace(record, facts={}), IMAGE, None).full() == bare.plain()
    assert {bare.drawn(turn, turn, 0.0, 0.0) for turn in range(40)} == {bare.full(), bare.plain()}
    assert Sentences.of(SKIN, BARE, IMAGE, None).full() == SKIN.unknown
    assert Sentences.of(SKIN, replace(BARE, facts={"sex": "male"}), IMAGE, None).full() == f"{SKIN.unknown} of a male"
    healthy = Sentences.of(SKIN, record, IMAGE, np.zeros((40, 40), dtype=np.uint8))
    assert (healthy.full(), healthy.plain()) == (SKIN.empty, SKIN.empty)


def test_a_given_caption_overrides_and_is_not_turned_where_it_names_a_place() -> None:
    plain = Sentences.of(SKIN, replace(BARE, caption="melanoma with streaks", label="nevus"), IMAGE, corner())
    placed = Sentences.of(SKIN, replace(BARE, caption="a lesion at the upper left"), IMAGE, corner())
    assert plain.full(3) == "melanoma with streaks"
    assert (list(plain.turns), list(placed.turns)) == (list(range(8)), [0])


def test_shares_of_captions() -> None:
    said = Sentences.of(SKIN, replace(BARE, label="nevus"), IMAGE, corner())
    drawn = [said.drawn(0, seed, 0.1, 0.3) for seed in range(1500)]
    found = Counter("none" if not text else "plain" if text == said.plain() else "full" for text in drawn)
    shares = {kind: n / len(drawn) for kind, n in found.items()}
    assert shares == pytest.approx({"none": 0.1, "plain": 0.3, "full": 0.6}, abs=0.03)
    assert len(set(drawn)) > 10  # parts are left out at random
    assert said.drawn(0, 7, 0.1, 0.3) == said.drawn(0, 7, 0.1, 0.3)


def test_captions_are_those_of_images_with_a_lesion(tmp_path: Path) -> None:
    data = labelled(tmp_path, bare=2)
    found = captions(sentences(Pairs(data, 32), SKIN))
    assert [caption.label for caption in found] == ["melanoma", "nevus", "nevus", "seborrheic keratosis"]
    assert all(caption.label is not None and caption.label in caption.text for caption in found)


class TestClasses:
    def data(self, *labels: str | None) -> Dataset:
        records = tuple(Record(f"r{k}", Path(f"{k}.png"), label=label) for k, label in enumerate(labels))
        return Dataset("d", Path("d"), records)

    def test_auto_is_a_grammar_that_knows_all_of_them(self) -> None:
        found = grammar_for(self.data("melanoma", None, "Common_Nevus"), "auto")
        assert found is not None
        assert found.name == "skin"
        assert grammar_for(self.data(None, None), "auto") is None

    def test_a_grammar_that_is_about_the_one_class_goes_before_one_with_a_slot_for_it(self) -> None:
        for labels, name in (("Polyp", None), "polyp"), (("polyp", "ulcer"), "generic"), (("lesion",), "generic"):
            found = grammar_for(self.data(*labels), "auto")
            assert found is not None
            assert found.name == name
        stated = grammar_for(self.data("polyp"), "polyp")
        assert stated is not None
        record = replace(BARE, label="polyp")
        assert Sentences.of(stated, record, IMAGE, corner()).full().startswith("endoscopic photo of a ")
        assert Sentences.of(stated, record, IMAGE, None).full() == "a photo of a polyp"

    @pytest.mark.parametrize(
        ("labels", "grammar", "line"),
        [
            (("nevus", "melanomma"), "auto", "d: r1 is of class 'melanomma' .* grammar skin .* knows is 'melanoma'"),
            (("melanoma",), "generic", "r0 is of class 'melanoma' .*, which the grammar generic does not know"),
            (("adenoma",), "polyp", "which the grammar polyp does not know; it has no place for classes"),
        ],
    )
    def test_others_are_refused(self, labels: tuple[str, ...], grammar: str, line: str) -> None:
        with pytest.raises(InputError, match=line) as caught:
            grammar_for(self.data(*labels), grammar)
        assert "\n" not in str(caught.value)
