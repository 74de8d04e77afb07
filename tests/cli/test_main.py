"""The frame of the command line: finding verbs, exit codes, one line for every error."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from morphogen import cli
from morphogen.cli import VERBS, main
from morphogen.cli.verb import Verb
from morphogen.errors import InputError, MorphogenError, WorkError

RAISE: list[BaseException] = []


@dataclass(frozen=True, kw_only=True)
class Echo(Verb):
    """Return the number, or raise what the test has put into `RAISE`."""

    number: int = 3
    """Any number."""
    seed: int = 0
    """Of nothing."""

    def run(self) -> dict[str, Any]:
        if RAISE:
            raise RAISE.pop()
        return {"number": self.number}

    def failure(self, result: dict[str, Any]) -> MorphogenError | None:
        return InputError("a.png: is odd; use an even one") if result["number"] == 13 else None


@pytest.fixture(autouse=True)
def echo(monkeypatch: pytest.MonkeyPatch) -> None:
    """The verb ``echo``, known to the command for the time of one test."""
    monkeypatch.setitem(VERBS, "echo", ("echo_module:Echo", "says it again"))
    monkeypatch.setitem(sys.modules, "echo_module", sys.modules[__name__])
    RAISE.clear()


@pytest.fixture
def quick_find(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "find_spec", lambda name: name)


def test_a_verb_runs_and_writes_its_json(tmp_path: Path) -> None:
    assert main(["echo", "--number", "4", "--json", str(tmp_path / "r.json")]) == 0
    assert json.loads((tmp_path / "r.json").read_text()) == {"number": 4}
    assert [file.name for file in tmp_path.iterdir()] == ["r.json"]


def test_json_is_written_before_a_fault_in_the_result_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["echo", "--number", "13", "--json", str(tmp_path / "r.json")]) == 2
    assert json.loads((tmp_path / "r.json").read_text()) == {"number": 13}
    assert capsys.readouterr().err == "morphogen: a.png: is odd; use an even one\n"


def test_json_into_a_missing_folder_is_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    RAISE.append(AssertionError("the work has begun"))
    assert main(["echo", "--json", str(tmp_path / "no" / "r.json")]) == 2
    assert "no/r.json: its folder does not exist" in capsys.readouterr().err
    assert main(["echo", "--json", str(tmp_path)]) == 2
    assert "is a folder; name a file after --json" in capsys.readouterr().err


def test_a_negative_seed_is_refused_before_the_work(capsys: pytest.CaptureFixture[str]) -> None:
    RAISE.append(AssertionError("the work has begun"))
    assert main(["echo", "--seed", "-1"]) == 2
    assert capsys.readouterr().err == "morphogen: --seed -1: is negative; give 0 or more\n"


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("data: holds no images; name another"), 2, "data: holds no images; name another"),
        (WorkError("run: the loss is NaN; lower --lr"), 1, "run: the loss is NaN; lower --lr"),
        (OSError(errno.ENOSPC, "No space left on device", "out/a.png"), 1, "out/a.png: the disk is full; free some"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "the output folder: the disk is full; free some"),
        (PermissionError(errno.EACCES, "Permission denied", "out"), 1, "out: Permission denied; check the path"),
        (ValueError("two\nlines"), 1, "ValueError: two lines; run again with --debug"),
        (KeyboardInterrupt(), 130, "stopped; run the same command to continue"),
    ],
)
def test_every_error_is_one_line(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    RAISE.append(error)
    assert main(["echo"]) == code
    printed = capsys.readouterr().err
    assert printed.startswith(f"morphogen: {line}")
    assert printed.count("\n") == 1


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    RAISE.append(InputError("data: holds no images; name another"))
    assert main(["echo", "--debug"]) == 2
    printed = capsys.readouterr().err
    assert "Traceback" in printed
    assert printed.endswith("morphogen: data: holds no images; name another\n")


@pytest.mark.parametrize("words", [["echo", "--numbr", "4"], ["echo", "--number", "four"]])
def test_the_parsers_own_errors_are_exit_2_on_stderr(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert words[1] in printed.err or words[2] in printed.err


@pytest.mark.usefixtures("quick_find")
def test_an_unknown_verb_names_near_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sampel"]) == 2
    assert "sampel: no such verb; did you mean sample" in capsys.readouterr().err
    assert main(["data", "chek"]) == 2
    assert "data chek: no such verb; did you mean data check" in capsys.readouterr().err
    assert main(["data"]) == 2


@pytest.mark.usefixtures("quick_find")
@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_the_overview_lists_every_verb(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert all(f"  {name} " in printed and summary in printed for name, (_, summary) in VERBS.items())


@pytest.mark.usefixtures("quick_find")
def test_the_overview_of_a_group_lists_the_group_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "--help"]) == 0
    printed = capsys.readouterr().out
    assert "data convert" in printed
    assert "study" not in printed


def test_verbs_without_a_module_are_not_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(VERBS, "echo")
    monkeypatch.setitem(VERBS, "later", ("morphogen.cli.later:Later", "not yet there"))
    assert main([]) == 0
    assert "later" not in capsys.readouterr().out


def test_every_verb_names_an_existing_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(VERBS, "echo")
    import importlib

    for path, _ in VERBS.values():
        module, _, name = path.partition(":")
        assert issubclass(getattr(importlib.import_module(module), name), Verb)


HEAVY = ("torch", "diffusers", "transformers", "monai", "matplotlib", "scipy", "skimage", "numpy", "accelerate")


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    began = time.monotonic()
    code = "import sys; from morphogen.cli import main; main(['--help']); print('loaded', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert time.monotonic() - began < 5  # about 0.1 s; a busy machine takes longer
    loaded = set(done.stdout.splitlines()[-1].split())
    assert not loaded & set(HEAVY)


def test_help_of_every_verb_imports_nothing_heavy() -> None:
    code = (
        "import sys; from morphogen.cli import main, VERBS\n"
        "codes = [main([*name.split(), '--help']) for name in VERBS]\n"
        "print('loaded', *codes, *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.splitlines()[-1].split()
    assert loaded[1 : 1 + len(VERBS) - 1] == ["0"] * (len(VERBS) - 1)  # this process knows one more, `echo`
    assert not set(loaded) & {"torch", "diffusers", "transformers", "monai", "matplotlib", "accelerate"}
