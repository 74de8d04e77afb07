"""The report of a comparison: results.json and one self-contained page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from morphogen.files import write_json, write_text
from morphogen.study.few.results import BASELINE, LEAD, join
from morphogen.study.figures import Axis, axis, data_uri
from morphogen.study.report import p_value

LABELS = {
    "dice": "Dice",
    "iou": "Jaccard",
    "hd95": "HD95, voxels",
    "asd": "ASD, voxels",
    "hd95_mm": "HD95, mm",
    "asd_mm": "ASD, mm",
}
_MOST_PREVIEWS = 4


@dataclass(frozen=True)
class Preview:
    """A picture of validation volumes from one run."""

    name: str
    picture: str


def build(out: Path) -> dict[str, Any]:
    """Write ``results.json`` and ``report.html`` into a comparison's folder from what it holds so far.

    Returns:
        The content of results.json.

    Raises:
        InputError: The folder has no finished cell, or a cell cannot be used.
    """
    results = join(out)
    page = render(out, results)
    write_json(out / "results.json", results)
    write_text(out / "report.html", page)
    return results


def render(out: Path, results: Mapping[str, Any]) -> str:
    """The page as HTML; it needs no other file and no network."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("morphogen.study", "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"num": number, "signed": signed, "p": p_value}
    metrics = [m for m in LABELS if all(m in row for row in results["rows"].values())]
    dice = [one for one in results["comparisons"] if one["metric"] == "dice"]
    protocol = results["protocol"]
    return environment.get_template("few.html.j2").render(
        results=results,
        title=Path(protocol["data"]).name if "data" in protocol else out.name,
        metrics=metrics,
        labels=LABELS,
        dice=dice,
        axis=_axis(dice),
        lead=LEAD,
        baseline=BASELINE,
        previews=previews(out, results),
        out=out,
    )


def _axis(comparisons: Sequence[Mapping[str, Any]]) -> Axis:
    ends = [value for one in comparisons for value in (*one["per_volume"].values(), *(one["ci95"] or ()))]
    return axis(ends or [0.0])


def previews(out: Path, results: Mapping[str, Any]) -> list[Preview]:
    """The last previews of the first fold's runs, where they are still there."""
    found: list[Preview] = []
    for row in results["rows"]:
        pictures = sorted((out / "runs" / f"fold0-{row}" / "previews").glob("*.png"))
        if pictures and len(found) < _MOST_PREVIEWS:
            found.append(Preview(row, data_uri(pictures[-1].read_bytes(), "png")))
    return found


def number(value: float, metric: str) -> str:
    """With three decimals, distances with one."""
    return f"{value:.{1 if metric.startswith(('hd95', 'asd')) else 3}f}"


def signed(value: float, metric: str) -> str:
    """As `number`, with its sign; what is rounded to nothing has none."""
    text = number(value, metric)
    return text.lstrip("-") if float(text) == 0 else f"{'+' if value > 0 else ''}{text}".replace("-", "−")
