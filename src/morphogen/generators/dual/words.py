"""What an image is described with: its class, what mask and pixels decide, and what its table says of the patient."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from morphogen.data.mask_words import FIXED_WORDS, choices
from morphogen.data.pairs import Pairs
from morphogen.data.prompts import PART, Grammar, grammars, tokens
from morphogen.data.records import Dataset, Record
from morphogen.errors import InputError
from morphogen.foundation.images import turned
from morphogen.foundation.latents import names_place
from morphogen.progress import track
from morphogen.sampling.budgets import Caption
from morphogen.training.rng import numpy_rng

_POSITIONS = FIXED_WORDS["position"]
"""Of the 3 x 3 cells, row by row."""


@dataclass(frozen=True)
class Sentences:
    """What can be said of one image.

    Attributes:
        grammar: How to say it.
        words: By slot: class, what mask and pixels decide, and facts of the record.
        label: Class of the image, or None.
        given: A caption that was given with the image, and is taken in place of a composed one.
        lesion: Whether its mask holds one; None where there is no mask.
    """

    grammar: Grammar
    words: dict[str, str]
    label: str | None
    given: str | None
    lesion: bool | None

    @classmethod
    def of(
        cls, grammar: Grammar, record: Record, image: NDArray[np.uint8], mask: NDArray[np.uint8] | None
    ) -> Sentences:
        """Those of a record, of its image (3, R, R) and its mask (R, R)."""
        lesion = None if mask is None else bool((mask > 0).any())
        picture = np.ascontiguousarray(np.moveaxis(image, 0, -1))
        words = grammar.describe(picture, mask, record.label, grammar.known(record.facts))
        return cls(grammar, words, record.label, record.caption, lesion)

    @property
    def turns(self) -> Sequence[int]:
        """The symmetries (`turned`) that the full caption can follow."""
        return (0,) if names_place(self.given) else range(8)

    def full(self, turn: int = 0, rng: np.random.Generator | None = None) -> str:
        """The caption of the turned image; with `rng`, some of what is known is left out."""
        if self.given is not None:
            return self.given
        if self.lesion is False:
            return self.grammar.empty
        if self.lesion is None:
            return self.grammar.compose_bare(self.words, self.label is not None, rng)
        return self.grammar.compose(self._turned(turn), rng)

    def plain(self) -> str:
        """The class alone."""
        if self.lesion is False:
            return self.grammar.empty
        return self.grammar.label_caption(self.grammar.describe(None, None, self.label))

    def drawn(self, turn: int, seed: int, drop: float, plain: float) -> str:
        """What one row is trained with.

        Args:
            turn: Symmetry of the row.
            seed: Of the row.
            drop: Share of rows without words.
            plain: Share of rows with the class alone.
        """
        rng = numpy_rng(seed, "words")
        u = rng.uniform()
        if u < drop:
            return ""
        return self.plain() if u < drop + plain else self.full(turn, rng)

    def _turned(self, turn: int) -> dict[str, str]:
        """The words of the turned image: of what geometry decides, the position alone depends on it."""
        moved = {
            name: turned_position(self.words[name], turn)
            for name, slot in self.grammar.slots.items()
            if slot.computed == "position" and name in self.words
        }
        return {**self.words, **moved}


def turned_position(word: str, turn: int) -> str:
    """Where a lesion is after its image was turned and mirrored (`turned`)."""
    cells = turned(np.arange(9, dtype=np.uint8).reshape(3, 3), turn)
    return _POSITIONS[int(np.flatnonzero(cells == _POSITIONS.index(word))[0])]


def sentences(pairs: Pairs, grammar: Grammar) -> list[Sentences]:
    """Those of every record; of one without a mask, its class and what its table says."""
    rows = track(range(len(pairs)), "describing images")
    return [
        Sentences.of(grammar, pairs.dataset[i], pairs.image(i), pairs.mask(i) if pairs.dataset[i].mask else None)
        for i in rows
    ]


def captions(found: Sequence[Sentences]) -> list[Caption]:
    """Class and full caption of every image whose mask holds a lesion, in order: what pairs can be asked for with."""
    return [Caption(one.label, one.full()) for one in found if one.lesion]


def grammar_for(data: Dataset, name: str) -> Grammar | None:
    """The grammar of this name or file; of ``auto`` one that knows all classes, None where there are none.

    Of several that know them the first, but one that is about this very lesion goes before those with a slot for it.

    Args:
        data: Its classes are looked at.
        name: As in the config.

    Raises:
        InputError: A class is unknown to it; or, of ``auto``, to every one.
    """
    labels = {record.label for record in data if record.label is not None}
    if name != "auto":
        grammar = Grammar.load(name)
        refuse_unknown_classes(data, grammar)
        return grammar
    if not labels:
        return None
    known = [Grammar.load(shipped) for shipped in grammars()]
    fitting = [grammar for grammar in known if all(_knows(grammar, label) for label in labels)]
    if not fitting:
        # the one that knows most of them says what is wrong
        refuse_unknown_classes(data, max(known, key=lambda grammar: sum(_knows(grammar, label) for label in labels)))
    return min(fitting, key=lambda grammar: "label" in grammar.slots)


def refuse_unknown_classes(data: Dataset, grammar: Grammar) -> None:
    """Refuse classes that the grammar has no word for.

    Raises:
        InputError: Names the first such record, its class, and the nearest word.
    """
    for record in data:
        if record.label is None or _knows(grammar, record.label):
            continue
        words = choices(grammar.slots["label"]) if "label" in grammar.slots else ()
        near = difflib.get_close_matches(record.label.lower(), words, n=1, cutoff=0.4)
        known = f"it knows {', '.join(words)}" if words else "it has no place for classes"
        hint = f"the nearest that it knows is {near[0]!r}" if near else known
        raise InputError(
            f"{data.root}: {record.id} is of class {record.label!r} (records.csv), which the grammar {grammar.name} "
            f"does not know; {hint}: correct the class, or give a grammar of your own (--preset grammar=FILE)"
        )


def _knows(grammar: Grammar, label: str) -> bool:
    """Whether a sentence can name the class: in its slot, or because it always ends with it, as with "... polyp"."""
    slot, said = grammar.slots.get("label"), tokens(label.replace("_", " "))
    if slot is None:
        return said == tokens(PART.sub(" ", grammar.template))[-len(said) :]
    return not choices(slot) or bool(grammar.known({"label": label}))
