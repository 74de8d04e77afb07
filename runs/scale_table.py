"""The sizing table of docs/scale.md: machines, hours and storage for 10^4 to 10^7 pairs.

    python benchmarks/scale.py > scale.json
    python runs/scale_table.py scale.json [--gpu-seconds 1.0] [--gpu-side 512]

Measured, and read from the benchmark's JSON: seconds a pair of one core, efficiency of further workers, bytes a pair.
Assumed, and stated with the table: `--gpu-seconds`, what one GPU takes for a pair of `--gpu-side` px (no GPU was
measured here: measure yours as docs/scale.md says and give the figure), that bytes of images and masks grow with their
pixels, and that many workers are as efficient as two (they share nothing but the folder). Start-up is left out.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PAIRS = (10**4, 10**5, 10**6, 10**7)
CORES, GPUS = (1, 64, 1024), (1, 8, 64)
"""Workers of the columns of hours."""


def hours(pairs: int, seconds: float, workers: int, efficiency: float) -> float:
    """n s / (3600 w e), with e = 1 for one worker."""
    return pairs * seconds / (3600 * workers * (efficiency if workers > 1 else 1))


def storage(found: Mapping[str, Any], side: int) -> float:
    """Bytes of a pair at another side: pixels cost alike, a row of the manifest costs what it does."""
    pixels = (side / found["side"]) ** 2
    return float((found["bytes_per_image"] + found["bytes_per_mask"]) * pixels + found["bytes_per_row"])


def table(found: Mapping[str, Any], gpu_seconds: float, gpu_side: int) -> list[str]:
    """Lines of Markdown: the table, and under it what it rests on."""
    efficiency = min(1.0, found["efficiency"]["shards"])
    small, large = storage(found, found["side"]), storage(found, gpu_side)
    head = [f"{n} core{'s' * (n > 1)}" for n in CORES] + [f"{n} GPU{'s' * (n > 1)}" for n in GPUS]
    side, seconds = found["side"], found["seconds_per_pair"]
    lines = [
        f"| pairs | {' | '.join(head)} | disk, {side} px | disk, {gpu_side} px |",
        "|" + " --- |" * (len(head) + 3),
    ]
    for pairs in PAIRS:
        cores = [_time(hours(pairs, seconds, n, efficiency)) for n in CORES]
        gpus = [_time(hours(pairs, gpu_seconds, n, efficiency)) for n in GPUS]
        disks = [_bytes(pairs * each) for each in (small, large)]
        lines.append(f"| 10^{round(math.log10(pairs))} | {' | '.join([*cores, *gpus, *disks])} |")
    return [
        *lines,
        "",
        f"Cores: measured, `tiny` at {side} px, {seconds:.2g} s a pair on one core, efficiency {efficiency:.2f}; "
        f"{small / 1000:.1f} kB a pair. GPUs: **assumed**, {gpu_seconds:g} s a pair at {gpu_side} px, "
        f"{large / 1000:.0f} kB a pair by pixels; no GPU was measured.",
    ]


def _time(value: float) -> str:
    if value >= 48:
        return f"{value / 24:.3g} days"
    return f"{value:.3g} h" if value >= 1 else f"{60 * value:.2g} min"


def _bytes(value: float) -> str:
    for unit in ("kB", "MB", "GB"):
        value /= 1000
        if value < 1000:
            return f"{value:.3g} {unit}"
    return f"{value / 1000:.3g} TB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", type=Path)
    parser.add_argument("--gpu-seconds", type=float, default=1.0)
    parser.add_argument("--gpu-side", type=int, default=512)
    options = parser.parse_args()
    found = json.loads(options.benchmark.read_text().splitlines()[-1])
    print("\n".join(table(found, options.gpu_seconds, options.gpu_side)))


if __name__ == "__main__":
    main()
