"""``morphogen demo``: the whole job on embedded data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morphogen.cli.verb import Verb
from morphogen.progress import say

if TYPE_CHECKING:
    from morphogen.study.recipe import StudyConfig

PHANTOMS, SUBJECTS, SIDE = 160, 40, 96
SEED = 5
"""Of the phantoms: the shipped foundation was trained on other seeds."""


@dataclass(frozen=True, kw_only=True)
class Demo(Verb):
    """Do the whole job on embedded data: paint phantoms, run a short study on them, write its report."""

    out: Path = Path("morphogen-demo")
    """Folder of the demo: data/ (phantoms) and study/; a second run continues what is there."""

    def run(self) -> dict[str, Any]:
        """Run the demo.

        Returns:
            ``{"verdict", "report", "study", "data"}``.
        """
        from morphogen.data.phantoms import phantom_dataset
        from morphogen.study.run import run_study

        data = self.out / "data"
        phantom_dataset(data, "mucosa", PHANTOMS, SIDE, SEED, subjects=SUBJECTS)
        config = recipe(data, self.out / "study")
        say(f"demonstration on phantoms: {config.seeds} of {config.folds} repetitions, three arms, few steps")
        results = run_study(config)
        report = config.out / "report.html"
        say(f"\n{results['verdict']['text']}")
        say(f"\nThis is an example, on {config.seeds} repetitions of phantoms; a real study makes {config.folds}.")
        say(f"Report: {report.resolve()}")
        return {"verdict": results["verdict"], "report": report, "study": config.out, "data": data}


def recipe(data: Path, out: Path) -> StudyConfig:
    """A short study: few annotated pairs, the arms of the verdict and its headroom, two repetitions."""
    from morphogen.study.recipe import StudyConfig

    return StudyConfig(
        data=data, out=out, annotated=24, arms=("real-geo", "syn-geo", "more-real"), seeds=2, steps=150,
        generator_steps=100, adapt_steps=0,
    )  # fmt: skip
