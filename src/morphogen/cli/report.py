"""``morphogen report STUDY``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from morphogen.cli.verb import Verb


@dataclass(frozen=True, kw_only=True)
class Report(Verb):
    """Join the finished cells of a study or comparison into results.json and report.html, and say what is missing."""

    study: tyro.conf.Positional[Path]
    """Folder of a study (cells/*.json alone are enough) or of a comparison (with its compare.yaml)."""

    def run(self) -> dict[str, Any]:
        """Write both files and print the verdict; returns the content of results.json."""
        from morphogen.progress import say
        from morphogen.study.few.recipe import RECIPE
        from morphogen.study.few.report import build as build_comparison
        from morphogen.study.report import build

        results = (build_comparison if (self.study / RECIPE).exists() else build)(self.study)
        say(results["verdict"]["text"])
        for name in results["missing"]:
            say(f"missing: {name}")
        say(f"report: {self.study / 'report.html'}")
        return results
