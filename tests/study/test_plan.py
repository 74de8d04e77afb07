"""Which cells a study has, and how a pattern chooses among them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from morphogen.data.readers import read_dataset
from morphogen.errors import InputError
from morphogen.study.plan import Training, trainings
from morphogen.study.plan import test_sets as names_of_test_sets
from morphogen.study.recipe import StudyConfig
from morphogen.study.splits import make


@pytest.fixture
def plan(make_config: Callable[..., StudyConfig], phantom_folder: Path) -> Callable[..., list[Training]]:
    def of(pattern: str | None = None, annotated: int | None = 8) -> list[Training]:
        config = make_config(test=("far=/data/far",), annotated=annotated)
        splits = make(config, read_dataset(phantom_folder))
        return trainings(splits, ("real-geo", "syn-geo"), ("unet",), names_of_test_sets(config), pattern)

    return of


def test_one_training_serves_every_test_set(plan: Callable[..., list[Training]]) -> None:
    names = [name for training in plan() for name in training.cells.values()]
    assert names == [
        f"{arm}.unet.fold{fold}.n8.{test_set}"
        for fold in (0, 1)
        for arm in ("real-geo", "syn-geo")
        for test_set in ("test", "far")
    ]
    assert len(plan()) == 4


def test_no_number_is_written_as_all(plan: Callable[..., list[Training]]) -> None:
    assert plan(annotated=None)[0].name == "real-geo.unet.fold0.nall"


def test_a_pattern_keeps_the_cells_that_match(plan: Callable[..., list[Training]]) -> None:
    def chosen(pattern: str) -> list[str]:
        return [name for training in plan(pattern) for name in training.cells.values()]

    assert chosen("syn-geo.*.fold1.*") == ["syn-geo.unet.fold1.n8.test", "syn-geo.unet.fold1.n8.far"]
    assert chosen("*.far") == [n for n in chosen("*") if n.endswith(".far")]
    assert len(chosen("*")) == 8


def test_a_pattern_without_a_match_shows_how_names_look(plan: Callable[..., list[Training]]) -> None:
    with pytest.raises(InputError, match=r"--cells fold9: matches no cell .* look like syn-geo\.unet\.fold1\.n8\.test"):
        plan("fold9")
