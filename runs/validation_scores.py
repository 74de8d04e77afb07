"""How the arms of a study do on its validation parts: what to choose by, without a look at a test part.

python runs/validation_scores.py R

From the logs of the judges' trainings (R/runs), so that it works where these are. A score is the mean over the looks of
the second half of a training, which varies less than the best look; the mean is over the repetitions that an arm has.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean

from morphogen.study.arms import ARMS, place

SCORE = "val/score"


def late_score(log: Path) -> float | None:
    """Mean validation score of the second half of a training's looks; None where there is none."""
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    looks = [(row["step"], row[SCORE]) for row in rows if SCORE in row]
    half = max((step for step, _ in looks), default=0) / 2
    return mean(score for step, score in looks if step >= half) if looks else None


def scores(runs: Path) -> dict[tuple[str, str], dict[str, float]]:
    """(judge, arm) -> repetition -> `late_score`."""
    found: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for log in sorted(runs.glob("*/metrics.jsonl")):
        arm, judge, repetition, *_ = [*log.parent.name.rsplit(".", 3), "", ""]
        if arm.partition("+")[0] in ARMS and (score := late_score(log)) is not None:
            found[judge, arm][repetition] = score
    return found


def main(folder: Path) -> None:
    """Print a table a judge."""
    found = scores(folder / "runs")
    if not found:
        sys.exit(f"{folder}: holds no log of a judge (runs/*/metrics.jsonl); run a cell of the study first")
    for judge in sorted({judge for judge, _ in found}):
        print(f"| {judge}, validation | score | repetitions |\n|---|---|---|")
        rows = {arm: of for (its, arm), of in found.items() if its == judge}
        for arm in sorted(rows, key=place):
            print(f"| `{arm}` | {mean(rows[arm].values()):.3f} | {len(rows[arm])} |")
        print()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(str(__doc__))
    main(Path(sys.argv[1]))
