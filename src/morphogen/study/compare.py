"""From cells to figures: the mean of every arm, and its difference from its control."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from morphogen.errors import InputError
from morphogen.study.arms import find, lead, place
from morphogen.study.classified import Rows
from morphogen.study.kinds import Kind, kind_of
from morphogen.study.stats import Estimate, holm


@dataclass(frozen=True)
class Cell:
    """One finished cell: the file `path` and what it says."""

    path: Path
    values: Mapping[str, Any]

    @property
    def arm(self) -> str:
        return str(self.values["arm"])

    @property
    def n_annotated(self) -> int | None:
        return None if self.values["n_annotated"] is None else int(self.values["n_annotated"])

    @property
    def repetition(self) -> tuple[int, int]:
        """(fold, seed)."""
        return int(self.values["fold"]), int(self.values["seed"])

    @property
    def scores(self) -> Rows:
        """Image id -> what the judge says of it."""
        rows: Rows = self.values["scores"]
        return rows


@dataclass(frozen=True)
class Comparison:
    """An arm against its control, on matched repetitions of one judge and one test set."""

    arm: str
    control: str
    metric: str
    difference: Estimate
    p: float
    p_holm: float
    means: tuple[float, float]
    """Mean (or score) of the arm and of the control over the matched repetitions."""
    per_repetition: Mapping[tuple[int, int], float]
    """(fold, seed) -> difference on the images of that run; without those where it is undefined."""

    @property
    def undecided(self) -> bool:
        """The interval holds 0, or there is none."""
        interval = self.difference.ci95
        return interval is None or interval[0] <= 0 <= interval[1]

    def row(self, group: Group) -> dict[str, Any]:
        """One entry of ``comparisons`` in results.json."""
        found = self.difference
        return {
            "arm": self.arm,
            "control": self.control,
            "judge": group.judge,
            "test_set": group.test_set,
            "n_train": group.n_annotated,
            "metric": self.metric,
            "diff": found.mean,
            "ci95": found.ci95,
            "p": self.p,
            "p_holm": self.p_holm,
            "smallest_detectable_gain": found.smallest_detectable,
            "n_images": found.n_images,
            "n_subjects": found.n_subjects,
            "repetitions": found.n_repetitions,
            "exploratory": group.exploratory(self.arm),
        }


@dataclass(frozen=True)
class Group:
    """The cells that may be compared: one judge, one test set, one number of annotated pairs (None: all there are).

    `planned` is the number of repetitions that the study has, 0 where nobody says, and `stated` its arms in the order
    in which it names them, so far as that is known.
    """

    judge: str
    test_set: str
    n_annotated: int | None
    cells: tuple[Cell, ...]
    planned: int = 0
    stated: tuple[str, ...] = ()

    @property
    def lead(self) -> str:
        """The arm that a verdict on this group speaks of."""
        return lead((*self.stated, *self.arms))

    def exploratory(self, arm: str) -> str | None:
        """``exploratory (1 of 5 repetitions)`` where the arm has one alone, or fewer than the arms of the verdict."""
        runs = {name: len(self.runs(name)) for name in self.arms}
        total, headline = max(self.planned, *runs.values()), runs.get(self.lead, max(runs.values()))
        few = runs[arm] < headline or runs[arm] == 1
        return f"exploratory ({runs[arm]} of {total} repetitions)" if few and runs[arm] < total else None

    @property
    def arms(self) -> list[str]:
        """The arms that have a cell here, in the order of the table of arms."""
        return sorted({cell.arm for cell in self.cells}, key=place)

    @property
    def repetitions(self) -> list[tuple[int, int]]:
        return sorted({cell.repetition for cell in self.cells})

    def runs(self, arm: str) -> dict[tuple[int, int], Cell]:
        """The cells of an arm by repetition."""
        return {cell.repetition: cell for cell in self.cells if cell.arm == arm}

    @property
    def kind(self) -> Kind:
        """Of the judge."""
        return kind_of(self.judge)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Those that some arm has."""
        return tuple(dict.fromkeys(metric for found in self.means.values() for metric in found))

    @cached_property
    def means(self) -> dict[str, dict[str, Estimate]]:
        """Arm -> metric -> mean over all its images, or score of them."""
        return {arm: self._estimates(arm) for arm in self.arms}

    @cached_property
    def comparisons(self) -> dict[str, list[Comparison]]:
        """Metric -> every arm against its control; Holm's correction is over the arms of one metric."""
        found = [self._compare(arm) for arm in self.arms]
        return {m: _with_holm([of_arm[m] for of_arm in found if m in of_arm]) for m in self.metrics}

    def _estimates(self, arm: str) -> dict[str, Estimate]:
        try:
            return self.kind.estimates([cell.scores for _, cell in sorted(self.runs(arm).items())])
        except ValueError:
            cell = next(cell for cell in self.cells if cell.arm == arm)
            raise InputError(
                f"{cell.path}: shares only some of its images with another repetition of {arm!r}; "
                "remove the cells that come from other splits and run the study again"
            ) from None

    def _compare(self, arm: str) -> dict[str, Comparison]:
        """Metric -> the arm against its control; empty where it has none, or nothing is matched."""
        known = find(arm)
        control = known.control if known else "real-geo"
        ours, theirs = self.runs(arm), self.runs(control) if control else {}
        matched = sorted(ours.keys() & theirs.keys())
        if control is None or not matched:
            return {}
        for key in matched:
            _same_images(ours[key], theirs[key])
        sides = ([cells[key].scores for key in matched] for cells in (ours, theirs))
        found = {}
        for metric, c in self.kind.contrasts(*sides).items():
            runs = {key: value for key, value in zip(matched, c.per_repetition, strict=True) if not math.isnan(value)}
            found[metric] = Comparison(arm, control, metric, c.difference, c.p, c.p, c.means, runs)
        return found


