"""``--config FILE``: values, types, and one line for every fault."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import tyro

from morphogen.cli.options import defaults_from, read_options
from morphogen.cli.verb import Verb
from morphogen.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Cook(Verb):
    """Cook a dish."""

    dish: tyro.conf.Positional[Path]
    """What."""
    out: Path
    """Where."""
    preset: Literal["tiny", "sd15"] = "tiny"
    lr: float = 1e-3
    steps: int | None = None
    arms: tuple[str, ...] = ("real",)
    shard: tuple[int, int] = (0, 1)
    quick: bool = False

    def run(self) -> dict[str, Any]:
        return {}


def cook(tmp_path: Path, text: str, *words: str) -> Cook:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    args = ["--config", str(path), *words]
    verb: Cook = tyro.cli(Cook, args=args, default=defaults_from(Cook, args))
    return verb


def test_the_file_sets_values_of_every_type(tmp_path: Path) -> None:
    text = "dish: soup\nout: o\npreset: sd15\nlr: 1e-4\nsteps: 7\narms: [a, b]\nshard: [1, 2]\nquick: true\n"
    verb = cook(tmp_path, text)
    assert (verb.dish, verb.out, verb.preset, verb.lr) == (Path("soup"), Path("o"), "sd15", 1e-4)
    assert (verb.steps, verb.arms, verb.shard, verb.quick) == (7, ("a", "b"), (1, 2), True)


def test_the_command_line_goes_before_the_file_and_the_file_before_the_default(tmp_path: Path) -> None:
    verb = cook(tmp_path, "out: o\nlr: 0.5\nsteps: 7", "soup", "--lr", "0.25")
    assert (verb.lr, verb.steps, verb.preset) == (0.25, 7, "tiny")


def test_a_required_option_in_neither_is_the_parsers_error(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        cook(tmp_path, "out: o")


def test_hyphens_and_underscores_are_one(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Long:
        max_steps: int = 1

    path = tmp_path / "c.yaml"
    for key in ("max-steps", "max_steps"):
        path.write_text(f"{key}: 5")
        assert read_options(path, Long) == {"max_steps": 5}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("presets: tiny", r"c\.yaml: unknown option 'presets'; did you mean preset"),
        ("preset: tny", r"c\.yaml: preset: 'tny' is not a choice; did you mean tiny"),
        ("preset: zzz", r"c\.yaml: preset: 'zzz' is not a choice; known are tiny, sd15"),
        ("steps: many", r"c\.yaml: steps: 'many' is not a whole number"),
        ("steps: true", r"c\.yaml: steps: True is not a whole number"),
        ("steps: 1.5", r"c\.yaml: steps: 1\.5 is not a whole number"),
        ("lr: fast", r"c\.yaml: lr: 'fast' is not a number"),
        ("quick: 1", r"c\.yaml: quick: 1 is not true or false"),
        ("arms: real", r"c\.yaml: arms: 'real' is not a list"),
        ("shard: [1]", r"c\.yaml: shard: \[1\] does not have 2 values"),
        ("- a", r"c\.yaml: holds no 'option: value' lines"),
        ("a: [", r"c\.yaml: is not YAML"),
        ("a: !!python/object/apply:os.getcwd []", r"c\.yaml: is not YAML"),
    ],
)
def test_a_fault_is_one_line_that_names_the_file(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(InputError, match=fault) as raised:
        cook(tmp_path, text)
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.yaml: cannot be read"):
        defaults_from(Cook, [f"--config={tmp_path / 'none.yaml'}"])


def test_without_a_file_the_parser_uses_its_own_defaults() -> None:
    assert defaults_from(Cook, ["soup", "--out", "o"]) is tyro.MISSING_NONPROP
