"""What a lesion is asked for with: words that its mask decides, words that nobody can know, and words that are wrong.

What geometry decides is read off the mask, so that text and mask agree. What nobody can know of an image that does not
exist yet (texture, colour, location, light, a diagnosis) is drawn by the seed, so that the prompt asks for something
definite: in proportion to how often the training images have it where the caller counted them, else evenly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from morphogen.data.mask_words import AGREEING, GEOMETRY, choices
from morphogen.data.pairs import Pairs
from morphogen.data.prompts import Grammar, fill_slots, slots_of, tokens
from morphogen.errors import InputError

TEXTS = ("mask", "none", "wrong")
"""mask: words that fit the mask; none: no words; wrong: every word that the mask decides is another one."""

Counts = Mapping[str, Mapping[str, float]]
"""Slot -> word -> how often it is to be drawn; the word "" leaves the slot's part of the sentence out."""


@dataclass(frozen=True)
class Contradiction:
    """A `word` in a prompt, of the slot `slot`, for which the mask says `truth`."""

    slot: str
    word: str
    truth: str


def prompt_for(
    grammar: Grammar,
    given: str | None,
    mask: np.ndarray,
    rng: np.random.Generator,
    text: str = "mask",
    counts: Counts | None = None,
) -> str:
    """The prompt of one sample: `given`, its slots filled, or one composed as `text` says where nothing is given.

    Raises:
        InputError: `given` names an unknown slot, or says what the mask contradicts.
    """
    if given is None:
        return compose(grammar, mask, rng, text, counts)
    filled = fill(grammar, given, mask, rng, counts)
    refuse_contradictions(grammar, filled, mask)
    return filled


def compose(
    grammar: Grammar, mask: np.ndarray, rng: np.random.Generator, text: str = "mask", counts: Counts | None = None
) -> str:
    """A prompt for the lesion of a mask.

    The words that are drawn are the same for ``mask`` and ``wrong``: the two differ in what geometry decides, alone.

    Args:
        grammar: How to say it.
        mask: (H, W) label map.
        rng: Draws what nobody knows.
        text: One of `TEXTS`.
        counts: What to draw in proportion to; slots that are not named are drawn evenly from the grammar's words.

    Raises:
        InputError: `text` is none of `TEXTS`.
    """
    if text not in TEXTS:
        raise InputError(f"text={text}: is none of {', '.join(TEXTS)}; choose one of them")
    if text == "none":
        return ""
    if not bool((mask > 0).any()):
        return grammar.empty
    words = dict(grammar.defaults) | _drawn(grammar, rng, counts or {})
    truth = _truth(grammar, mask)
    return grammar.compose(words | (truth if text == "mask" else _others(grammar, truth, rng)))


def fill(
    grammar: Grammar, template: str, mask: np.ndarray, rng: np.random.Generator, counts: Counts | None = None
) -> str:
    """A prompt whose slots, as in ``{size} {shape} polyp``, get their words: from the mask, else drawn.

    Raises:
        InputError: A slot that the grammar lacks, a lone brace, or nothing in the mask to fill a slot from.
    """
    for name in slots_of(template):
        if name not in grammar.slots:
            raise InputError(
                f"prompt {template!r}: grammar {grammar.name} has no slot {name!r}; it has {', '.join(grammar.slots)}"
            )
    if not slots_of(template):
        _refuse_braces(template, template, grammar)
        return template
    words = dict(grammar.defaults) | _drawn(grammar, rng, _without_gaps(counts or {})) | _truth(grammar, mask)
    for name in slots_of(template):
        if name not in words:
            why = "the mask holds no lesion" if grammar.slots[name].computed in GEOMETRY else "it has no words"
            raise InputError(f"prompt {template!r}: nothing fills {{{name}}}, since {why}; write the words out")
    filled = fill_slots(template, words)
    _refuse_braces(filled, template, grammar)
    return filled


def contradictions(grammar: Grammar, text: str, mask: np.ndarray) -> list[Contradiction]:
    """Words of a literal prompt (`stated`) for which the mask says another one.

    Args:
        grammar: Its slots that geometry decides are looked at.
        text: The prompt.
        mask: (H, W) label map; an empty one contradicts nothing.
    """
    truth = _truth(grammar, mask)
    said = [(name, word) for name, word in stated(grammar, text) if name in truth]
    return [
        Contradiction(name, word, truth[name])
        for name, word in said
        if word != truth[name] and word not in AGREEING.get(truth[name], ())
    ]