def group_cells(cells: Sequence[Cell], planned: int = 0, stated: Sequence[str] = ()) -> list[Group]:
    """Sort cells into groups that may be compared.

    A study on all its annotated pairs has folds of slightly different sizes: where no repetition of an arm occurs with
    two sizes, the size is no variable of the study and all folds are one group.

    Args:
        cells: The cells.
        planned: As in `Group`.
        stated: As in `Group`.

    Raises:
        InputError: Two cells of one group were made by other recipes, presets or splits, or are the same cell twice.
    """
    keys = {(c.arm, c.values["judge"], c.values["test_set"], c.repetition): set[int | None]() for c in cells}
    for c in cells:
        keys[c.arm, c.values["judge"], c.values["test_set"], c.repetition].add(c.n_annotated)
    one_size = all(len(sizes) == 1 for sizes in keys.values())
    sizes = {c.n_annotated for c in cells}
    common = next(iter(sizes)) if len(sizes) == 1 else None
    members: dict[tuple[str, str, int | None], list[Cell]] = {}
    for c in cells:
        n = common if one_size else c.n_annotated
        members.setdefault((str(c.values["judge"]), str(c.values["test_set"]), n), []).append(c)
    for group in members.values():
        _one_study(group)
    order = sorted(members, key=lambda key: (key[0], key[1], key[2] is None, key[2] or 0))
    told = planned, tuple(stated)
    return [Group(judge, test_set, n, tuple(members[judge, test_set, n]), *told) for judge, test_set, n in order]


def _one_study(cells: Sequence[Cell]) -> None:
    first, seen = cells[0], dict[tuple[str, tuple[int, int]], Cell]()
    for cell in cells:
        if cell.values["config_hash"] != first.values["config_hash"]:
            raise InputError(
                f"{cell.path}: was made by another recipe or other splits than {first.path.name}; "
                "move it to a study of its own"
            )
        if (twin := seen.setdefault((cell.arm, cell.repetition), cell)) is not cell:
            raise InputError(f"{cell.path}: is the same cell as {twin.path.name}; remove one of them")
    _one_preset(cells)


def _one_preset(cells: Sequence[Cell]) -> None:
    """Refuse a generator with two presets: no hash tells them apart where it is not the study's own."""
    first: dict[str, Cell] = {}
    for cell in cells:
        for name, preset in cell.values.get("presets", {}).items():
            twin = first.setdefault(name, cell)
            if twin.values["presets"][name] != preset:
                raise InputError(
                    f"{cell.path}: has {name} with the preset {preset or 'of the study'}, {twin.path.name} with "
                    f"{twin.values['presets'][name] or 'that of the study'}; move it to a study of its own"
                )


def _same_images(ours: Cell, theirs: Cell) -> None:
    if ours.values["scores"].keys() != theirs.values["scores"].keys():
        raise InputError(
            f"{ours.path}: scores other images than {theirs.path.name}; "
            "remove the one that comes from other splits and run the study again"
        )


def _with_holm(comparisons: list[Comparison]) -> list[Comparison]:
    adjusted = holm([c.p for c in comparisons])
    return [replace(c, p_holm=p) for c, p in zip(comparisons, adjusted, strict=True)]
