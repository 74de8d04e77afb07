"""What every part of a running study works with: its recipe, its data and its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from morphogen.data.records import Dataset
from morphogen.locks import lock
from morphogen.study.arms import Variant
from morphogen.study.generators import study_of
from morphogen.study.identity import config_hash
from morphogen.study.recipe import OWN_TEST, StudyConfig
from morphogen.study.splits import Repetition, Splits

AUDIT = "audit"
"""Before the repetition, the name under which an audit's reads of the test part are counted."""


@dataclass(frozen=True)
class Bench:
    """A study in work.

    Attributes:
        config: The recipe; its `arms` are resolved.
        dataset: The annotated images of the study's folder.
        splits: Which of them is used for what.
        tests: The further test sets by name.
    """

    config: StudyConfig
    dataset: Dataset
    splits: Splits
    tests: Mapping[str, Dataset]

    @property
    def out(self) -> Path:
        return self.config.out

    @property
    def image_classes(self) -> tuple[str, ...]:
        """The classes of whole images (diagnoses), where they have any."""
        return tuple(sorted({record.label for record in self.dataset if record.label}))

    @property
    def hash(self) -> str:
        """Goes into every cell: cells of another recipe or other splits are not compared with it."""
        return config_hash(self.config, self.splits.hash)

    def of(self, variant: Variant) -> Bench:
        """The study with the generator of these pairs in place of its own (`study_of`)."""
        return replace(self, config=study_of(self.config, variant.generator))

    def test_part(self, name: str, repetition: Repetition) -> Dataset:
        """The records of a test set; `morphogen.study.cells.score` opens them."""
        return self.dataset.select(repetition.test) if name == OWN_TEST else self.tests[name]

    def unannotated(self, repetition: Repetition) -> Dataset:
        """The training images outside the annotated ones, without their masks, which are not to be read.

        Images of validation groups are not among them: a checkpoint that has seen them would look better than it is.
        There are none where the study takes all annotated pairs.
        """
        subjects = self.splits.subjects
        held = {subjects[i] for i in repetition.validation}
        found = self.dataset.select(i for i in (*repetition.extra, *repetition.pool) if subjects[i] not in held)
        return replace(found, records=tuple(replace(record, mask=None) for record in found))

    def cell_path(self, name: str) -> Path:
        return self.out / "cells" / f"{name}.json"

    def count_read(self, reader: str, test_set: str, n: int) -> None:
        """Note that a test part is about to be read, for scoring or by an audit: a line in ``test_reads.jsonl``."""
        note_read(self.out, {"reader": reader, "test_set": test_set, "n_images": n})


def note_read(out: Path, read: Mapping[str, Any]) -> None:
    """Add a line to ``test_reads.jsonl``; two machines that append to one file at once would lose one of theirs."""
    with (
        lock(out / ".locks" / "test_reads.lock", wait=True),
        (out / "test_reads.jsonl").open("a", encoding="utf-8") as file,
    ):
        file.write(json.dumps(read) + "\n")
