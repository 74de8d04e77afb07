"""Prompts: grammars that turn what is known about a lesion into a sentence, and the closed vocabulary that they span.

A grammar is a small YAML file: a template whose optional parts stand in brackets, and slots with their words. Slots
that the mask or the pixels decide are filled by `mask_words`; the others are filled only by what the caller knows
(`extra`), and the part of the sentence around an unknown slot is left out: a caption asserts nothing that nobody knows.
A part may have several wordings, as in ``[ of a {age} {sex}| of a {sex}]``: the first whose slots are all known counts.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import yaml

from morphogen.data.mask_words import FIXED_WORDS, NAMED_COLOURS, RULES, Region, Slot, choices
from morphogen.errors import InputError

_FOLDER = Path(__file__).parent / "grammars"
PART = re.compile(r"\[([^\]]*)\]")
OR = "|"
"""Between the wordings of an optional part."""
_TAIL = re.compile(r"(?:\[[^\]]*\])+$")
_SLOT = re.compile(r"\{(\w+)\}")
_TOKEN = re.compile(r"'s|[^\W\d_]+|\d|[^\s\w]+|_")
_MARKS = (",", ".", "-", "/", "'", "'s", "(", ")", *"0123456789")
_LEFT_OUT = 0.2
"""Chance that a random caption leaves out an optional part although it is known."""
MAX_TOKENS = 60
"""A sentence of a grammar never has more tokens; CLIP's text encoders read 75, the one of `tiny` 62."""
_SHORT = 0.3
"""Share of short label captions among the sampled ones."""


@dataclass(frozen=True)
class Grammar:
    """How images of one kind are put into words.

    Attributes:
        name: Short name.
        template: The sentence; ``[optional part]``, ``[one wording|another]``, ``{slot}``.
        short: Label captions, each a template without optional parts.
        empty: The sentence for a mask without a lesion.
        unknown: The sentence for an image of which nothing is known.
        slots: By name.
        defaults: Word of a slot where nothing else gives one.
        words: Further words of the vocabulary.
    """

    name: str
    template: str
    short: tuple[str, ...]
    empty: str
    unknown: str
    slots: Mapping[str, Slot]
    defaults: Mapping[str, str] = field(default_factory=dict)
    words: tuple[str, ...] = ()

    @classmethod
    def load(cls, name_or_path: str | Path) -> Grammar:
        """Read a grammar that ships with the package (``polyp``, ``skin``, ``generic``) or a YAML file.

        Raises:
            InputError: No such grammar, or the file does not describe one.
        """
        from morphogen.data.grammar_files import parse  # which builds on this class

        shipped = _FOLDER / f"{name_or_path}.yaml"
        path = shipped if shipped.is_file() else Path(name_or_path)
        if not path.is_file():
            raise InputError(f"{name_or_path}: no such grammar; name a YAML file or one of {', '.join(grammars())}")
        try:
            return parse(yaml.safe_load(path.read_text(encoding="utf-8")), path)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: is not YAML ({' '.join(str(error).split())}); correct the file") from error
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); make it readable") from error

    def describe(
        self,
        image: np.ndarray | None,
        mask: np.ndarray | None,
        label: str | None = None,
        extra: Mapping[str, str] | None = None,
    ) -> dict[str, str]:
        """The word of every slot that geometry, pixels, `label` or `extra` decide; arguments as in `caption`."""
        words = dict(self.defaults)
        if mask is not None and bool((mask > 0).any()):
            region = Region(mask, image)
            computed = {n: RULES[s.computed](region, s) for n, s in self.slots.items() if s.computed is not None}
            words |= {name: word for name, word in computed.items() if word is not None}
        if label is not None and "label" in self.slots:
            words["label"] = _plain(label)
        for name, word in (extra or {}).items():
            if name not in self.slots:
                raise InputError(f"grammar {self.name}: has no slot {name!r}; it has {', '.join(self.slots)}")
            words[name] = _plain(word)
        return words

    def known(self, facts: Mapping[str, str]) -> dict[str, str]:
        """Those facts that this grammar has a slot and a word for, to be given as `extra`; others stay unsaid."""
        plain = {name: _plain(word) for name, word in facts.items() if name in self.slots}
        return {name: word for name, word in plain.items() if word in choices(self.slots[name])}

    def compose(self, words: Mapping[str, str], rng: np.random.Generator | None = None) -> str:
        """The sentence for these slot words; with `rng`, some optional parts are left out at random."""
        return fill_slots(_chosen(self.template, words, rng), words)

    def compose_bare(self, words: Mapping[str, str], labelled: bool, rng: np.random.Generator | None = None) -> str:
        """As `compose`, for an image without a mask: its class, and the known ones of the parts that end the template.

        Args:
            words: By slot.
            labelled: Whether the class of the image is known; else `unknown` stands in its place.
            rng: Leaves out some of those parts.
        """
        said = self.label_caption(words) if labelled else self.unknown
        return fill_slots(said + _chosen(self._tail, words, rng), words)

    @property
    def _tail(self) -> str:
        """The optional parts that end the template."""
        return self.template[len(_TAIL.sub("", self.template)) :]

    def label_caption(self, words: Mapping[str, str], rng: np.random.Generator | None = None) -> str:
        """A short caption for these slot words: the first that they fill, or a random one with `rng`."""
        fitting = [text for text in self.short if all(slot in words for slot in _SLOT.findall(text))]
        return fill_slots(fitting[0 if rng is None else int(rng.integers(len(fitting)))], words)

    @property
    def longest(self) -> str:
        """The sentence with the most tokens that the grammar's own words can make."""
        words = {name: _longest(slot) for name, slot in self.slots.items()}
        given = {name: word for name, word in words.items() if self.slots[name].computed is None}

        def fullest(text: str, words: Mapping[str, str]) -> str:
            def part(match: re.Match[str]) -> str:
                return max(_wordings(match, words), key=lambda text: len(tokens(fill_slots(text, words))), default="")

            return PART.sub(part, text)

        bare = (head + fullest(self._tail, given) for head in (*self.short, self.unknown))
        sentences = (fill_slots(text, words) for text in (fullest(self.template, words), *bare, self.empty))
        return max(sentences, key=lambda text: len(tokens(text)))

    @property
    def vocabulary(self) -> frozenset[str]:
        """Every token that a sentence of this grammar may hold."""
        texts = [_SLOT.sub(" ", re.sub(r"[\[\]]", "", t).replace(OR, " ")) for t in (self.template, *self.short)]
        texts += [self.empty, self.unknown, *self.defaults.values(), *self.words, "a an"]
        for slot in self.slots.values():
            texts += [*slot.words, *slot.palette, *FIXED_WORDS.get(slot.computed or "", ())]
        return frozenset(token for text in texts for token in tokens(text))


