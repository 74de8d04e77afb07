"""Whether a foundation can read the sentences of a grammar."""

from __future__ import annotations

from morphogen.data.mask_words import choices
from morphogen.data.prompts import Grammar
from morphogen.errors import InputError
from morphogen.foundation.model import Foundation


def check_grammar(foundation: Foundation, grammar: Grammar) -> None:
    """Refuse a grammar whose sentences the foundation cannot read, as far as they can be known beforehand.

    Raises:
        InputError: A word is unknown, or a sentence too long.
    """
    if vocabulary := foundation.card.get("vocabulary"):
        unknown = ", ".join(map(repr, sorted(grammar.vocabulary.difference(vocabulary))))
        if unknown:
            raise InputError(f"grammar {grammar.name}: {foundation.source} does not know {unknown}; use other words")
    longest = {name: max(choices(slot), key=len, default="") for name, slot in grammar.slots.items()}
    fullest = grammar.compose({**grammar.defaults, **longest})
    foundation.check_lengths([grammar.empty, grammar.unknown, fullest, grammar.longest])
