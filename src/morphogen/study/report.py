"""The report of a study: results.json and one self-contained page, verdict first."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from morphogen.audit.page import LEAKS, example, share
from morphogen.files import write_json, write_text
from morphogen.study import figures
from morphogen.study.arms import find
from morphogen.study.classified import RECALL
from morphogen.study.compare import Comparison, Group
from morphogen.study.kinds import SEGMENTATION, heading, label
from morphogen.study.measured import adherence_of, measured, of_arm
from morphogen.study.plan import file_name
from morphogen.study.recipe import OWN_TEST
from morphogen.study.results import Joined, join
from morphogen.study.verdict import ADHERENCE_SLACK, CONTROL, follows

HEADLINES = {
    "helped": "Synthetic pairs helped",
    "hurt": "Synthetic pairs hurt",
    "undecided": "Undecided",
}
DIGITS = {"hd95": 1}
"""Of a metric, where it is not 3."""


def build(out: Path) -> dict[str, Any]:
    """Write ``results.json`` and ``report.html`` into a study's folder from what it holds so far.

    Returns:
        The content of results.json.

    Raises:
        InputError: The folder has no finished cell, or a cell cannot be used.
    """
    joined = join(out)
    page = render(out, joined)
    write_json(out / "results.json", joined.results)
    write_text(out / "report.html", page)
    return joined.results


def render(out: Path, joined: Joined) -> str:
    """The page as HTML; it needs no other file and no network."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("morphogen.study", "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "num": number,
        "signed": signed,
        "p": p_value,
        "size": size,
        "share": share,
        "label": label,
        "heading": heading,
    }
    primary = joined.primary
    arms = {cell.arm for group in joined.groups for cell in group.cells}
    same = [g for g in joined.groups if primary and (g.judge, g.test_set) == (primary.judge, primary.test_set)]
    kind = primary.kind if primary else SEGMENTATION
    images, audit = joined.results["images"], joined.results["audit"]
    shown = of_arm(images, joined.results["verdict"]["arm"])
    names = list(joined.results.get("generators", ())) or [joined.config.get("generator")]
    return environment.get_template("report.html.j2").render(
        results=joined.results,
        title=joined.results["protocol"]["data"] or out.name,
        primary=primary,
        kind=kind,
        main=main_comparison(primary),
        headline=HEADLINES[joined.results["verdict"]["outcome"]],
        sections=[Section.of(g) for g in sorted(joined.groups, key=lambda g: g is not primary)],
        curve=figures.curve(same),
        diagnoses=diagnoses(joined.results.get("by_class", ()), primary),
        pairs=figures.pairs(out, joined.config),
        quality=quality(images, shown),
        **audit_parts(audit, {label for one in shown for label in measured(images, one)}),
        closest=figures.closest(out, audit),
        best=best_run(out, joined),
        out=out,
        arms={name: found for name in arms if (found := find(name))},
        varied=primary is not None and any("+" in name for name in (*primary.stated, *arms)),
        generators=names,
        painting=[name for name in names if _paints_into(name)],
        main_arm=joined.results["verdict"]["arm"],
    )


def _paints_into(generator: str | None) -> bool:
    from morphogen.generators import GENERATORS

    entry = GENERATORS.get(generator or "")
    return entry is not None and "images" in entry.needs


def main_comparison(primary: Group | None) -> Comparison | None:
    """The comparison that the verdict speaks of."""
    found = primary.comparisons[primary.kind.headline] if primary else []
    return next((c for c in found if primary and c.arm == primary.lead), None)


def diagnoses(rows: Sequence[Mapping[str, Any]], primary: Group | None) -> list[dict[str, Any]]:
    """Tables of Dice by class: (``judge``, ``size``, ``classes`` {name: images}, ``arms`` {arm: {class: row}}).

    Only those with as many annotated pairs as the verdict's.
    """
    tables: dict[str, dict[str, Any]] = {}
    for row in rows:
        if primary is not None and row["n_train"] != primary.n_annotated:
            continue
        table = tables.setdefault(row["judge"], {"judge": row["judge"], "classes": {}, "arms": {}})
        table["classes"][row["class"]] = max(table["classes"].get(row["class"], 0), row["n_images"])
        table["arms"].setdefault(row["arm"], {})[row["class"]] = row
    return list(tables.values())


@dataclass(frozen=True)
class Section:
    """One group with the axis of each metric's forest plot, and for a classifier its confusions."""

    group: Group
    axes: Mapping[str, figures.Axis]
    confusion: str | None

    @classmethod
    def of(cls, group: Group) -> Section:
        """The axes hold every interval and every dot."""
        axes = {}
        for metric in group.metrics:
            values = [v for c in group.comparisons[metric] for v in (*(c.difference.ci95 or ()), c.difference.mean)]
            values += [v for c in group.comparisons[metric] for v in c.per_repetition.values()]
            axes[metric] = figures.axis(values or [1.0])
        return cls(group, axes, figures.confusions(group))

    @property
    def recalls(self) -> list[str]:
        """The metrics that have a table of their own: one a class."""
        return [metric for metric in self.group.metrics if metric.startswith(RECALL)]

    @property
    def scores(self) -> list[str]:
        """The other metrics."""
        return [metric for metric in self.group.metrics if not metric.startswith(RECALL)]

    @property
    def title(self) -> str:
        """Test set in words."""
        own = self.group.test_set == OWN_TEST
        return "Results on the study's own test images" if own else f"Results on the test set {self.group.test_set}"

    @property
    def about(self) -> str:
        """Judge and size in words."""
        return f"Judge {self.group.judge}, {size(self.group.n_annotated)}."