def caption(
    grammar: Grammar,
    image: np.ndarray | None,
    mask: np.ndarray | None,
    label: str | None = None,
    extra: Mapping[str, str] | None = None,
    rng: np.random.Generator | None = None,
) -> str:
    """The full caption of an image, from the parts that are known.

    Args:
        grammar: How to say it.
        image: (H, W) or (H, W, 3) uint8, or None: colours are then left out.
        mask: (H, W) label map, or None where the image is not annotated.
        label: Class of the whole image, or None.
        extra: Words for slots that neither geometry nor pixels decide (texture, location, site, ...), or overrides.
        rng: Leaves out some of the known parts at random, so that a text encoder sees them alone.

    Raises:
        InputError: `extra` names a slot that the grammar lacks.
    """
    words = grammar.describe(image, mask, label, extra)
    if mask is None:
        return grammar.compose_bare(words, label is not None, rng)
    return grammar.compose(words, rng) if bool((mask > 0).any()) else grammar.empty


def sample_caption(
    grammar: Grammar,
    image: np.ndarray | None,
    mask: np.ndarray | None,
    label: str | None = None,
    *,
    rng: np.random.Generator,
) -> str:
    """A caption for one training step: a label caption in 30 % of the draws, else `caption` with parts left out."""
    if mask is not None and not bool((mask > 0).any()):
        return grammar.empty
    if (mask is not None or label is not None) and rng.uniform() < _SHORT:
        return grammar.label_caption(grammar.describe(None, None, label), rng)
    return caption(grammar, image, mask, label, rng=rng)


def grammars() -> list[str]:
    """Names of the grammars that ship with the package."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def tokens(text: str) -> list[str]:
    """Lower-case words, single digits and punctuation marks; a hyphen or slash is a token of its own."""
    return _TOKEN.findall(text.lower())


@cache
def _vocabulary() -> tuple[str, ...]:
    return tuple(sorted(set(_MARKS).union(*(Grammar.load(name).vocabulary for name in grammars()))))


def vocabulary() -> list[str]:
    """All tokens of the package's grammars, sorted: the closed vocabulary of the small text encoder."""
    return list(_vocabulary())


def check_words(text: str, known: Iterable[str]) -> None:
    """Refuse a prompt with a word that is not `known`.

    Raises:
        InputError: Names the unknown words and those near to them.
    """
    words = sorted(known)
    unknown = [token for token in dict.fromkeys(tokens(text)) if token not in set(words)]
    if not unknown:
        return
    near = dict.fromkeys(n for token in unknown for n in difflib.get_close_matches(token, words, n=4, cutoff=0.6))
    remedy = f"near words: {', '.join(near)}" if near else "say it with other words"
    raise InputError(f"prompt {text!r}: the model does not know {', '.join(map(repr, unknown))}; {remedy}")


def check_length(text: str, limit: int) -> None:
    """Refuse a prompt of more than `limit` tokens (start and end marks not counted).

    Raises:
        InputError: States both numbers.
    """
    n = len(tokens(text))
    if n > limit:
        raise InputError(f"prompt {text!r}: has {n} tokens, and the text encoder reads {limit}; shorten it")


def _plain(text: str) -> str:
    return " ".join(text.replace("_", " ").lower().split())


def slots_of(text: str) -> list[str]:
    """Names of the slots, as ``{size}``, that a text holds, in order."""
    return _SLOT.findall(text)


def fill_slots(text: str, words: Mapping[str, str]) -> str:
    """Put the words into their slots, "an" before a vowel, and one blank between words."""
    filled = _SLOT.sub(lambda match: words[match[1]], text)
    return re.sub(r"\ba (?=[aeiou])", "an ", " ".join(filled.split()))


def _chosen(template: str, words: Mapping[str, str], rng: np.random.Generator | None) -> str:
    """A template with its known parts alone, each in the first wording that `words` fill."""

    def part(match: re.Match[str]) -> str:
        text = next(_wordings(match, words), "")
        return text if text and (rng is None or rng.uniform() >= _LEFT_OUT) else ""

    return PART.sub(part, template)


def _wordings(part: re.Match[str], words: Mapping[str, str]) -> Iterator[str]:
    """Those of an optional part (`PART`) that `words` fill, in order."""
    return (text for text in part[1].split(OR) if all(slot in words for slot in _SLOT.findall(text)))


def _longest(slot: Slot) -> str:
    def length(word: str) -> int:
        return len(tokens(word))

    if slot.palette:
        return " and ".join(sorted(slot.palette, key=length)[-NAMED_COLOURS:])
    return max(choices(slot), key=length, default="word")
