"""Prompts: words follow the mask and the pixels, unknown parts are left out, the vocabulary is closed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy.special import ellipe

from morphogen.data import prompts
from morphogen.data.mask_words import GEOMETRY, Region, area_bin, choices
from morphogen.data.phantoms import phantom, phantom_label
from morphogen.data.prompts import (
    Grammar,
    caption,
    check_length,
    check_words,
    grammars,
    sample_caption,
    tokens,
    vocabulary,
)
from morphogen.errors import InputError

POLYP, SKIN, GENERIC = (Grammar.load(name) for name in ("polyp", "skin", "generic"))


def ellipse(row: float, column: float, a: float, b: float, size: int = 96) -> np.ndarray:
    rows, columns = np.indices((size, size))
    return (((rows - row) / a) ** 2 + ((columns - column) / b) ** 2 <= 1).astype(np.int64)


def filled(mask: np.ndarray, inside: tuple[int, int, int], outside: tuple[int, int, int]) -> np.ndarray:
    image = np.empty((*mask.shape, 3), dtype=np.uint8)
    image[:] = outside
    image[mask > 0] = inside
    return image


class TestGeometry:
    @pytest.mark.parametrize(
        ("radius", "polyp", "skin"),
        [
            (5, "diminutive", "small"),
            (10, "small", "small"),
            (18, "medium-sized", "medium-sized"),
            (40, "large", "large"),
        ],
    )
    def test_size_follows_the_area(self, radius: float, polyp: str, skin: str) -> None:
        mask = ellipse(48, 48, radius, radius)
        assert POLYP.describe(None, mask)["size"] == polyp
        assert SKIN.describe(None, mask)["size"] == skin

    @pytest.mark.parametrize(("ratio", "word"), [(1.0, "round"), (0.7, "oval"), (0.35, "elongated")])
    def test_shape_follows_the_eccentricity(self, ratio: float, word: str) -> None:
        assert abs(Region(ellipse(48, 48, 30, 30 * ratio), None).properties.eccentricity ** 2 - (1 - ratio**2)) < 0.03
        assert SKIN.describe(None, ellipse(48, 48, 30, 30 * ratio))["shape"] == word

    def test_a_cross_is_irregular(self) -> None:
        cross = np.maximum(ellipse(48, 48, 30, 7), ellipse(48, 48, 7, 30))
        assert SKIN.describe(None, cross)["shape"] == "irregular"
        assert SKIN.describe(None, cross)["border"] == "irregular"
        assert POLYP.describe(None, cross)["shape"] == "semi-pedunculated"

    def test_paris_words(self) -> None:
        assert POLYP.describe(None, ellipse(48, 48, 20, 20))["shape"] == "sessile"
        assert POLYP.describe(None, ellipse(48, 48, 30, 12))["shape"] == "slightly elevated"
        mushroom = np.maximum(ellipse(28, 48, 16, 16), ellipse(62, 48, 26, 4))
        assert POLYP.describe(None, mushroom)["shape"] == "pedunculated"
        spread = np.maximum.reduce([ellipse(r, c, 14, 24) for r, c in ((25, 30), (45, 62), (68, 30))])
        assert POLYP.describe(None, spread)["shape"] == "laterally spreading"

    @pytest.mark.parametrize("ratio", [1.0, 0.6, 0.3])
    def test_roughness_is_that_of_the_ellipse(self, ratio: float) -> None:
        perimeter = 4 * 40 * ellipe(1 - ratio**2)
        expected = perimeter**2 / (4 * np.pi * np.pi * 40 * 40 * ratio)
        assert abs(Region(ellipse(48, 48, 40, 40 * ratio), None).roughness / expected - 1) < 0.05

    def test_position_on_the_grid(self) -> None:
        words = [[SKIN.describe(None, ellipse(r, c, 6, 6))["position"] for c in (16, 48, 80)] for r in (16, 48, 80)]
        assert words == [
            ["upper left", "upper center", "upper right"],
            ["center left", "center", "center right"],
            ["lower left", "lower center", "lower right"],
        ]


class TestAreaBins:
    @pytest.mark.parametrize(
        ("share", "name"),
        [
            (0.0001, "<2%"),
            (0.0199, "<2%"),
            (0.0201, "2-8%"),
            (0.0799, "2-8%"),
            (0.0801, ">=8%"),
            (0.6, ">=8%"),
        ],
    )
    def test_bins(self, share: float, name: str) -> None:
        mask = np.zeros(10_000, dtype=np.int64)
        mask[: round(10_000 * share)] = 2
        assert area_bin(mask.reshape(100, 100)) == name

    def test_every_geometric_rule_says_a_word_of_its_choices(self) -> None:
        for grammar in (POLYP, SKIN, GENERIC):
            for seed in range(20):
                words = grammar.describe(None, phantom("mucosa", seed, 48)[1])
                for name, slot in grammar.slots.items():
                    assert slot.computed not in GEOMETRY or words[name] in choices(slot)


class TestPixels:
    def test_skin_colours_are_the_nearest_by_share(self) -> None:
        mask = ellipse(48, 48, 30, 30)
        for name, colour in SKIN.slots["colors"].palette.items():
            assert SKIN.describe(filled(mask, tuple(colour), (230, 180, 160)), mask)["colors"] == name
        image = filled(mask, (36, 28, 28), (230, 180, 160))
        image[40:] = (106, 110, 124)
        assert SKIN.describe(image, mask)["colors"] == "blue-gray and black"

    @pytest.mark.parametrize(
        ("inside", "word"),
        [
            ((202, 132, 112), "same as surrounding mucosa"),
            ((200, 80, 70), "reddish"),
            ((240, 225, 215), "whitish"),
            ((230, 165, 140), "pale pink"),
            ((130, 90, 80), None),
        ],
    )
    def test_polyp_colour_is_told_against_the_mucosa(self, inside: tuple[int, int, int], word: str | None) -> None:
        mask = ellipse(48, 48, 20, 20)
        assert POLYP.describe(filled(mask, inside, (200, 130, 110)), mask).get("color") == word

    def test_grey_images_have_colours_too(self) -> None:
        mask = ellipse(48, 48, 20, 20)
        assert GENERIC.describe((200 * mask).astype(np.uint8), mask)["colors"] == "light gray"


class TestCaption:
    def test_full_sentence(self) -> None:
        mask = ellipse(20, 20, 10, 10)
        image = filled(mask, (98, 62, 46), (230, 180, 160))
        assert caption(SKIN, image, mask, "melanoma", {"site": "back", "age": "elderly", "sex": "male"}) == (
            "dermoscopic image of melanoma, small round lesion with regular border, dark brown, "
            "in the upper left of the image, on the back of an elderly male"
        )

    def test_says_nothing_that_nobody_knows(self) -> None:
        mask = ellipse(48, 48, 20, 20)
        assert caption(POLYP, None, mask) == "endoscopic photo of a medium-sized sessile polyp"
        assert caption(SKIN, None, mask, extra={"texture": "streaks"}).endswith("streaks, in the center of the image")
        assert caption(POLYP, None, None) == "endoscopic photo of mucosa"
        assert caption(SKIN, None, None, "atypical_nevus") == "dermoscopic image of atypical nevus"
        assert caption(POLYP, None, np.zeros((8, 8), dtype=np.int64)) == "endoscopic photo of normal mucosa"

    @pytest.mark.parametrize(
        ("known", "said"),
        [
            ({"age": "elderly", "sex": "male"}, " of an elderly male"),
            ({"age": "young"}, ", young skin"),
            ({"sex": "female"}, " of a female"),
            ({}, ""),
        ],
    )
    def test_the_first_wording_that_is_known(self, known: dict[str, str], said: str) -> None:
        mask = ellipse(48, 48, 20, 20)
        whole = caption(SKIN, None, mask, extra={"site": "back", **known})
        assert whole.endswith(f", on the back{said}")
        assert caption(SKIN, None, mask, extra=known).endswith(f"in the center of the image{said}")
        check_words(whole, vocabulary())
        assert "|" not in vocabulary()

    def test_without_a_mask_the_class_and_what_else_is_known(self) -> None:
        known = {"site": "back", "sex": "male", "texture": "streaks"}
        assert caption(SKIN, None, None, "nevus", known) == "dermoscopic image of nevus, streaks, on the back of a male"
        assert caption(SKIN, None, None, None, {"age": "child"}) == "dermoscopic image of skin, child skin"
        rectum = {"location": "rectum", "texture": "villous surface"}
        assert caption(POLYP, None, None, "polyp", rectum) == "a photo of a polyp with villous surface, rectum"
        drawn = {caption(SKIN, None, None, "nevus", known, np.random.default_rng(k)) for k in range(600)}
        assert len(drawn) == 8  # each of the three parts is left out at times

    def test_extra_words_stand_in_their_slots(self) -> None:
        text = caption(POLYP, None, ellipse(48, 48, 20, 20), extra={"texture": "smooth_surface", "location": "rectum"})
        assert text == "endoscopic photo of a medium-sized sessile polyp with smooth surface, rectum"
        with pytest.raises(InputError, match="no slot 'mood'"):
            caption(POLYP, None, ellipse(48, 48, 20, 20), extra={"mood": "good"})

    def test_article_before_a_vowel(self) -> None:
        assert GENERIC.compose({"label": "ulcer"}) == "medical image of an ulcer"
        assert GENERIC.compose({"label": "polyp"}) == "medical image of a polyp"

    def test_of_several_parts_the_largest_decides_the_shape(self) -> None:
        mask = np.maximum(ellipse(24, 24, 18, 18), 2 * ellipse(75, 75, 20, 4))
        assert SKIN.describe(None, mask)["shape"] == "round"
        assert SKIN.describe(None, mask)["position"] == "upper left"

    def test_sampled_captions_mix_short_and_full_ones(self) -> None:
        mask, rng = ellipse(48, 48, 20, 20), np.random.default_rng(0)
        drawn = [sample_caption(SKIN, None, mask, "melanoma", rng=rng) for _ in range(400)]
        full = caption(SKIN, None, mask, "melanoma")
        short = [SKIN.label_caption({"label": "melanoma"}, np.random.default_rng(i)) for i in range(20)]
        assert 0.2 < np.mean([text in short for text in drawn]) < 0.4
        assert full in drawn
        assert len(set(drawn)) > 15
        assert {word for text in drawn for word in tokens(text)} <= set(vocabulary())
        again = np.random.default_rng(0)
        assert [sample_caption(SKIN, None, mask, "melanoma", rng=again) for _ in range(400)] == drawn
        assert sample_caption(POLYP, None, 0 * mask, rng=rng) == POLYP.empty
        assert sample_caption(POLYP, None, None, rng=rng) == POLYP.unknown


class TestLength:
    @pytest.mark.parametrize("name", grammars())
    def test_no_sentence_of_a_shipped_grammar_is_longer_than_sixty_tokens(self, name: str) -> None:
        grammar = Grammar.load(name)
        check_length(grammar.longest, 60)
        check_words(grammar.longest, vocabulary())

    @pytest.mark.parametrize("name", grammars())
    def test_none_is_longer_than_the_longest(self, name: str) -> None:
        grammar, rng = Grammar.load(name), np.random.default_rng(0)
        limit = len(tokens(grammar.longest))
        for seed in range(10):
            image, mask = phantom("skin", seed, 40)
            extra = {n: str(rng.choice(s.words)) for n, s in grammar.slots.items() if s.words and not s.computed}
            assert len(tokens(caption(grammar, image, mask, extra=extra))) <= limit

    def test_longest_of_a_small_grammar(self, tmp_path: Path) -> None:
        path = tmp_path / "x.yaml"
        slots = (
            "slots: {size: {computed: palette, palette: {a b: [0, 0, 0], c: [9, 9, 9], d: [7, 7, 7], e f: [5, 5, 5]}}}"
        )
        path.write_text(TestGrammarFiles.GOOD + slots)
        assert len(tokens(Grammar.load(path).longest)) == len(tokens("a lesion, d and a b and e f"))

    def test_longest_of_several_wordings(self, tmp_path: Path) -> None:
        path = tmp_path / "x.yaml"
        good = TestGrammarFiles.GOOD.replace("[, {size}]", "[, {size}|, as long as it is {size}]")
        path.write_text(good + "slots: {size: {words: [a b]}}")
        assert Grammar.load(path).longest == "a lesion, as long as it is a b"


class TestVocabulary:
    @pytest.mark.parametrize(("kind", "name"), [("mucosa", "polyp"), ("skin", "skin"), ("skin", "generic")])
    def test_covers_captions_of_phantoms_and_they_fit(self, kind: str, name: str) -> None:
        grammar = Grammar.load(name)
        for seed in range(15):
            image, mask = phantom(kind, seed, 48)
            text = caption(grammar, image, mask, phantom_label(kind, seed))
            check_words(text, vocabulary())
            check_length(text, 60)

    def test_covers_every_word_of_the_grammar_files(self) -> None:
        for name in grammars():
            raw = (Path(prompts.__file__).parent / "grammars" / f"{name}.yaml").read_text()
            for slot in yaml.safe_load(raw)["slots"].values():
                for word in [*slot.get("words", []), *slot.get("palette", {})]:
                    check_words(word, vocabulary())

    def test_is_sorted_lower_case_and_has_the_common_words(self) -> None:
        words = vocabulary()
        assert words == sorted(set(words))
        assert all(word == word.lower() and tokens(word) == [word] for word in words)
        assert {"a", "photo", "of", "polyp", "no", "on", "melanoma", "dermoscopic", "-", ",", "7"} <= set(words)

    def test_tokens(self) -> None:
        assert tokens("Blue-gray, Bowen's 12/x") == ["blue", "-", "gray", ",", "bowen", "'s", "1", "2", "/", "x"]

    def test_unknown_words_are_named_with_near_ones(self) -> None:
        with pytest.raises(InputError, match="does not know 'polypp'; near words: polyp") as error:
            check_words("a photo of a polypp", vocabulary())
        assert "\n" not in str(error.value)
        with pytest.raises(InputError, match="other words"):
            check_words("zzqqx", vocabulary())

    def test_too_long(self) -> None:
        check_length("a b c", 3)
        with pytest.raises(InputError, match="has 4 tokens, and the text encoder reads 3"):
            check_length("a b, c", 3)


class TestGrammarFiles:
    GOOD = "name: x\ntemplate: a lesion[, {size}]\nshort: [a lesion]\nempty: nothing\nunknown: image\n"

    def test_own_file(self, tmp_path: Path) -> None:
        path = tmp_path / "x.yaml"
        path.write_text(self.GOOD + "slots: {size: {computed: area, bins: [0.1], words: [tiny, huge]}}\n")
        assert caption(Grammar.load(path), None, ellipse(48, 48, 5, 5)) == "a lesion, tiny"

    @pytest.mark.parametrize(
        ("text", "fault"),
        [
            ("{", "is not YAML"),
            ("- a", "is not a grammar"),
            (GOOD + "slots: {}", "slot 'size'"),
            (GOOD + "slots: {size: {computed: mood}}", "computed by 'mood'"),
            (GOOD + "slots: {size: {computed: area, bins: [0.1], words: [tiny]}}", "1 words for 1 bins"),
            (GOOD + "slots: {size: {words: [a], colour: red}}", "is not a grammar"),
            (GOOD + "slots: {size: {computed: palette}}", "has no palette"),
            (GOOD.replace("[, {size}]", " {size}") + "slots: {size: {words: [a]}}", "outside of brackets"),
            (GOOD.replace("[a lesion]", "['{size}']") + "slots: {size: {words: [a]}}", "no entry of short"),
        ],
    )
    def test_faults_are_one_line(self, tmp_path: Path, text: str, fault: str) -> None:
        path = tmp_path / "x.yaml"
        path.write_text(text)
        with pytest.raises(InputError, match=fault) as error:
            Grammar.load(path)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize(
        ("text", "fault"),
        [
            (
                GOOD + "slots: {size: {words: [a, no]}}",
                "False is no text; write it in quotes",
            ),
            (GOOD + "slots: {size: {words: a}}", "write a list"),
            (GOOD.replace("[a lesion]", "a lesion") + "slots: {size: {words: [a]}}", "short: is 'a lesion'"),
            (GOOD.replace("nothing", "7") + "slots: {size: {words: [a]}}", "empty is 7; write a text"),
            (GOOD + "slots: [size]", "slots: is .'size'.; write names"),
            (GOOD + "slots: {size: [a]}", "the slot 'size' is"),
            (GOOD + "mood: good\nslots: {size: {words: [a]}}", "it has 'mood'"),
            (GOOD + "defaults: {mood: good}\nslots: {size: {words: [a]}}", "defaults give 'mood'"),
            (GOOD + "slots: {size: {computed: area, bins: [0.2, 0.1], words: [a, b, c]}}", "list rising numbers"),
            (GOOD + "slots: {size: {computed: area, bins: [big], words: [a, b]}}", "list rising numbers"),
            (GOOD + "slots: {size: {computed: palette, palette: {red: [300, 0, 0]}}}", "'red' in its palette"),
            (GOOD + "slots: {size: {computed: palette, palette: {red: '#ff0000'}}}", "'red' in its palette"),
            (GOOD.replace("[, {size}]", "[, {size}") + "slots: {size: {words: [a]}}", "without its partner"),
            (
                GOOD.replace("a lesion[", "a lesion | wart[") + "slots: {size: {words: [a]}}",
                "outside of brackets, where",
            ),
            (GOOD.replace("[, {size}]", "[, {size}[, big]]") + "slots: {size: {words: [a]}}", "nest none"),
            (GOOD + f"slots: {{size: {{words: [{'very ' * 60}big]}}}}", "has 64 tokens, more than 60"),
        ],
    )
    def test_faults_of_words_and_numbers(self, tmp_path: Path, text: str, fault: str) -> None:
        path = tmp_path / "x.yaml"
        path.write_text(text)
        with pytest.raises(InputError, match=fault) as error:
            Grammar.load(path)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)

    def test_unknown_name(self) -> None:
        with pytest.raises(InputError, match=r"no such grammar; name a YAML file or one of generic, polyp, skin"):
            Grammar.load("colon")


POLYP_WORDS = """
    endoscopic photo of a polyp with diminutive small medium-sized large sessile pedunculated with a stalk
    semi-pedunculated flat, slightly elevated laterally spreading smooth irregular granular nodular/lobulated villous
    ulcerated surface visible vascular pattern pale pink same as surrounding mucosa reddish whitish with mucus cap
    ascending/transverse/descending/sigmoid colon rectum behind a fold near a haustral fold white light wet mucosa with
    specular highlights slightly out of focus
"""
SKIN_WORDS = """
    dermoscopic image of actinic keratosis / bowen's disease, basal cell carcinoma, benign keratosis, dermatofibroma,
    melanoma, melanocytic nevus, vascular lesion, small large lesion with regular slightly irregular border light brown,
    dark brown, black, red, white, blue-gray pigment network, globules, streaks, homogeneous, scale, vessels, in the
    center of the image on the of a male female
"""


@pytest.mark.parametrize("text", [POLYP_WORDS, SKIN_WORDS])
def test_the_vocabulary_has_the_words_that_people_use(text: str) -> None:
    assert set(prompts.tokens(text)) - set(prompts.vocabulary()) == set()