def quality(images: Mapping[str, Any], generators: Sequence[str | None]) -> dict[str, Any]:
    """Rows of the image table, means over repetitions and over these generators, those of the verdict's arm.

    Returns:
        ``distances``: [(name, FID, KID)], ``adherence``: (Dice on synthetic, Dice on real) or None, ``follows``:
        whether that is enough for a claim, and what they rest on.
    """
    adherence = adherence_of(images, generators)
    images = {label: values for one in generators for label, values in measured(images, one).items()}
    found = [values["distances"] for values in images.values() if values.get("distances", {}).get("rows")]
    names = [n for n in ("synthetic", "real", "autoencoded") if any(n in d["rows"] for d in found)]
    rows = [
        (
            name,
            _mean([d["rows"][name]["fid"] for d in found if name in d["rows"]]),
            _mean([d["rows"][name]["kid"]["mean"] for d in found if name in d["rows"]]),
        )
        for name in names
    ]
    notes = [d["note"] for v in images.values() if (d := v.get("distances", {})).get("note")]
    return {
        "distances": rows,
        "about": found[0] if found else None,
        "note": notes[0] if notes else None,
        "adherence": adherence,
        "slack": ADHERENCE_SLACK,
        "generators": generators,
        "follows": adherence is not None and follows(*adherence),
        "n_repetitions": len({(values.get("fold"), values.get("seed")) for values in images.values()}),
        "sampling": sorted({_words(values["sampling"]) for values in images.values() if values.get("sampling")}),
    }


def _words(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in options.items())


def audit_parts(audit: Mapping[str, Any], shown: Collection[str]) -> dict[str, Any]:
    """What the page shows of the audits: repetitions by section, and rows of the leakage table over all of them.

    Nearness to the training images is a mean over the labels of `shown` alone, since generators differ in it.
    """
    sections = {
        name: {label: found[name] for label, found in audit.items() if found.get(name)}
        for name in ("memorisation", "leakage", "duplicates", "gates")
    }
    leaks, gates = list(sections["leakage"].values()), sections["gates"]
    distances = [found.get("distances", {}) for label, found in sections["memorisation"].items() if label in shown]
    values: dict[str, list[float]] = {}
    for name, spread in (item for found in distances for item in found.items()):
        values.setdefault(name, []).extend([] if spread["nearer"] is None else [spread["nearer"]])
    return {
        "audit": audit,
        "copies": sections["memorisation"],
        "nearer": {name: _mean(some) for name, some in values.items() if some},
        "leakage": [_leak_row(key, [found[key] for found in leaks if key in found]) for key in LEAKS] if leaks else [],
        "duplicates": sections["duplicates"],
        "gates": gates,
        "gate_names": list(dict.fromkeys(gate for found in gates.values() for gate in found["gates"])),
    }


def _leak_row(key: str, found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    verdicts = [section["verdict"] for section in found]
    examples = [example(section) for section in found if section["found"]]
    notes = list(dict.fromkeys(section["note"] for section in found if section.get("note")))
    return {
        "title": LEAKS[key][0],
        "about": LEAKS[key][1],
        "verdict": next((v for v in ("found", "unknown") if v in verdicts), "none" if verdicts else "unknown"),
        "n_found": sum(section["n_found"] for section in found),
        "example": f"for example {examples[0]}" if examples else "",
        "note": "; ".join(notes),
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


@dataclass(frozen=True)
class Best:
    """The run to use: of the arm that the verdict favours, the repetition with the best validation score."""

    run: Path
    arm: str
    score: float
    output: str = SEGMENTATION.output

    @property
    def command(self) -> str:
        return f"morphogen predict {shlex.quote(str(self.run))} IMAGES --out {self.output}"


def best_run(out: Path, joined: Joined) -> Best | None:
    """Chosen on validation images, never on test images; None where the runs are not in this folder."""
    verdict = joined.results["verdict"]
    arm = verdict["arm"] if verdict["outcome"] == "helped" else CONTROL
    judge = file_name(joined.primary.judge) if joined.primary else "*"
    output = (joined.primary.kind if joined.primary else SEGMENTATION).output
    runs = (path.parent for path in (out / "runs").glob(f"{file_name(arm)}.{judge}.*/final"))
    found = [Best(run, arm, max(_validation(run), default=0.0), output) for run in sorted(runs)]
    return max(found, key=lambda best: best.score, default=None)


def _validation(run: Path) -> Iterator[float]:
    path = run / "metrics.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        row = json.loads(line)
        if "val/score" in row:
            yield float(row["val/score"])


def number(value: float | None, metric: str = "dice") -> str:
    """A figure with the digits of its metric."""
    return "\u2013" if value is None else f"{value:.{DIGITS.get(metric, 3)}f}".replace("-", "\u2212")


def signed(value: float | None, metric: str = "dice") -> str:
    """A difference, with its sign."""
    return "\u2013" if value is None else f"{value:+.{DIGITS.get(metric, 3)}f}".replace("-", "\u2212")


def p_value(value: float) -> str:
    """Three digits, or ``< 0.001``."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def size(n: int | None) -> str:
    """Annotated pairs in words."""
    return "all annotated pairs" if n is None else f"{n} annotated pairs"
