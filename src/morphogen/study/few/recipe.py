"""The recipe of a comparison: config, YAML and command line at once."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import tyro
import yaml

from morphogen.errors import InputError
from morphogen.files import refuse_unwritable, write_text

RECIPE = "compare.yaml"
"""File of a comparison's folder that holds its recipe, and tells it from a study's."""


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """What to compare, on what.

    Attributes:
        data: Folder of volumes.
        out: Folder of the comparison.
    """

    data: Path
    out: Path
    rows: Annotated[tuple[str, ...], tyro.conf.arg(metavar="ROW ...")] = ("supervised", "cps", "diff-cl")
    """Methods to compare: supervised, ua-mt, cps, bcp or diff-cl, each perhaps with options of its own
    (diff-cl+operator=none, supervised+labelled=all)."""
    preset: str = ""
    """Words for all rows, joined by +: a benchmark's layout and options (la2018+spacing=2.5+patch=64x48x32)."""
    labelled: int = 4
    """Labelled training volumes of a fold, by subject where one has several; the rest of its training part is
    unlabelled."""
    validation: int = 2
    """Labelled volumes of a fold that choose the weights, by subject where one has several."""
    folds: int = 5
    """Every volume is tested once."""
    max_train_steps: int = 600
    """Optimiser steps of every row."""
    train_batch_size: int = 2
    """Labelled patches of a step, and as many unlabelled ones."""
    validation_steps: int = 50
    """Steps between looks at the validation volumes."""
    seed: int = 0
    """Of the folds; fold f trains with seed + f."""
    mask_values: str | None = None
    """What the values in the labels mean, e.g. 0=0,2=1."""
    cells: str = "*"
    """Make only the cells whose name matches (fold0-*, *-diff-cl)."""
    device: str = "cpu"
    """Where trained networks segment: cpu or cuda. Training takes a GPU where there is one."""
    dry_run: bool = False
    """Print the plan and stop."""

    def check(self) -> None:
        """Refuse what cannot be.

        Raises:
            InputError: A row, a word or a number is wrong.
        """
        if not self.rows or len(set(self.rows)) != len(self.rows):
            raise InputError(f"--rows {' '.join(self.rows)}: name at least one, and none twice")
        for name in ("labelled", "validation", "max_train_steps", "train_batch_size", "validation_steps"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be 1 or more")
        from morphogen.study.few.rows import row_of  # takes a second to import, and --help needs none of it

        for row in self.rows:
            row_of(self, row)


_NOT_THE_COMPARISON = ("out", "cells", "dry_run", "device", "rows")
"""Fields that may differ from call to call; rows join those of earlier ones."""


def identity(recipe: CompareConfig) -> dict[str, Any]:
    """What must stay the same, in plain values."""
    values = {field.name: getattr(recipe, field.name) for field in fields(CompareConfig)}
    values["data"] = str(recipe.data.absolute())
    return {name: value for name, value in values.items() if name not in _NOT_THE_COMPARISON}


def hash_of_cells(recipe: CompareConfig, folds_hash: str) -> str:
    """Twelve hex digits of what decides a cell beside its name."""
    values = {name: value for name, value in identity(recipe).items() if name != "data"}
    return hashlib.sha256(json.dumps([values, folds_hash], sort_keys=True).encode()).hexdigest()[:12]


def claim(recipe: CompareConfig) -> CompareConfig:
    """Refuse a folder with something else; returns the recipe with the rows of earlier calls first.

    Raises:
        InputError: The folder holds another comparison, or other files.
    """
    refuse_unwritable(recipe.out)
    path = recipe.out / RECIPE
    if not path.exists():
        if recipe.out.is_dir() and any(not file.name.startswith(f".{RECIPE}.") for file in recipe.out.iterdir()):
            raise InputError(f"{recipe.out}: holds other files and no {RECIPE}; name an empty or new --out folder")
        return recipe
    saved = read_recipe(path)
    for name, value in identity(recipe).items():
        if saved.get(name) != value:
            option = name.replace("_", "-")
            raise InputError(f"{path}: has --{option} {saved.get(name)}, not {value}; use its value or another --out")
    return replace(recipe, rows=tuple(dict.fromkeys([*saved["rows"], *recipe.rows])))


def save(recipe: CompareConfig) -> None:
    """Write the recipe into its folder."""
    values = {**identity(recipe), "rows": list(recipe.rows)}
    write_text(recipe.out / RECIPE, yaml.safe_dump(values, sort_keys=False))


def read_recipe(path: Path) -> dict[str, Any]:
    """What a recipe's file holds.

    Raises:
        InputError: It is no recipe.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        values = None
    if not isinstance(values, dict) or "rows" not in values:
        raise InputError(f"{path}: is not the recipe of a comparison; name another folder")
    return values
