"""Scoring a folder of masks: the command `morphogen eval masks` against a plain loop over MONAI's metrics.

    python benchmarks/eval_masks.py [--pairs 1000] [--rounds 3]

Mask pairs of 384 x 288 px as PNG: references of CVC-ClinicDB (through MORPHOGEN_DATA, else phantoms), predictions the
same moved and with a ragged edge. Ours is the whole command as a process, imports, progress bar on a pseudo-terminal
and JSON included, with all its metrics and as many workers as there are cores. The peer is a loop in a process that has
imported MONAI already: read both files with PIL, then Dice, IoU, HD, HD95, ASD, ASSD and surface Dice by MONAI's
functions, with one thread or one a core, whichever is quicker. Rounds alternate; the ratio is the median of those of
the rounds.

`equal`: the seven metrics that both have agree for every pair to 1e-5 relative.
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.metrics import (
    compute_average_surface_distance,
    compute_dice,
    compute_hausdorff_distance,
    compute_iou,
    compute_surface_dice,
)
from PIL import Image
from surface_metrics import frayed

from morphogen.data.phantoms import phantom

PEER = "a loop over PIL and MONAI's compute_dice, compute_iou, compute_hausdorff_distance (HD, HD95), \
compute_average_surface_distance (ASD, ASSD), compute_surface_dice"
NAMES = ("dice", "iou", "hd", "hd95", "asd", "assd", "surface_dice")
SIZE = (384, 288)
TOLERANCE = 2.0


def write_pairs(folder: Path, count: int) -> None:
    """`count` pairs of PNGs in pred/ and ref/."""
    root = os.environ.get("MORPHOGEN_DATA")
    files = sorted((Path(root) / "polyps" / "cvc_clinicdb" / "masks").iterdir()) if root else []
    for side in ("pred", "ref"):
        (folder / side).mkdir()
    for k in range(count):
        if files:
            picture = Image.open(files[k % len(files)]).convert("L")
        else:
            picture = Image.fromarray((phantom("mucosa", k, 288)[1] > 0).astype(np.uint8) * 255)
        ref = np.array(picture.resize(SIZE, Image.Resampling.NEAREST)) > 127
        for side, mask in (("ref", ref), ("pred", frayed(ref, k))):
            Image.fromarray(mask.astype(np.uint8) * 255).save(folder / side / f"{k:04d}.png")


def ours(folder: Path) -> dict[str, Any]:
    """The command's result."""
    out = folder / "result.json"
    command = [sys.executable, "-m", "morphogen", "eval", "masks", str(folder / "pred"), str(folder / "ref")]
    terminal, end = pty.openpty()
    with subprocess.Popen([*command, "--json", str(out)], stdout=end) as process:
        os.close(end)
        shown = b"".join(iter(lambda: read(terminal), b""))
        os.close(terminal)
    if process.returncode or b"scoring" not in shown:
        raise SystemExit(shown.decode(errors="replace"))
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def read(terminal: int) -> bytes:
    """What the terminal shows next; nothing once the other end is closed."""
    try:
        return os.read(terminal, 4096)
    except OSError:
        return b""


def peers(files: list[tuple[Path, Path]]) -> np.ndarray:
    """(pairs, 7) values."""
    rows = []
    for pair in files:
        pred, ref = (torch.from_numpy(np.array(Image.open(file)) > 127)[None, None].float() for file in pair)
        values = [
            compute_dice(pred, ref),
            compute_iou(pred, ref),
            compute_hausdorff_distance(pred, ref, include_background=True),
            compute_hausdorff_distance(pred, ref, include_background=True, percentile=95),
            compute_average_surface_distance(pred, ref, include_background=True),
            compute_average_surface_distance(pred, ref, include_background=True, symmetric=True),
            compute_surface_dice(pred, ref, [TOLERANCE], include_background=True),
        ]
        rows.append([float(value) for value in values])
    return np.array(rows)


def timed(work: Any, *words: Any) -> tuple[Any, float]:
    began = time.perf_counter()
    return work(*words), time.perf_counter() - began


def fastest_threads(files: list[tuple[Path, Path]]) -> int:
    """Set and return the number of threads with which the peer is quickest."""
    times = {}
    for threads in sorted({1, os.cpu_count() or 1}):
        torch.set_num_threads(threads)
        times[threads] = min(timed(peers, files)[1] for _ in range(2))
    best = min(times, key=lambda threads: times[threads])
    torch.set_num_threads(best)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pairs(folder, options.pairs)
        files = [(folder / "pred" / f.name, f) for f in sorted((folder / "ref").iterdir())]
        threads = fastest_threads(files[:20])
        times = []
        for _ in range(options.rounds):
            theirs, peer_s = timed(peers, files)
            found, ours_s = timed(ours, folder)
            times.append((peer_s, ours_s))
            print(f"{peer_s / ours_s:.1f} times as fast", flush=True)
    mine = np.array([list(found["metrics"][metric]["per_image"].values()) for metric in NAMES]).T
    off = float((np.abs(theirs - mine) / np.maximum(np.abs(mine), 1e-12)).max())
    result = {
        "name": "eval_masks", "peer": PEER,
        "ours_s": statistics.median(t[1] for t in times), "peer_s": statistics.median(t[0] for t in times),
        "ratio": statistics.median(theirs_s / ours_s for theirs_s, ours_s in times),
        "equal": off <= 1e-5, "relative_difference_to_peer": off, "pairs": options.pairs, "size": list(SIZE),
        "metrics_of_ours": list(found["metrics"]), "metrics_of_peer": list(NAMES), "peer_threads": threads,
        "data": "cvc_clinicdb" if os.environ.get("MORPHOGEN_DATA") else "phantoms",
    }  # fmt: skip
    print(json.dumps(result))
    sys.exit(0 if result["equal"] else 1)


if __name__ == "__main__":
    main()
