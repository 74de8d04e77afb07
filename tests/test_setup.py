"""What installs the package agrees with itself: ranges, pins, hashes, documented verbs."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from morphogen.cli import VERBS

ROOT = Path(__file__).parents[1]


def lines(name: str) -> list[str]:
    return [line for line in (ROOT / name).read_text().splitlines() if line and not line.startswith("#")]


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project


def test_the_pins_lie_in_the_ranges(project: dict[str, Any]) -> None:
    pins = {
        canonicalize_name(name): version for name, version in (line.split("==") for line in lines("constraints.txt"))
    }
    wanted = [Requirement(text) for text in project["dependencies"] + project["optional-dependencies"]["dev"]]
    outside = [str(r) for r in wanted if not r.specifier.contains(pins[canonicalize_name(r.name)])]
    assert not outside
    assert "torchvision" not in pins


def test_every_runtime_dependency_has_both_bounds(project: dict[str, Any]) -> None:
    for text in project["dependencies"]:
        assert {s.operator for s in Requirement(text).specifier} == {">=", "<"}, text


def test_weights_are_exact_and_hashed() -> None:
    assert lines("weights.txt")
    assert all(re.fullmatch(r"[\w-]+==[\d.]+( --hash=sha256:[0-9a-f]{64})+", line) for line in lines("weights.txt"))


def test_the_readme_names_every_verb() -> None:
    readme = (ROOT / "README.md").read_text().replace("check\\|split\\|convert", "check split convert")
    missing = [name for name in VERBS if f"morphogen {name.split()[0]}" not in readme or name.split()[-1] not in readme]
    assert not missing


def test_every_local_link_of_the_docs_leads_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name}: {target}"
