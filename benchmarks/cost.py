"""Cost against work: images per second and memory of sampling, by batch and side length.

    python benchmarks/cost.py [--threads 2] [--limit 60] [--plot docs/cost.svg]

The shipped `tiny` as `morphogen sample` runs it: DPM-Solver++ with 15 steps, guidance, a hint. It was made for 64 px;
at other sides it costs what a model of its size costs, and its images mean nothing. A batch that would take more than
`--limit` seconds is painted with 1 and with 3 steps, and 15 steps are reckoned from these (`reckoned`): the time with 1
step and 14 times half the difference, since steps cost alike, and hint, text and decoding are outside of them. Others
are painted whole, three times at most, and the median is taken. Memory is the peak of what the process holds in memory
while it paints (Linux).

The ratio is against diffusers' `StableDiffusionControlNetPipeline` with DDIM 50, one image a call, at 64 px and
batch 8, taken round by round in the same run (benchmarks/sampling.py shows that both paint equally well).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from morphogen.data.phantoms import phantom
from morphogen.generators.siamese.config import SiameseConfig
from morphogen.generators.siamese.sampling import sample_images
from morphogen.generators.siamese.step import Networks
from sampling import FIRST, PEER, PROMPT, build, measure, ours, stock

BATCHES, SIDES = (1, 2, 4, 8, 16), (64, 128, 256, 512)
STEPS, REPEATS, ROUNDS = SiameseConfig.sampling_steps, 3, 5
COLOURS = ("#3b6ea5", "#0f6e6e", "#b08d57", "#7a4e7e")


def masks_of(batch: int, side: int) -> np.ndarray:
    return np.stack([phantom("mucosa", FIRST + k, side)[1] for k in range(batch)])


def timed(nets: Networks, masks: np.ndarray, steps: int = STEPS) -> float:
    """Seconds to paint one batch."""
    n, config = len(masks), replace(SiameseConfig(), sampling_steps=steps)
    start = time.perf_counter()
    sample_images(nets, masks, 2, [PROMPT] * n, range(n), config)
    return time.perf_counter() - start


def cost(nets: Networks, batch: int, side: int, limit: float) -> dict[str, Any]:
    """One point: seconds for a batch, images per second and peak memory."""
    masks = masks_of(batch, side)
    forget_peak()
    first = timed(nets, masks, 1)
    reckoned = STEPS * first > limit
    if reckoned:
        seconds = first + (STEPS - 1) * (timed(nets, masks, 3) - first) / 2
    else:
        times = [timed(nets, masks)]
        while len(times) < REPEATS and sum(times) + times[0] <= limit:
            times.append(timed(nets, masks))
        seconds = float(np.median(times))
    return {
        "batch": batch, "side": side, "seconds": seconds, "images_per_s": batch / seconds, "peak_gb": peak_gb(),
        "reckoned": reckoned,
    }  # fmt: skip


def forget_peak() -> None:
    """Let the kernel start a new peak of resident memory, where it can."""
    path = Path("/proc/self/clear_refs")
    if path.exists():
        path.write_text("5")


def peak_gb() -> float | None:
    """Peak of resident memory since `forget_peak` in GB (10^9 bytes); None where there is no /proc."""
    path = Path("/proc/self/status")
    if not path.exists():
        return None
    return next(int(line.split()[1]) * 1024 / 1e9 for line in path.read_text().splitlines() if "VmHWM" in line)


def draw(points: Sequence[dict[str, Any]], path: Path) -> None:
    """Images per second against the batch, one line a side length; hollow where reckoned from fewer steps."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"font.family": "DejaVu Sans", "font.size": 9, "svg.hashsalt": "morphogen"}):
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        axes = figure.subplots()
        for side, colour in zip(SIDES, COLOURS, strict=True):
            line = [point for point in points if point["side"] == side]
            x, y = [p["batch"] for p in line], [p["images_per_s"] for p in line]
            axes.plot(x, y, "-", color=colour, linewidth=1.4)
            for p in line:
                face = "white" if p["reckoned"] else colour
                axes.plot(p["batch"], p["images_per_s"], "o", color=colour, markersize=4.5, markerfacecolor=face)
            axes.annotate(
                f"{side} px", (x[-1], y[-1]), (8, 0), textcoords="offset points", va="center", color=colour
            )  # fmt: skip
        note = f"tiny, {STEPS} steps; hollow: reckoned from fewer"
        axes.set_title(note, loc="left", fontsize=8, color="#5b6675")
        axes.set(xscale="log", yscale="log", xlabel="images in a batch", ylabel="images per second")
        axes.set_xticks(BATCHES, [str(batch) for batch in BATCHES])
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.minorticks_off()
        axes.grid(axis="y", color="#e3e6ea", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--limit", type=float, default=60)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    nets = build()
    peer = stock(nets, 50, SiameseConfig.guidance)
    speed = measure(peer, {"ours": ours(nets, SiameseConfig())}, masks_of(16, 64), ROUNDS)["ours"]
    points = []
    for side in SIDES:
        for batch in BATCHES:
            p = cost(nets, batch, side, options.limit)
            points.append(p)
            memory = f"{p['peak_gb']:.2f} GB" if p["peak_gb"] is not None else ""
            print(f"| {side} | {batch} | {p['images_per_s']:.3g} | {memory} | {'*' * p['reckoned']} |", flush=True)
    if options.plot is not None:
        draw(points, options.plot)
    result = {
        "name": "cost", "peer": f"{PEER}, at 64 px", **speed, "threads": options.threads, "steps": STEPS,
        "points": points,
    }  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main()
