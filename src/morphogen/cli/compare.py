"""``morphogen compare``: ways to learn from few labelled volumes, over folds."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import tyro

from morphogen.cli.verb import Verb
from morphogen.study.few.recipe import CompareConfig


@dataclass(frozen=True, kw_only=True)
class Compare(CompareConfig, Verb):
    """Compare ways to learn from few labelled and many unlabelled volumes: supervised, ua-mt, cps, bcp, diff-cl.

    Folds are by subject and frozen first; labels of unlabelled volumes are hidden; every row takes the same number of
    steps; test volumes are only scored. The same command again continues; finished cells are never redone. For pictures
    there is `morphogen study` with the arms semi and semi-syn.
    """

    data: tyro.conf.Positional[Path]
    """Folder of labelled volumes: NIfTI, nnU-Net raw, or lists of h5 or NIfTI files."""
    out: Path
    """Folder of the comparison: splits.json, cells/, runs/, results.json, report.html."""

    def run(self) -> dict[str, Any]:
        """Run or continue the comparison, and print its verdict.

        Raises:
            MorphogenError: See `morphogen.study.few.run.compare`.
        """
        from morphogen.study.few.run import compare

        recipe = CompareConfig(**{field.name: getattr(self, field.name) for field in fields(CompareConfig)})
        results = compare(recipe)
        if not self.dry_run:
            print(f"\n{results['verdict']['text']}\n\n{self.out / 'report.html'}")
        return results
