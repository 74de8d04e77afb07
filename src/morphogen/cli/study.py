"""``morphogen study``: train with and without synthetic pairs, and say whether they help."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import tyro

from morphogen.cli.spread import Spread
from morphogen.errors import InputError
from morphogen.study.recipe import StudyConfig


@dataclass(frozen=True, kw_only=True)
class Study(StudyConfig, Spread):
    """Train segmenters or classifiers with and without synthetic pairs, and say whether they help.

    Splits are by subject and frozen first; every arm takes the same number of steps; the test part is only scored.
    The same command again continues a study; finished cells are never redone.
    """

    data: tyro.conf.Positional[Path]
    """Folder of annotated images, in any layout that `morphogen data check` reads."""
    slurm: bool = False
    """Do nothing but write the jobs of the study for Slurm, into slurm/ of its folder, and say how to submit them."""
    only: Literal["synthetic", "cells", "images"] | None = None
    """Do one stage of the study and join nothing: make synthetic pairs, make cells, or measure images. For jobs that
    run apart; `morphogen report` joins what they made."""

    def run(self) -> dict[str, Any]:
        """Run or continue the study, and print the verdict.

        Raises:
            MorphogenError: See `morphogen.study.run.run_study`.
        """
        from morphogen.study.run import run_study

        self.check_spread()
        recipe = StudyConfig(**{field.name: getattr(self, field.name) for field in fields(StudyConfig)})
        if sum((self.ray is not None, self.slurm, self.only is not None)) > 1:
            raise InputError("--ray, --slurm, --only: are three ways to run a study; give one of them")
        if self.slurm:
            return _for_slurm(recipe)
        if self.ray is not None:
            from morphogen.study.on_ray import study_on_ray

            results = study_on_ray(recipe, self.ray, self.workers)
        else:
            results = run_study(recipe, only=self.only)
        if not self.dry_run and self.only is None:
            print(f"\n{results['verdict']['text']}\n\n{self.out / 'report.html'}")
        return results


def _for_slurm(recipe: StudyConfig) -> dict[str, Any]:
    from morphogen.study.run import freeze, plan_study
    from morphogen.study.slurm import refuse_cells, write_jobs
    from morphogen.study.stages import pieces

    refuse_cells(recipe)
    plan = plan_study(recipe)
    if not recipe.dry_run:
        patterns = {
            stage: [piece.pattern for piece in found] for stage, found in pieces(plan.bench, plan.trainings).items()
        }
        freeze(plan.bench)
        first = {"synthetic": patterns.pop("synthetic")}
        write_jobs(recipe.out, "study", recipe, [first, patterns])
    return plan.summary
