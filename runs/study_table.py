"""The figures of a finished study as Markdown, for docs/results.md: ``python runs/study_table.py R``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import mean
from typing import Any


def arms(results: dict[str, Any]) -> list[str]:
    """One line an arm: Dice with its interval, IoU, HD95, and the difference of Dice to its control."""
    judge = results["cells"][0]["judge"]
    told = ("dice", judge, "test")
    against = {c["arm"]: c for c in results["comparisons"] if (c["metric"], c["judge"], c["test_set"]) == told}
    lines = ["| arm | Dice | IoU | HD95, px | Dice minus its control | p (Holm) |", "|---|---|---|---|---|---|"]
    for arm, of in results["arms"].items():
        row = of[judge]
        low, high = row["dice"]["ci95"]
        line = f"| `{arm}` | {row['dice']['mean']:.3f} ({low:.3f} to {high:.3f}) | {row['iou']['mean']:.3f} | "
        line += f"{row['hd95']['mean']:.0f} | "
        if found := against.get(arm):
            low, high = found["ci95"]
            difference = f"{found['diff']:+.3f} ({low:+.3f} to {high:+.3f})"
            p = f"{found['p_holm']:.2f}" if found["p_holm"] >= 0.005 else "< 0.005"
            line += f"{difference} to `{found['control']}` | {p} |"
        else:
            line += "| |"
        lines.append(line)
    return lines


def images(results: dict[str, Any]) -> list[str]:
    """One line a repetition: KID and FID of each row, adherence, and copies."""
    repetitions = results["images"]
    names = list(next(iter(repetitions.values()))["distances"]["rows"])
    columns = [f"{metric}, {name}" for name in names for metric in ("KID x 1000", "FID")]
    columns += ["adherence", "its judge on real", "flagged as near-copies"]
    table = []
    for label, found in repetitions.items():
        rows, adherence, audit = found["distances"]["rows"], found["adherence"], results["audit"].get(label, {})
        copies = audit.get("memorisation", audit)
        values = [v for name in names for v in (1000 * rows[name]["kid"]["mean"], rows[name]["fid"])]
        table.append([*values, adherence["dice"], adherence["dice_on_real"], copies.get("rate", float("nan"))])
    table.append([mean(column) for column in zip(*table, strict=True)])
    lines = ["| repetition | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for label, values in zip([*repetitions, "mean"], table, strict=True):
        shown = [f"{v:.1f}" for v in values[:-3]] + [f"{v:.3f}" for v in values[-3:-1]] + [f"{values[-1]:.0%}"]
        lines.append(f"| {label} | " + " | ".join(shown) + " |")
    return lines


def main() -> None:
    results = json.loads((Path(sys.argv[1]) / "results.json").read_text(encoding="utf-8"))
    print("\n".join([results["verdict"]["text"], "", *arms(results), "", *images(results)]))


if __name__ == "__main__":
    main()
