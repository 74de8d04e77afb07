"""``morphogen study``: train with and without synthetic pairs, and say whether they help."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import tyro

from morphogen.cli.verb import Verb
from morphogen.study.recipe import StudyConfig


@dataclass(frozen=True, kw_only=True)
class Study(StudyConfig, Verb):
    """Train segmenters or classifiers with and without synthetic pairs, and say whether they help.

    Splits are by subject and frozen first; every arm takes the same number of steps; the test part is only scored.
    The same command again continues a study; finished cells are never redone.
    """

    data: tyro.conf.Positional[Path]
    """Folder of annotated images, in any layout that `morphogen data check` reads."""

    def run(self) -> dict[str, Any]:
        """Run or continue the study, and print the verdict.

        Raises:
            MorphogenError: See `morphogen.study.run.run_study`.
        """
        from morphogen.study.run import run_study

        recipe = StudyConfig(**{field.name: getattr(self, field.name) for field in fields(StudyConfig)})
        results = run_study(recipe)
        if not self.dry_run:
            print(f"\n{results['verdict']['text']}\n\n{self.out / 'report.html'}")
        return results
