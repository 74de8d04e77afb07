"""``morphogen data check | split | convert``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from morphogen.cli.verb import Verb
from morphogen.errors import InputError, MorphogenError

if TYPE_CHECKING:
    from morphogen.data.check import CheckReport


@dataclass(frozen=True, kw_only=True)
class Check(Verb):
    """Say what a dataset looks like and list every fault in it; exit 2 where one would stop a study."""

    data: tyro.conf.Positional[Path]
    """Folder of the dataset, in any layout."""
    mask_values: str | None = None
    """What mask values mean, e.g. 0=0,255=1; found where not stated."""

    def run(self) -> dict[str, Any]:
        """Print the report; returns it as JSON values."""
        from morphogen.data.check import check_dataset

        report = check_dataset(self.data, _rule(self.mask_values))
        _print(report)
        return report.to_json()

    def failure(self, result: dict[str, Any]) -> MorphogenError | None:
        """The first fatal fault, and how many there are."""
        fatal = [fault for fault in result["faults"] if fault["fatal"]]
        if not fatal:
            return None
        first = "{file}: {fault}; {remedy}".format(**fatal[0])
        return InputError(first if len(fatal) == 1 else f"{first} (and {len(fatal) - 1} more faults, listed above)")


@dataclass(frozen=True, kw_only=True)
class Split(Verb):
    """Divide a dataset by subject, or by near-duplicates, and freeze the division in a file."""

    data: tyro.conf.Positional[Path]
    """Folder of the dataset, in any layout."""
    out: Path
    """JSON file to write; splits_final.json for nnU-Net goes beside it."""
    folds: int = 5
    """Number of folds where there are fewer than 150 subjects."""
    seed: int = 0
    """Seed of the division."""
    mask_values: str | None = None
    """What mask values mean, e.g. 0=0,255=1; found where not stated."""

    def run(self) -> dict[str, Any]:
        """Write the files; returns the division."""
        from dataclasses import asdict

        from morphogen.data.readers import read_dataset
        from morphogen.data.split import make_splits
        from morphogen.data.split_files import write_splits
        from morphogen.progress import say

        dataset = read_dataset(self.data, mask_values=_rule(self.mask_values))
        division = make_splits(dataset, self.seed, self.folds)
        nnunet = write_splits(division, self.out, dataset)
        for index, fold in enumerate(division.folds):
            parts = {"train": fold.train_ids, "val": fold.val_ids, "test": fold.test_ids}
            sizes = ", ".join(f"{len(ids)} {name}" for name, ids in parts.items() if ids)
            say(f"{division.kind} {index}: {sizes} (grouped by {division.grouped_by})")
        for note in division.notes:
            say(f"note: {note}")
        say(f"written to {self.out} and {nnunet}")
        return asdict(division)


@dataclass(frozen=True, kw_only=True)
class Convert(Verb):
    """Write a dataset in another layout."""

    data: tyro.conf.Positional[Path]
    """Folder of the dataset, in any layout."""
    to: Literal["folders", "nnunet", "imagefolder", "prompt-json"]
    """Layout to write."""
    out: Path
    """New folder."""
    mask_values: str | None = None
    """What mask values mean, e.g. 0=0,255=1; found where not stated."""

    def run(self) -> dict[str, Any]:
        """Write the folder; returns what was written."""
        from morphogen.data.readers import read_dataset
        from morphogen.data.writers import write_dataset
        from morphogen.progress import say

        dataset = read_dataset(self.data, mask_values=_rule(self.mask_values))
        write_dataset(dataset, self.out, self.to)
        say(f"{len(dataset)} records written to {self.out} ({self.to})")
        return {"n": len(dataset), "layout": self.to, "out": str(self.out), "classes": list(dataset.classes)}


def _rule(text: str | None) -> dict[int, int] | None:
    from morphogen.data.mask_values import parse_mask_values

    return None if text is None else parse_mask_values(text)


def _print(report: CheckReport) -> None:
    from rich.console import Console
    from rich.table import Table

    from morphogen.progress import say

    console = Console()
    facts = Table(title=f"{report.n} images", show_header=False)
    sizes = sorted(report.image_sizes.items(), key=lambda item: -item[1])
    others = f" and {len(sizes) - 5} others" if len(sizes) > 5 else ""
    facts.add_row("sizes", ", ".join(f"{size} ({n})" for size, n in sizes[:5]) + others)
    facts.add_row("classes", ", ".join(report.classes))
    for name, row in _rows(report):
        facts.add_row(name, row)
    console.print(facts)
    for fault in report.faults:  # as lines, which can be searched and copied whole
        say(str(fault) if fault.fatal else f"note: {fault}")
    n = len(report.fatal)
    say(f"{n} faults that stop a study, {len(report.faults) - n} notes")


def _rows(report: CheckReport) -> Iterator[tuple[str, str]]:
    for name, at in report.fingerprint["intensities"].items():
        if at:
            yield f"channel {name}", f"median {at['p50']:.4g}, 0.5 to 99.5 %: {at['p0.5']:.4g} to {at['p99.5']:.4g}"
    for name, area in report.fingerprint["class_areas"].items():
        if area["n_images"]:
            percent = {key: f"{100 * value:.3g}" for key, value in area.items()}
            spread = f"median {percent['p50']} % of the image, 5 to 95 %: {percent['p5']} to {percent['p95']}"
            parts = report.fingerprint["components"][name]["mean"]
            yield name, f"in {area['n_images']} images; {spread}; {parts:.3g} components"
