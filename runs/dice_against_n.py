"""Dice against the number of annotated pairs, joined from studies that differ in ``--annotated``.

python runs/dice_against_n.py results/clinicdb-20 results/clinicdb-60 --judge unet --figure dice.png

cells/ suffices. Studies stay apart: every figure is one study's own, of arms that it compared on its own splits. A
Markdown table for every judge and test set, one line an arm and number of pairs; exploratory ones are marked. The
figure shows the same, a panel for every judge and test set.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from morphogen.errors import InputError, MorphogenError
from morphogen.study.arms import place
from morphogen.study.compare import Comparison, Group
from morphogen.study.figures import PALETTE
from morphogen.study.kinds import SEGMENTATION
from morphogen.study.results import join
from morphogen.study.stats import Estimate

Panel = dict[str, dict[int, "Point"]]
"""Arm -> annotated pairs -> what a study found."""


@dataclass(frozen=True)
class Point:
    """One arm of one study: `dice` over its repetitions, `against` its control on the same ones, None for a control."""

    study: Path
    dice: Estimate
    against: Comparison | None
    mark: str | None


def panels(studies: Sequence[Path], judges: Sequence[str], arms: Sequence[str]) -> dict[tuple[str, str], Panel]:
    """(Judge, test set) -> its arms, by number of annotated pairs; of all judges and arms where none are named.

    Raises:
        InputError: A folder is no study, two studies have the same arm, judge, test set and number, or nothing is left.
    """
    found: dict[tuple[str, str], Panel] = {}
    for study in studies:
        for group in join(study).groups:
            if group.kind is SEGMENTATION and (not judges or group.judge in judges):
                _add(found.setdefault((group.judge, group.test_set), {}), study, group, arms)
    if not any(found.values()):
        asked = " ".join([*judges, *arms]) or "a segmenter"
        raise InputError(f"{' '.join(map(str, studies))}: hold no cell of {asked}; name other --judge or --arms")
    return {key: panel for key, panel in sorted(found.items(), key=lambda item: _order(item[0])) if panel}


def _order(key: tuple[str, str]) -> tuple[str, bool, str]:
    """By judge, the study's own test part first."""
    return key[0], key[1] != "test", key[1]


def _add(panel: Panel, study: Path, group: Group, arms: Sequence[str]) -> None:
    against = {c.arm: c for c in group.comparisons["dice"]}
    for arm in (arm for arm in group.arms if not arms or arm in arms):
        n = round(mean(cell.n_annotated or 0 for cell in group.runs(arm).values()))
        points = panel.setdefault(arm, {})
        if n in points:
            fault = f"has {arm} of {n} annotated pairs, judge {group.judge}, test set {group.test_set}, as has"
            raise InputError(f"{study}: {fault} {points[n].study}; name one of them")
        points[n] = Point(study, group.means[arm]["dice"], against.get(arm), group.exploratory(arm))


def table(panel: Panel) -> list[str]:
    """One line an arm and number: Dice with its interval, and the difference to its control with its own."""
    lines = ["| arm | annotated pairs | Dice | Dice minus its control | p (Holm) | repetitions |", "|---" * 6 + "|"]
    for arm in sorted(panel, key=place):
        for n, point in sorted(panel[arm].items()):
            runs = point.mark or str(point.dice.n_repetitions)
            dice = f"{point.dice.mean:.3f}{interval(point.dice.ci95, '.3f')}"
            lines.append(f"| `{arm}` | {n} | {dice} | {difference(point.against)} | {runs} |")
    return lines


def difference(found: Comparison | None) -> str:
    """Two columns: the difference with its interval and control, and its p."""
    if found is None:
        return "| "
    p = f"{found.p_holm:.2f}" if found.p_holm >= 0.005 else "< 0.005"
    return f"{found.difference.mean:+.3f}{interval(found.difference.ci95, '+.3f')} to `{found.control}` | {p}"


def interval(ci95: tuple[float, float] | None, form: str) -> str:
    return f" ({ci95[0]:{form}} to {ci95[1]:{form}})" if ci95 else ""


def draw(found: dict[tuple[str, str], Panel], path: Path) -> None:
    """Dice with 95 % intervals against annotated pairs, one line an arm; hollow where exploratory. A PNG."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    names = sorted({arm for panel in found.values() for arm in panel}, key=place)
    with rc_context({"font.family": "DejaVu Sans", "font.size": 9}):
        figure = Figure(figsize=(4.2 * len(found) + 2.4, 3.6), layout="constrained", dpi=150)
        grid = figure.subplots(1, len(found), squeeze=False)[0]
        for axes, ((judge, test_set), panel) in zip(grid, found.items(), strict=True):
            for number, arm in enumerate(names):
                shift = 1 + 0.015 * (number - (len(names) - 1) / 2)  # so that intervals stand side by side
                _line(axes, panel.get(arm, {}), shift, label=arm, color=PALETTE[number % len(PALETTE)])
            sizes = sorted({n for points in panel.values() for n in points})
            axes.set_xscale("log")
            axes.set_xticks(sizes, [str(n) for n in sizes])
            axes.minorticks_off()
            axes.set(title=f"{judge}, {test_set}", xlabel="annotated pairs")
            axes.spines[["top", "right"]].set_visible(False)
        grid[0].set_ylabel("mean Dice")
        handles = {line.get_label(): line for axes in grid for line in axes.get_legend_handles_labels()[0]}
        figure.legend(list(handles.values()), list(handles), loc="outside right center", frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)


def _line(axes: Any, points: dict[int, Point], shift: float, **style: Any) -> None:
    if not points:
        return
    x, means = [n * shift for n in sorted(points)], [points[n].dice.mean for n in sorted(points)]
    ends = [points[n].dice.ci95 or (points[n].dice.mean,) * 2 for n in sorted(points)]
    below = [m - low for m, (low, _) in zip(means, ends, strict=True)]
    above = [high - m for m, (_, high) in zip(means, ends, strict=True)]
    axes.errorbar(x, means, yerr=[below, above], fmt="o-", markersize=4, linewidth=1.4, elinewidth=0.8, **style)
    hollow = [i for i, n in enumerate(sorted(points)) if points[n].mark]
    axes.plot([x[i] for i in hollow], [means[i] for i in hollow], "o", color="white", markersize=2, zorder=3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("studies", type=Path, nargs="+", help="folders with cells/")
    parser.add_argument("--judge", dest="judges", nargs="+", default=[], help="only these judges")
    parser.add_argument("--arms", nargs="+", default=[], help="only these arms")
    parser.add_argument("--figure", type=Path, help="PNG to draw")
    options = parser.parse_args()
    try:
        found = panels(options.studies, options.judges, options.arms)
    except MorphogenError as error:
        raise SystemExit(f"dice_against_n: {error}") from None
    for (judge, test_set), panel in found.items():
        print("\n".join([f"Judge {judge}, test set {test_set}:", "", *table(panel), ""]))
    if options.figure:
        draw(found, options.figure)


if __name__ == "__main__":
    main()
