"""From what the YAML file of a grammar holds to a `Grammar`, or to one line on what is wrong with it; and back."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from morphogen.data.mask_words import RULES, Slot
from morphogen.data.prompts import MAX_TOKENS, OR, PART, Grammar, slots_of, tokens
from morphogen.errors import InputError

_TEXTS = ("name", "template", "empty", "unknown")
_NEEDED = {*_TEXTS, "short", "slots"}
_KNOWN = {*_NEEDED, "defaults", "words"}
_OF_SLOTS = {"words", "computed", "bins", "palette"}


def parse(raw: Any, path: Path) -> Grammar:
    """Build a grammar.

    Args:
        raw: What the file holds.
        path: Named in the error.

    Raises:
        InputError: It is no grammar, or one that does not always give a sentence.
    """
    fault = _fault_of_form(raw)
    if fault is None:
        slots = {name: _slot(slot) for name, slot in raw["slots"].items()}
        grammar = Grammar(**{**raw, "slots": slots, "short": tuple(raw["short"]), "words": tuple(raw.get("words", ()))})
        fault = _fault_of_sentences(grammar) or next(filter(None, map(_fault_of_slot, slots, slots.values())), None)
        fault = fault or _fault_of_length(grammar)
    if fault:
        raise InputError(f"{path}: {fault}")
    return grammar


def as_yaml(grammar: Grammar) -> str:
    """The file of a grammar, which `parse` makes the same one of: so a run needs no other folder to sample."""
    raw = json.loads(json.dumps(asdict(grammar)))  # tuples to lists
    raw["slots"] = {name: {k: v for k, v in slot.items() if v} for name, slot in raw["slots"].items()}
    return yaml.safe_dump({k: v for k, v in raw.items() if v or k == "slots"}, sort_keys=False, allow_unicode=True)


def _slot(raw: Mapping[str, Any]) -> Slot:
    words, bins = tuple(raw.get("words") or ()), tuple(raw.get("bins") or ())
    return Slot(words, raw.get("computed"), bins, raw.get("palette") or {})


def _fault_of_form(raw: Any) -> str | None:
    """What is not of the type that a grammar has."""
    if not isinstance(raw, dict) or not set(raw) >= _NEEDED:
        return "is not a grammar; it needs name, template, short, empty, unknown and slots"
    if extra := [str(key) for key in raw if key not in _KNOWN]:
        return f"is not a grammar (it has {extra[0]!r}); compare it with those of the package"
    for name in _TEXTS:
        if not isinstance(raw[name], str):
            return f"{name} is {raw[name]!r}; write a text, in quotes"
    for what in ("slots", "defaults"):
        if not isinstance(raw.get(what, {}), dict):
            return f"{what}: is {raw[what]!r}; write names with their values"
    for name, slot in raw["slots"].items():
        if fault := _fault_of_raw_slot(name, slot):
            return fault
    return _fault_of_list("short", raw["short"]) or _fault_of_list("words", raw.get("words", []))


def _fault_of_raw_slot(name: str, slot: Any) -> str | None:
    if not isinstance(slot, dict) or not set(slot) <= _OF_SLOTS:
        return f"is not a grammar (the slot {name!r} is {slot!r}); a slot has {', '.join(sorted(_OF_SLOTS))}"
    return _fault_of_list(f"words of the slot {name!r}", slot.get("words") or []) or _fault_of_numbers(name, slot)


def _fault_of_list(what: str, words: Any) -> str | None:
    if not isinstance(words, list):
        return f"{what}: is {words!r}; write a list, as [one, two]"
    for word in words:
        if not isinstance(word, str):  # YAML reads no, on and yes as truth values
            return f"{what}: {word!r} is no text; write it in quotes"
    return None


def _fault_of_numbers(name: str, slot: Mapping[str, Any]) -> str | None:
    bins, palette = slot.get("bins") or [], slot.get("palette") or {}
    rising = isinstance(bins, list) and all(isinstance(limit, (int, float)) for limit in bins)
    if not rising or any(a >= b for a, b in pairwise(bins)):
        return f"the slot {name!r} has the bins {bins!r}; list rising numbers"
    for colour, rgb in palette.items() if isinstance(palette, dict) else [(palette, None)]:
        channels = isinstance(rgb, list) and len(rgb) == 3 and all(isinstance(v, int) and 0 <= v <= 255 for v in rgb)
        if not isinstance(colour, str) or not channels:
            return f"the slot {name!r} has {colour!r} in its palette; give names three whole numbers from 0 to 255"
    return None


def _fault_of_sentences(grammar: Grammar) -> str | None:
    """What keeps a grammar from always giving a sentence."""
    for text in (grammar.template, *grammar.short):
        for name in slots_of(text):
            if name not in grammar.slots:
                return f"the template uses the slot {name!r}, which is not described; add it under slots"
        if left := re.search(r"[\[\]{}]", re.sub(r"\{\w+\}", "", PART.sub(r"\1", text))):
            return f"{text!r} has a {left[0]!r} without its partner, or one within another; close each and nest none"
        if OR in PART.sub("", text):
            return f"{text!r} has a {OR!r} outside of brackets, where it stands between two wordings; bracket both"
    for name, word in grammar.defaults.items():
        if name not in grammar.slots or not isinstance(word, str):
            return f"defaults give {name!r} the word {word!r}; name slots, and words in quotes"
    for name in slots_of(PART.sub("", grammar.template)):
        if name not in grammar.defaults:
            return f"the slot {name!r} stands outside of brackets; bracket it or give it a word under defaults"
    if not any(set(slots_of(text)) <= set(grammar.defaults) for text in grammar.short):
        return "no entry of short does without slots; add one"
    return None


def _fault_of_slot(name: str, slot: Slot) -> str | None:
    if slot.computed is not None and slot.computed not in RULES:
        return f"the slot {name!r} is computed by {slot.computed!r}; choose one of {', '.join(RULES)}"
    if slot.computed in ("area", "border") and len(slot.words) != len(slot.bins) + 1:
        return f"the slot {name!r} has {len(slot.words)} words for {len(slot.bins)} bins; give one word more than bins"
    if slot.computed == "palette" and not slot.palette:
        return f"the slot {name!r} has no palette; list colour names with their RGB values"
    return None


def _fault_of_length(grammar: Grammar) -> str | None:
    n = len(tokens(grammar.longest))
    if n > MAX_TOKENS:
        return f"its longest sentence has {n} tokens, more than {MAX_TOKENS}: {grammar.longest!r}; shorten it"
    return None
