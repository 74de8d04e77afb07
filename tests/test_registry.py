"""Tables of networks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from morphogen.classifiers import CLASSIFIERS
from morphogen.errors import InputError
from morphogen.registry import Entry, Registry, load
from morphogen.segmenters import SEGMENTERS


@dataclass(frozen=True)
class Options:
    width: int = 16
    deep_head: bool = False


@dataclass(frozen=True)
class NoOptions:
    pass


def entry(name: str, config: str) -> Entry:
    return Entry(name=name, summary="a toy", source="ours", config=f"{__name__}:{config}", build="nowhere:build")


TABLE = Registry("toy", {"wide": entry("wide", "Options"), "plain": entry("plain", "NoOptions")})


def test_name_and_options() -> None:
    assert TABLE.entry("wide").name == "wide"
    assert TABLE.named("plain") == ("plain", {})
    assert TABLE.named("wide+width=24+deep-head=true") == ("wide", {"width": 24, "deep_head": True})
    assert TABLE.read_options("wide", ["deep_head=false"]) == {"deep_head": False}
    assert TABLE.option_names("wide") == ["width", "deep_head"]


def test_config_is_the_defaults_with_options() -> None:
    assert TABLE.configure("wide", {}) == Options()
    assert TABLE.configure("wide", {"width": 3}) == Options(width=3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("wid", "^wid: no such toy; known are wide, plain$"),
        ("wide+width", r"^wide\+width: is not option=value; wide has width, deep_head$"),
        ("plain+width", r"^plain\+width: is not option=value; plain has no options$"),
        ("wide+with=3", "^wide with=3: there is no option 'with'; did you mean 'width'"),
        ("wide+width=wide", "takes a whole number"),
    ],
)
def test_wrong_words(words: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        TABLE.named(words)


@pytest.mark.parametrize("call", [TABLE.entry, TABLE.option_names, lambda name: TABLE.configure(name, {})])
def test_unknown_names(call: Callable[[str], object]) -> None:
    with pytest.raises(InputError, match=r"^narrow: no such toy; known are wide, plain$"):
        call("narrow")


def test_unknown_option() -> None:
    with pytest.raises(InputError, match=r"^wide: has no option 'widht'; did you mean 'width'\?$"):
        TABLE.configure("wide", {"widht": 3})


@pytest.mark.parametrize("table", [SEGMENTERS, CLASSIFIERS])
def test_every_line_is_complete(table: dict[str, Entry]) -> None:
    for name, line in table.items():
        assert line.name == name
        assert line.summary
        assert line.source
        assert isinstance(load(line.config), type)
        assert callable(load(line.build))


@pytest.mark.parametrize("room", ["segmenters", "classifiers"])
def test_listing_imports_nothing_heavy(room: str) -> None:
    code = f"import sys, morphogen.{room}; print({{'torch', 'transformers', 'numpy'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
