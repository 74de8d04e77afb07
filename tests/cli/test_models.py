"""``morphogen models``."""

from __future__ import annotations

import pytest

from morphogen.classifiers import CLASSIFIERS
from morphogen.cli.models import Models
from morphogen.generators import GENERATORS
from morphogen.segmenters import SEGMENTERS


def test_every_registered_method_is_listed_with_its_source(capsys: pytest.CaptureFixture[str]) -> None:
    result = Models().run()
    printed = capsys.readouterr().out
    for family, table in (("generators", GENERATORS), ("segmenters", SEGMENTERS), ("classifiers", CLASSIFIERS)):
        assert [row["name"] for row in result[family]] == list(table)
        assert all(row["source"] and row["summary"] in printed for row in result[family])
    assert all(set(row["needs"]) <= {"masks", "images", "prompts"} for row in result["generators"])
