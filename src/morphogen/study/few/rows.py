"""The rows of a comparison: methods, perhaps with options of their own."""

from __future__ import annotations

from dataclasses import dataclass

from morphogen.data.volumes.presets import PRESETS, VolumePreset
from morphogen.errors import InputError
from morphogen.segmenters.diffcl.config import SemiConfig, refuse_patch
from morphogen.segmenters.diffcl.methods import METHODS
from morphogen.segmenters.diffcl.volumes import patches_of, preparation_of
from morphogen.segmenters.diffcl.words import Words, read_words
from morphogen.study.few.recipe import CompareConfig

_SHARED = ("max_train_steps", "train_batch_size", "validation_steps")
"""What all rows have in common, given as options of the verb."""


@dataclass(frozen=True)
class Row:
    """One way to train.

    Attributes:
        name: As in ``--rows``.
        words: What it is made of.
        config: How it trains, but for the seed.
        everything: All training volumes are labelled (``labelled=all``).
    """

    name: str
    words: Words
    config: SemiConfig
    everything: bool


def row_of(recipe: CompareConfig, name: str) -> Row:
    """The row of that name.

    Raises:
        InputError: No such method, or a wrong option.
    """
    method, *options = name.split("+")
    if method not in METHODS:
        raise InputError(f"--rows {name}: {method} is no method; choose from {', '.join(METHODS)}")
    if "/" in name:
        raise InputError(f"--rows {name}: holds a /, and rows are names of files; write it without")
    everything = "labelled=all" in options
    if everything and method != "supervised":
        raise InputError(f"--rows {name}: leaves nothing unlabelled for {method}; write supervised+labelled=all")
    said = [option for option in options if option != "labelled=all"]
    if any(option.startswith("labelled=") for option in said):
        raise InputError(f"--rows {name}: write labelled=all, or --labelled for all rows")
    words = read_words("+".join(filter(None, [recipe.preset, *said])), "--rows")
    semi = dict(words.semi)
    shared = {field: getattr(recipe, field) for field in _SHARED}
    stated = {word.partition("=")[0].replace("-", "_") for word in (*recipe.preset.split("+"), *said)}
    for word in sorted(stated & {*_SHARED, "seed", "labelled", "network"}):
        option = f"--{word.replace('_', '-')}"
        remedy = "leave it out" if word == "network" else f"give {option}, which holds for all rows"
        raise InputError(f"{word}= among --preset {recipe.preset} or --rows {name}: is no word of a row; {remedy}")
    if semi.pop("method", method) != method:
        raise InputError(f"--preset {recipe.preset}: the method is the row's; leave method= out")
    config = SemiConfig(method=method, **{**shared, **semi})  # type: ignore[arg-type]
    row = Row(name, words, config, everything)
    preset = layout_of(recipe)
    preparation_of(preset, words.preparation)
    refuse_patch(patches_of(preset, words.patches).patch, config)
    return row


def layout_of(recipe: CompareConfig) -> VolumePreset | None:
    """The benchmark whose layout the data is in, where one is named."""
    return PRESETS.get(read_words(recipe.preset).layout or "")
