"""The cells of a study, in the order in which they run; names are all that a cell is known by."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from morphogen.errors import InputError
from morphogen.study.arms import arm
from morphogen.study.kinds import SEGMENTATION, kind_of
from morphogen.study.recipe import OWN_TEST, StudyConfig
from morphogen.study.splits import Repetition, Splits


@dataclass(frozen=True)
class Training:
    """One training of one judge in one arm; it serves every test set.

    Attributes:
        arm: Name of the arm, with any options: ``syn-geo+n=100``.
        judge: The segmenter, with any options: ``segformer+size=b0``.
        repetition: Whose data, and whose seed.
        size: ``60`` or ``all``: annotated pairs, as asked for.
        test_sets: Names of the test sets that it is scored on.
    """

    arm: str
    judge: str
    repetition: Repetition
    size: str
    test_sets: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of its run folder: ``syn-geo.unet.fold0.n60``."""
        return f"{file_name(self.arm)}.{file_name(self.judge)}.{self.repetition.label}.n{self.size}"

    @property
    def cells(self) -> dict[str, str]:
        """Test set -> name of its cell: ``syn-geo.unet.fold0.n60.test``."""
        return {test_set: f"{self.name}.{test_set}" for test_set in self.test_sets}


def file_name(name: str) -> str:
    """Name of a judge or an arm as a part of file names: an option of it may be a path."""
    return name.replace("/", "_")


def trainings(
    splits: Splits, arms: tuple[str, ...], judges: tuple[str, ...], sets: tuple[str, ...], pattern: str | None = None
) -> list[Training]:
    """Every training of the study, one repetition after the other, those without synthetic pairs first.

    Args:
        splits: Give the repetitions.
        arms: Resolved names.
        judges: Segmenters.
        sets: Names of the test sets, the study's own test part first.
        pattern: Keep only the cells whose name matches it (as file names match in a shell).

    Raises:
        InputError: No cell matches the pattern.
    """
    size = "all" if splits.n_annotated is None else str(splits.n_annotated)
    found = [
        Training(name, judge, repetition, size, sets)
        for repetition in splits.repetitions
        for name in arms
        for judge in judges
        if fits(name, judge)
    ]
    if pattern is None:
        return found
    kept = []
    for training in found:
        matching = tuple(t for t, name in training.cells.items() if fnmatchcase(name, pattern))
        if matching:
            kept.append(replace(training, test_sets=matching))
    if not kept:
        example = next(iter(found[-1].cells.values()))
        raise InputError(f"--cells {pattern}: matches no cell of this study; their names look like {example}")
    return kept


def fits(name: str, judge: str) -> bool:
    """Whether a judge takes part in an arm: some have nothing for classifiers."""
    return not arm(name).segments or kind_of(judge) is SEGMENTATION


def test_sets(config: StudyConfig) -> tuple[str, ...]:
    """Names of the test sets, the study's own part first."""
    return (OWN_TEST, *config.tests)
