"""The figures of a study as Markdown, for docs/results.md: ``python runs/study_table.py R``.

cells/ and images/ suffice. A table for every judge and test set (the first is the one of the verdict; of a classifier
with the recall of every class), then one of the synthetic images and one of what the gates took. An arm that has fewer
repetitions than the verdict's is marked, and is compared with its control on its own repetitions.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from morphogen.study.compare import Comparison, Group
from morphogen.study.kinds import label
from morphogen.study.measured import known, measured
from morphogen.study.results import join


def interval(ci95: tuple[float, float] | None, form: str = ".3f") -> str:
    return f" ({ci95[0]:{form}} to {ci95[1]:{form}})" if ci95 else ""


def pairs(group: Group, arm: str) -> str:
    """How many synthetic pairs an arm trained on."""
    taken = sorted({int(cell.values["n_synthetic"] or 0) for cell in group.runs(arm).values()})
    return str(taken[0]) if taken[0] == taken[-1] else f"{taken[0]} to {taken[-1]}"


def difference(found: Comparison | None) -> str:
    if found is None:
        return "| |"
    p = f"{found.p_holm:.2f}" if found.p_holm >= 0.005 else "< 0.005"
    return f"{found.difference.mean:+.3f}{interval(found.difference.ci95, '+.3f')} to `{found.control}` | {p} |"


def arms(group: Group) -> list[str]:
    """One line an arm: the metric of a verdict with its interval, the others, and its difference to the control's."""
    headline = group.kind.headline
    against = {c.arm: c for c in group.comparisons[headline]}
    marked = {arm: group.exploratory(arm) for arm in group.arms}
    varied = any("+" in arm for arm in group.arms)
    others = [metric for metric in next(iter(group.means.values())) if metric != headline]
    columns = ["arm", *(["synthetic pairs"] if varied else []), label(headline), *map(label, others)]
    columns += [f"{label(headline)} minus its control", "p (Holm)"]
    columns += ["repetitions"] if any(marked.values()) else []
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for arm, of in group.means.items():
        line = f"| `{arm}` | " + (f"{pairs(group, arm)} | " if varied else "")
        line += f"{of[headline].mean:.3f}{interval(of[headline].ci95)} | "
        line += "".join(f"{of[metric].mean:.{0 if metric == 'hd95' else 3}f} | " for metric in others)
        line += difference(against.get(arm))
        if any(marked.values()):
            line += f" {marked[arm] or len(group.runs(arm))} |"
        lines.append(line)
    return lines


def images(results: Mapping[str, Any]) -> list[str]:
    """One line a repetition: KID and FID of each row, adherence, and copies; a table for every generator."""
    tables = [_images(results, measured(results["images"], generator)) for generator in known(results["images"])]
    return [line for table in tables for line in (*table, "")][:-1]


def _images(results: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    names = next((values["distances"]["rows"] for values in found.values()), {})
    columns = [f"{metric}, {name}" for name in names for metric in ("KID x 1000", "FID")]
    columns += ["adherence", "its judge on real", "flagged as near-copies"]
    table = []
    for name, values in found.items():
        rows, adherence, audit = values["distances"]["rows"], values["adherence"], results["audit"].get(name, {})
        distances = [v for row in names for v in (1000 * rows[row]["kid"]["mean"], rows[row]["fid"])]
        copies = audit.get("memorisation", {}).get("rate", float("nan"))
        table.append([*distances, adherence["dice"], adherence["dice_on_real"], copies])
    table.append([mean(column) for column in zip(*table, strict=True)])
    lines = ["| repetition | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, values in zip([*found, "mean"], table, strict=True):
        shown = [f"{v:.1f}" for v in values[:-3]] + [f"{v:.3f}" for v in values[-3:-1]] + [f"{values[-1]:.0%}"]
        lines.append(f"| {name} | " + " | ".join(shown) + " |")
    return lines


def gates(audit: Mapping[str, Any]) -> list[str]:
    """One line a repetition, way of sampling and class: pairs accepted and rejected, and by which gate."""
    whole = {name: sections["gates"] for name, sections in audit.items() if sections.get("gates")}
    found = {}
    for name, of in whole.items():
        found[name] = of
        for kind, counts in of.get("by_class", {}).items():
            found[f"{name}, {kind}"] = {**counts, "gates": of["gates"], "rejected": counts["n"] - counts["accepted"]}
    names: Sequence[str] = list(dict.fromkeys(gate for of in found.values() for gate in of["gates"]))
    if not found:
        return []
    columns = ["synthetic pairs of", "accepted", "rejected", *(f"by {name}" for name in names)]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, of in found.items():
        counts = [of["accepted"], of["rejected"], *(of["reasons"].get(gate, 0) for gate in names)]
        lines.append(f"| {name} | {' | '.join(map(str, counts))} |")
    return lines


def main() -> None:
    joined = join(Path(sys.argv[1]))
    lines = [joined.results["verdict"]["text"]]
    for group in sorted(joined.groups, key=lambda group: group is not joined.primary):
        size = "all" if group.n_annotated is None else group.n_annotated
        title = f"Judge {group.judge}, test set {group.test_set}, {size} annotated pairs:"
        lines += ["", *([title, ""] if len(joined.groups) > 1 else []), *arms(group)]
    lines += [f"\n{sentence}." for sentence in joined.results["protocol"]["fewer_pairs"]]
    for table in (images(joined.results), gates(joined.results["audit"])):
        lines += ["", *table] if table else []
    print("\n".join(lines))


if __name__ == "__main__":
    main()
