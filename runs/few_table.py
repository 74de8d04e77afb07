"""The Markdown tables of a comparison, as docs/results.md has them.

python runs/few_table.py OUT
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from morphogen.study.few.report import LABELS, number, signed
from morphogen.study.few.results import join


def main() -> None:
    """Print them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    results = join(parser.parse_args().folder)
    rows = results["rows"]
    metrics = [m for m in LABELS if all(m in row for row in rows.values())]
    print(f"| row | {' | '.join(LABELS[m] for m in metrics)} | folds | median training |")
    print("|---" * (len(metrics) + 3) + "|")
    for name, row in rows.items():
        values = " | ".join(_mean(row[m], m) for m in metrics)
        mark = " (exploratory)" if row["exploratory"] else ""
        print(f"| `{name}`{mark} | {values} | {len(row['folds'])} | {_minutes(row['train_s'])} |")
    print("\n| Dice | difference (95 % interval) | p (Holm) | higher in | fold by fold |\n|---|---|---|---|---|")
    for one in results["comparisons"]:
        if one["metric"] == "dice":
            interval = "" if one["ci95"] is None else " ({} to {})".format(*(signed(v, "dice") for v in one["ci95"]))
            p = "" if one["p_holm"] is None else f"{one['p_holm']:.3f}"
            folds = ", ".join(signed(v, "dice") for v in one["per_fold"])
            won = f"{one['folds_won']} of {len(one['folds'])} folds"
            difference = signed(one["diff"], "dice") + interval
            print(f"| `{one['row']}` to `{one['control']}` | {difference} | {p} | {won} | {folds} |")
    print(f"\n{results['verdict']['text']}")


def _minutes(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds / 60:.1f} min"


def _mean(found: dict[str, Any], metric: str) -> str:
    interval = "" if found["ci95"] is None else " ({} to {})".format(*(number(v, metric) for v in found["ci95"]))
    return number(found["mean"], metric) + interval


if __name__ == "__main__":
    main()
