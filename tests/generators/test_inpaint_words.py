"""Prompts of lesions to be painted: they fit the mask, or fit it nowhere; contradictions are named."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morphogen.data.mask_words import AGREEING, GEOMETRY, choices
from morphogen.data.pairs import Pairs
from morphogen.data.phantoms import phantom, phantom_dataset
from morphogen.data.prompts import Grammar, check_length, check_words, grammars, vocabulary
from morphogen.data.records import Dataset
from morphogen.errors import InputError
from morphogen.generators.inpaint.config import inpaint_config
from morphogen.generators.inpaint.model import check
from morphogen.generators.inpaint.words import (
    Contradiction,
    compose,
    contradictions,
    count_words,
    fill,
    prompt_for,
    refuse_contradictions,
    stated,
)

POLYP, SKIN, GENERIC = (Grammar.load(name) for name in ("polyp", "skin", "generic"))
ALL = [Grammar.load(name) for name in grammars()]


def ellipse(row: float, column: float, a: float, b: float, size: int = 96) -> np.ndarray:
    rows, columns = np.indices((size, size))
    return (((rows - row) / a) ** 2 + ((columns - column) / b) ** 2 <= 1).astype(np.int64)


@st.composite
def lesions(draw: st.DrawFn) -> np.ndarray:
    """One to three ellipses of two labels, anywhere."""
    mask = np.zeros((64, 64), dtype=np.int64)
    for _ in range(draw(st.integers(1, 3))):
        place, axes = (draw(st.tuples(st.floats(low, high), st.floats(low, high))) for low, high in ((0, 63), (1, 30)))
        mask[ellipse(*place, *axes, size=64) > 0] = draw(st.integers(1, 2))
    return mask


@settings(max_examples=60, deadline=None)
@given(mask=lesions(), seed=st.integers(0, 2**32), grammar=st.sampled_from(ALL))
def test_composed_prompts_never_contradict_their_mask(mask: np.ndarray, seed: int, grammar: Grammar) -> None:
    text = compose(grammar, mask, np.random.default_rng(seed), "mask")
    assert contradictions(grammar, text, mask) == []
    check_words(text, vocabulary())
    check_length(text, 60)
    truth = grammar.describe(None, mask)
    for name, slot in grammar.slots.items():
        assert slot.computed not in GEOMETRY or truth[name] in text


@settings(max_examples=60, deadline=None)
@given(mask=lesions(), seed=st.integers(0, 2**32), grammar=st.sampled_from(ALL))
def test_no_computed_word_of_a_wrong_prompt_agrees(mask: np.ndarray, seed: int, grammar: Grammar) -> None:
    text = compose(grammar, mask, np.random.default_rng(seed), "wrong")
    truth = grammar.describe(None, mask)
    said = words_of(grammar, mask, seed, "wrong")
    for name, slot in grammar.slots.items():
        if slot.computed in GEOMETRY:
            assert said[name] != truth[name]
            assert said[name] not in AGREEING.get(truth[name], ())
    found = {c.slot: c for c in contradictions(grammar, text, mask)}
    judged = {n for n, s in grammar.slots.items() if s.computed in GEOMETRY and said[n] != "irregular"}
    assert judged <= set(found)  # "irregular" may be shape or border
    assert all(c.word == said[c.slot] and c.truth == truth[c.slot] for c in found.values())
    check_words(text, vocabulary())


def words_of(grammar: Grammar, mask: np.ndarray, seed: int, text: str) -> dict[str, str]:
    """The word of every slot, read off a template that keeps them apart."""
    apart = replace(grammar, template="|".join(f"[{{{name}}}]" for name in grammar.slots))
    said = compose(apart, mask, np.random.default_rng(seed), text).split("|")
    return dict(zip(grammar.slots, said, strict=True))


class TestCompose:
    MASK = ellipse(40, 40, 14, 14)

    def test_none_says_nothing(self) -> None:
        assert compose(POLYP, self.MASK, np.random.default_rng(0), "none") == ""

    def test_it_asks_for_something_definite(self) -> None:
        texts = [compose(POLYP, self.MASK, np.random.default_rng(seed)) for seed in range(40)]
        assert all(text.startswith("endoscopic photo of a medium-sized sessile polyp with ") for text in texts)
        for name in ("texture", "color", "location", "lighting"):
            used = {word for word in choices(POLYP.slots[name]) if any(word in text for text in texts)}
            assert len(used) == len(choices(POLYP.slots[name]))
            assert all(any(word in text for word in choices(POLYP.slots[name])) for text in texts)

    def test_same_seed_same_words_and_wrong_differs_only_where_geometry_decides(self) -> None:
        one, two = (compose(POLYP, self.MASK, np.random.default_rng(3), "mask") for _ in range(2))
        assert one == two
        wrong = compose(POLYP, self.MASK, np.random.default_rng(3), "wrong")
        assert wrong.partition(" polyp ")[2] == one.partition(" polyp ")[2]
        assert wrong != one

    def test_drawn_words_follow_the_counts(self) -> None:
        counts = {"color": {"reddish": 3.0, "whitish": 1.0}, "texture": {"": 1.0}}
        rng, drawn = np.random.default_rng(0), Counter()
        for _ in range(300):
            text = compose(POLYP, self.MASK, rng, counts=counts)
            drawn[next(word for word in ("reddish", "whitish") if word in text)] += 1
            assert "surface" not in text
            assert "pattern" not in text
        assert 195 < drawn["reddish"] < 255

    def test_defaults_stand(self) -> None:
        assert compose(GENERIC, self.MASK, np.random.default_rng(0)).startswith("medical image of a small round lesion")

    def test_a_mask_without_a_lesion_and_an_unknown_text(self) -> None:
        assert compose(POLYP, 0 * self.MASK, np.random.default_rng(0)) == POLYP.empty
        with pytest.raises(InputError, match="text=true: is none of mask, none, wrong"):
            compose(POLYP, self.MASK, np.random.default_rng(0), "true")


class TestFill:
    MASK = ellipse(40, 40, 14, 14)

    def test_slots_are_filled(self) -> None:
        text = fill(POLYP, "{size} {shape} polyp with granular surface", self.MASK, np.random.default_rng(0))
        assert text == "medium-sized sessile polyp with granular surface"
        assert fill(POLYP, "a plain polyp", self.MASK, np.random.default_rng(0)) == "a plain polyp"
        oval = fill(SKIN, "a {shape} lesion", ellipse(40, 40, 20, 14), np.random.default_rng(0))
        assert oval == "an oval lesion"

    def test_what_nobody_knows_is_drawn(self) -> None:
        counts = {"color": {"": 9.0, "reddish": 1.0}}
        texts = {fill(POLYP, "{color}, {texture}", self.MASK, np.random.default_rng(i), counts) for i in range(30)}
        assert all(text.startswith("reddish, ") for text in texts)
        assert len(texts) > 4

    @pytest.mark.parametrize(
        ("template", "fault"),
        [
            (
                "a {mood} polyp",
                "grammar polyp has no slot 'mood'; it has size, shape, color, texture, location, lighting",
            ),
            ("a {size polyp", "brace that is no slot"),
            ("a {size} {polyp", "brace that is no slot"),
            ("a {} polyp", "brace that is no slot"),
        ],
    )
    def test_faults(self, template: str, fault: str) -> None:
        with pytest.raises(InputError, match=fault) as error:
            fill(POLYP, template, self.MASK, np.random.default_rng(0))
        assert "\n" not in str(error.value)

    def test_an_empty_mask_fills_nothing(self) -> None:
        with pytest.raises(InputError, match=r"nothing fills \{size\}, since the mask holds no lesion"):
            fill(POLYP, "a {size} polyp", 0 * self.MASK, np.random.default_rng(0))


class TestContradictions:
    MASK = ellipse(40, 40, 14, 14)

    def test_words_of_computed_slots(self) -> None:
        found = contradictions(POLYP, "A large pedunculated polyp", self.MASK)
        assert found == [
            Contradiction("size", "large", "medium-sized"),
            Contradiction("shape", "pedunculated", "sessile"),
        ]
        assert contradictions(POLYP, "a medium-sized sessile polyp, reddish, rectum", self.MASK) == []

    def test_the_longest_phrase_counts(self) -> None:
        semi = contradictions(POLYP, "a semi-pedunculated polyp", self.MASK)
        assert [c.word for c in semi] == ["semi-pedunculated"]
        assert contradictions(SKIN, "a lesion on the upper extremity", self.MASK) == []
        assert [c.word for c in contradictions(SKIN, "in the lower right of the image", self.MASK)] == ["lower right"]

    def test_words_of_two_slots_are_not_judged(self) -> None:
        assert contradictions(SKIN, "a lesion with irregular border", self.MASK) == []
        assert [c.slot for c in contradictions(SKIN, "a lesion with slightly irregular border", self.MASK)] == [
            "border"
        ]

    def test_flat_does_not_contradict_slightly_elevated(self) -> None:
        assert contradictions(POLYP, "a flat, slightly elevated polyp", ellipse(48, 48, 30, 12)) == []
        assert [c.word for c in contradictions(POLYP, "a flat polyp", self.MASK)] == ["flat"]

    def test_an_empty_mask_contradicts_nothing(self) -> None:
        assert contradictions(POLYP, "a large polyp", 0 * self.MASK) == []

    def test_refusal_names_word_truth_and_remedy(self) -> None:
        with pytest.raises(InputError) as error:
            refuse_contradictions(POLYP, "a large sessile polyp", self.MASK)
        assert str(error.value) == (
            "prompt 'a large sessile polyp': says 'large', but the mask is 'medium-sized'; "
            "write {size} there, or leave the word out"
        )
        refuse_contradictions(POLYP, "a sessile polyp", self.MASK)


def test_what_a_prompt_states_of_geometry() -> None:
    said = stated(POLYP, "A large semi-pedunculated polyp, reddish, with irregular surface")
    assert said == [("size", "large"), ("shape", "semi-pedunculated")]
    assert stated(SKIN, "a lesion with irregular border, in the lower right") == [("position", "lower right")]
    assert stated(POLYP, "a photo of a polyp") == []


def test_the_prompt_of_a_sample() -> None:
    mask, rng = ellipse(40, 40, 14, 14), np.random.default_rng(0)
    assert prompt_for(POLYP, "", mask, rng) == ""
    assert prompt_for(POLYP, "{size} polyp", mask, rng, "wrong") == "medium-sized polyp"
    assert prompt_for(POLYP, None, mask, rng, "none") == ""
    assert "medium-sized sessile" in prompt_for(POLYP, None, mask, rng)
    with pytest.raises(InputError, match="says 'large'"):
        prompt_for(POLYP, "{shape} large polyp", mask, rng)


def test_counted_words_are_those_of_the_training_images(tmp_path: Path) -> None:
    data = phantom_dataset(tmp_path, "skin", 12, 64)
    counts = count_words(SKIN, Pairs(data, 64))
    assert set(counts) == {"label", "colors"}
    expected, labels = Counter(), Counter()
    for i, record in enumerate(data):
        image, mask = phantom("skin", i, 64, style=i // 4)
        expected[SKIN.describe(image, mask).get("colors", "")] += 1
        labels[str(record.label).replace("_", " ")] += 1
    assert counts["colors"] == expected
    assert counts["label"] == labels


def test_a_grammar_of_the_users_own(tmp_path: Path) -> None:
    path = tmp_path / "burn.yaml"
    path.write_text(
        'name: burn\ntemplate: "photo of a [{size} ]burn[ in the {position} of the image][, {tissue}]"\n'
        'short: ["photo of a burn"]\nempty: photo of normal skin\nunknown: photo of skin\n'
        "slots:\n  size: {computed: area, bins: [0.05], words: [small, large]}\n  position: {computed: position}\n"
        "  tissue: {words: [granular surface, red and black]}\n"
    )
    grammar, mask = Grammar.load(path), ellipse(20, 20, 8, 8)
    texts = {compose(grammar, mask, np.random.default_rng(seed)) for seed in range(20)}
    start = "photo of a small burn in the upper left of the image, "
    assert texts == {start + "granular surface", start + "red and black"}
    wrong = compose(grammar, mask, np.random.default_rng(0), "wrong")
    assert [c.slot for c in contradictions(grammar, wrong, mask)] == ["size", "position"]
    with pytest.raises(InputError, match="says 'large', but the mask is 'small'"):
        refuse_contradictions(grammar, "a large burn", mask)
    check_words(" ".join(texts), [*vocabulary(), "burn"])
    with pytest.raises(InputError, match="does not know 'burn'"):
        check_words(" ".join(texts), vocabulary())


def documented() -> str:
    """The example of docs/prompts.md."""
    page = (Path(__file__).parents[2] / "docs" / "prompts.md").read_text(encoding="utf-8")
    block = page.partition("    # wound.yaml\n")[2].partition("\n\n")[0]
    return "\n".join(line[4:] for line in block.splitlines())


class TestPreset:
    """A user's grammar on its way from ``--preset grammar=FILE`` to the generator."""

    @pytest.fixture
    def data(self, tmp_path: Path) -> Dataset:
        return phantom_dataset(tmp_path / "data", "skin", 3, 64)

    def test_the_documented_one_is_taken(self, data: Dataset, tmp_path: Path) -> None:
        path = tmp_path / "wound.yaml"
        path.write_text(documented())
        config = inpaint_config(f"tiny+grammar={path}")
        foundation = check(data, config)
        text = compose(Grammar.load(config.grammar), ellipse(20, 20, 12, 12), np.random.default_rng(0))
        assert text.startswith("medical image of a medium-sized round wound, in the upper left of the image with ")
        foundation.check_prompts([text])

    @pytest.mark.parametrize(
        ("change", "fault"),
        [
            (("wound[", "sore["), "does not know 'sore'"),
            (("[{size} ]", "[{size "), "without its partner"),
            (("computed: outline", "computed: mood"), "is computed by 'mood'"),
            (("dark surface", "no"), "False is no text"),
        ],
    )
    def test_faults_are_named(self, data: Dataset, tmp_path: Path, change: tuple[str, str], fault: str) -> None:
        path = tmp_path / "wound.yaml"
        path.write_text(documented().replace(*change))
        with pytest.raises(InputError, match=fault) as error:
            check(data, inpaint_config(f"tiny+grammar={path}"))
        assert "\n" not in str(error.value)
        with pytest.raises(InputError, match="no such grammar"):
            check(data, inpaint_config(f"tiny+grammar={tmp_path / 'none.yaml'}"))
