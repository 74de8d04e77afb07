"""Networks by name: tables that hold import paths, so that listing them imports nothing heavy."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Generic, TypeVar

from morphogen.errors import InputError
from morphogen.words import kinds_of, read_value


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of a table.

    Attributes:
        name: What the user writes.
        summary: One line for ``morphogen models``.
        source: Where the architecture was published.
        config: Import path ``module:Class`` of its frozen config.
        build: Import path ``module:function`` of ``(n_classes, config, pretrained) -> nn.Module``.
        lr: Peak learning rate of AdamW in short trainings, where none is stated.
    """

    name: str
    summary: str
    source: str
    config: str
    build: str
    lr: float = 1e-3


E = TypeVar("E", bound=Entry)


@dataclass(frozen=True)
class Registry(Generic[E]):
    """A table of networks, read by the words of a user.

    Attributes:
        kind: What one of them is, for the errors: ``segmenter``, say.
        entries: Its lines by name.
    """

    kind: str
    entries: Mapping[str, E]

    def entry(self, name: str) -> E:
        """The line for `name`.

        Raises:
            InputError: There is none.
        """
        if name not in self.entries:
            raise InputError(f"{name}: no such {self.kind}; known are {', '.join(self.entries)}")
        return self.entries[name]

    def named(self, words: str) -> tuple[str, dict[str, Any]]:
        """A network and its options, as ``name+option=value+...`` names them.

        Raises:
            InputError: Unknown name or option, or a value that its option cannot take.
        """
        name, *options = words.split("+")
        return name, self.read_options(name, options)

    def read_options(self, name: str, words: Sequence[str]) -> dict[str, Any]:
        """Options of a network's architecture from words ``option=value``.

        Raises:
            InputError: Unknown name or option, or a value that its option cannot take.
        """
        kinds = kinds_of(load(self.entry(name).config))
        values: dict[str, Any] = {}
        for word in words:
            option, sign, value = word.partition("=")
            if not sign:
                raise InputError(f"{name}+{word}: is not option=value; {name} has {', '.join(kinds) or 'no options'}")
            values[option.replace("-", "_")] = read_value(kinds, option, value, name)
        return values

    def option_names(self, name: str) -> list[str]:
        """The fields of a network's config.

        Raises:
            InputError: Unknown name.
        """
        return [field.name for field in dataclasses.fields(load(self.entry(name).config))]

    def configure(self, name: str, options: Mapping[str, Any]) -> Any:
        """A network's config: its defaults, with `options`.

        Raises:
            InputError: Unknown name, field or value.
        """
        known = self.option_names(name)
        for option in options:
            if option not in known:
                near = difflib.get_close_matches(option, known, n=1, cutoff=0.0)[0]
                raise InputError(f"{name}: has no option {option!r}; did you mean {near!r}?")
        return load(self.entry(name).config)(**options)


def load(path: str) -> Any:
    """What an import path ``module:attribute`` names."""
    module, attribute = path.split(":")
    return getattr(import_module(module), attribute)