def stated(grammar: Grammar, text: str) -> list[tuple[str, str]]:
    """What a literal prompt says of a lesion's geometry: (slot, word), in the order of the text.

    The longest phrase counts: "semi-pedunculated" holds no "pedunculated", and "irregular surface" no "irregular". Not
    judged are words that may stand in another slot or in the template as well.
    """
    owners: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    for name, slot in grammar.slots.items():
        for word in choices(slot):
            owners.setdefault(tuple(tokens(word)), []).append((name, word))
    plain = set(tokens(" ".join((grammar.template, *grammar.short))))
    found, said, i = [], tokens(text), 0
    while i < len(said):
        fitting = [phrase for phrase in owners if tuple(said[i : i + len(phrase)]) == phrase]
        phrase = max(fitting, key=len, default=())
        if phrase and len(owners[phrase]) == 1 and not plain.issuperset(phrase):
            (name, word) = owners[phrase][0]
            found += [(name, word)] if grammar.slots[name].computed in GEOMETRY else []
        i += max(1, len(phrase))
    return found


def refuse_contradictions(grammar: Grammar, text: str, mask: np.ndarray) -> None:
    """Refuse a prompt that says otherwise than its mask.

    Raises:
        InputError: Names the first such word, what the mask says, and the way out.
    """
    for found in contradictions(grammar, text, mask):
        raise InputError(
            f"prompt {text!r}: says {found.word!r}, but the mask is {found.truth!r}; "
            f"write {{{found.slot}}} there, or leave the word out"
        )


def count_words(grammar: Grammar, pairs: Pairs) -> dict[str, dict[str, float]]:
    """How often the training images have each word that pixels or their class decide, to be drawn by (`compose`).

    Args:
        grammar: How they are described.
        pairs: The annotated training images.
    """
    counts: dict[str, Counter[str]] = {}
    for i, record in enumerate(pairs.dataset):
        image, mask = pairs[i]
        words = grammar.describe(np.ascontiguousarray(np.moveaxis(image, 0, -1)), mask, record.label)
        for name, slot in grammar.slots.items():
            known = record.label is not None if name == "label" else slot.computed not in (*GEOMETRY, None)
            if known and bool((mask > 0).any()):
                counts.setdefault(name, Counter())[words.get(name, "")] += 1
    return {name: {word: float(n) for word, n in sorted(counter.items())} for name, counter in counts.items()}


def _truth(grammar: Grammar, mask: np.ndarray) -> dict[str, str]:
    """The word of every slot that geometry decides; none for an empty mask."""
    if not bool((mask > 0).any()):
        return {}
    words = grammar.describe(None, mask)
    return {name: words[name] for name, slot in grammar.slots.items() if slot.computed in GEOMETRY}


def _others(grammar: Grammar, truth: Mapping[str, str], rng: np.random.Generator) -> dict[str, str]:
    """Another word than the true one for every slot that geometry decides and that has another one."""
    words = {}
    for name, true in truth.items():
        allowed = (true, *AGREEING.get(true, ()))
        wrong = [word for word in choices(grammar.slots[name]) if word not in allowed]
        if wrong:
            words[name] = wrong[int(rng.integers(len(wrong)))]
    return words


def _drawn(grammar: Grammar, rng: np.random.Generator, counts: Counts) -> dict[str, str]:
    """A word for every slot that neither geometry nor a default decides."""
    words = {}
    for name, slot in grammar.slots.items():
        if slot.computed in GEOMETRY or (name in grammar.defaults and name not in counts):
            continue
        weights = counts.get(name) or dict.fromkeys(choices(slot), 1.0)
        at = float(rng.uniform()) * sum(weights.values())
        drawn = next((w for w, total in zip(weights, np.cumsum([*weights.values()]), strict=True) if at < total), "")
        if drawn:
            words[name] = drawn
    return words


def _without_gaps(counts: Counts) -> Counts:
    """Counts without the empty word, for slots that a user asked for by name."""
    return {name: {word: n for word, n in words.items() if word} for name, words in counts.items()}


def _refuse_braces(filled: str, template: str, grammar: Grammar) -> None:
    if "{" in filled or "}" in filled:
        known = ", ".join(f"{{{name}}}" for name in grammar.slots)
        raise InputError(f"prompt {template!r}: has a brace that is no slot; the slots are {known}")
