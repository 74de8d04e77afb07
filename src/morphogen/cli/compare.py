"""``morphogen compare``: ways to learn from few labelled volumes, over folds."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import tyro

from morphogen.cli.spread import Spread
from morphogen.errors import InputError
from morphogen.study.few.recipe import CompareConfig


@dataclass(frozen=True, kw_only=True)
class Compare(CompareConfig, Spread):
    """Compare ways to learn from few labelled and many unlabelled volumes: supervised, ua-mt, cps, bcp, diff-cl.

    Folds are by subject and frozen first; labels of unlabelled volumes are hidden; every row takes the same number of
    steps; test volumes are only scored. The same command again continues; finished cells are never redone. For pictures
    there is `morphogen study` with the arms semi and semi-syn.
    """

    data: tyro.conf.Positional[Path]
    """Folder of labelled volumes: NIfTI, nnU-Net raw, or lists of h5 or NIfTI files."""
    out: Path
    """Folder of the comparison: splits.json, cells/, runs/, results.json, report.html."""
    slurm: bool = False
    """Do nothing but write the jobs of the comparison for Slurm, into slurm/ of its folder, and say how to submit
    them."""

    def run(self) -> dict[str, Any]:
        """Run or continue the comparison, and print its verdict.

        Raises:
            MorphogenError: See `morphogen.study.few.run.compare`.
        """
        from morphogen.study.few.run import compare

        self.check_spread()
        recipe = CompareConfig(**{field.name: getattr(self, field.name) for field in fields(CompareConfig)})
        if self.ray is not None and self.slurm:
            raise InputError("--ray, --slurm: are two ways to run a comparison; give one of them")
        if self.slurm:
            return _for_slurm(recipe)
        if self.ray is not None:
            from morphogen.study.few.on_ray import compare_on_ray

            results = compare_on_ray(recipe, self.ray, self.workers)
        else:
            results = compare(recipe)
        if not self.dry_run:
            print(f"\n{results['verdict']['text']}\n\n{self.out / 'report.html'}")
        return results


def _for_slurm(recipe: CompareConfig) -> dict[str, Any]:
    from glob import escape

    from morphogen.study.few.run import begin, plan_comparison
    from morphogen.study.slurm import refuse_cells, write_jobs

    refuse_cells(recipe)
    plan = plan_comparison(recipe)
    if not recipe.dry_run:
        begin(plan)
        write_jobs(recipe.out, "compare", recipe, [{"cells": [escape(name) for name in plan.todo]}])
    return plan.summary
