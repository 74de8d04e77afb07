"""Two workers against one: sampling by shards and on Ray, and training by two processes; what a pair costs.

    python benchmarks/scale.py [--pairs 192] [--steps 24] [--rounds 3] [--out FOLDER] > scale.json
    python runs/scale_table.py scale.json

The commands are those of docs/scale.md, each process with one thread: `morphogen sample` of `tiny`
(Siamese-Diffusion at 64 px, 15 steps, batches of 8) as one process, as two with `--shard`, and on a local Ray with one
and two workers; then `morphogen train siamese` by one process and by two (torchrun, gloo), with the same batch of 16 a
step. A machine with two idle cores is what this needs; on a busy one the ratios mean nothing.

Rates are taken from the times of the files themselves: of pairs, from the moment when as many are written as the first
batches of all workers hold, to the last one; of steps, from the second line of metrics.jsonl to the last. Start-up
(imports, loading, Ray) is outside of that, and is given beside it in seconds. `efficiency` is the rate of two workers
over twice the rate of one; medians over rounds. `equal` says that all ways of sampling have left the same pairs: to the
byte where the batches are the same (Ray's are those of one process), within one grey level elsewhere.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from morphogen.data.phantoms import phantom_dataset
from morphogen.generators import GENERATORS

PEER = "one worker of one thread"
MASKS, SIDE, BATCH, TRAIN_BATCH, POLL_S = 8, 64, 8, 16, 0.005
MORPHOGEN = (sys.executable, "-m", "morphogen")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "morphogen")
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
WAYS: dict[str, tuple[int, list[tuple[str, ...]]]] = {
    "plain": (1, [()]),
    "shards": (2, [("--shard", "0/2"), ("--shard", "1/2")]),
    "ray 1": (1, [("--ray", "local", "--workers", "1")]),
    "ray 2": (2, [("--ray", "local", "--workers", "2")]),
}
"""Name -> workers, and the options of each command that is started."""


@dataclass(frozen=True)
class Timed:
    """A way to do the work: things a second once it runs, and the seconds before that."""

    rate: float
    start_s: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=192)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.out) as folder:
        result = measure(Path(folder), options.pairs, options.steps, options.rounds)
    print(json.dumps(result))
    sys.exit(0 if result["equal"] else 1)


def measure(room: Path, pairs: int, steps: int, rounds: int) -> dict[str, Any]:
    """All ways, round by round, in the folder `room`; of every way of sampling the last round's files stay."""
    data = phantom_dataset(room / "data", "mucosa", 2 * TRAIN_BATCH, SIDE)
    masks = phantom_dataset(room / "masks", "mucosa", MASKS, SIDE, seed=1)
    run = _generator(room, data)
    sampled: dict[str, list[Timed]] = {way: [] for way in WAYS}
    trained: dict[int, list[Timed]] = {1: [], 2: []}
    for round_ in range(rounds):
        for way in WAYS:
            sampled[way].append(sample(way, run, masks.root, room / way, pairs))
        for processes in trained:
            trained[processes].append(train(processes, data.root, room / f"train-{processes}-{round_}", steps))
        print(f"round {round_ + 1} of {rounds}", file=sys.stderr, flush=True)
    equal = all(same(room / way, room / "plain", levels=int(way == "shards")) for way in WAYS)
    settings = {"pairs": pairs, "steps": steps, "rounds": rounds}
    return {**summary(sampled, trained, sizes(room / "plain")), **settings, "equal": equal}


def summary(
    sampled: dict[str, list[Timed]], trained: dict[int, list[Timed]], bytes_: dict[str, float]
) -> dict[str, Any]:
    """The result, of the timings of every round."""
    rate = {way: statistics.median(t.rate for t in some) for way, some in sampled.items()}
    step_rate = {n: statistics.median(t.rate for t in some) for n, some in trained.items()}
    starts = {way: statistics.median(t.start_s for t in some) for way, some in sampled.items()}
    gains = {
        "shards": _gain(sampled["shards"], sampled["plain"]),
        "ray": _gain(sampled["ray 2"], sampled["ray 1"]),
        "training": _gain(trained[2], trained[1]),
    }
    return {
        "name": "scale",
        "peer": PEER,
        "ours_s": 1 / rate["shards"],
        "peer_s": 1 / rate["plain"],
        "ratio": gains["shards"],
        "efficiency": {name: gain / 2 for name, gain in gains.items()},
        "ray_over_plain": _gain(sampled["ray 1"], sampled["plain"]),
        "seconds_per_pair": 1 / rate["plain"],
        "seconds_per_step": {str(n): 1 / value for n, value in step_rate.items()},
        "start_s": starts,
        **bytes_,
        "side": SIDE,
        "batch": BATCH,
        "train_batch": TRAIN_BATCH,
    }


def _gain(ours: Sequence[Timed], theirs: Sequence[Timed]) -> float:
    """How many times the rate of the other side ours is, the median of the ratios of each round."""
    return statistics.median(a.rate / b.rate for a, b in zip(ours, theirs, strict=True))


def sample(way: str, run: Path, masks: Path, out: Path, pairs: int) -> Timed:
    """Make the pairs in one way, in a new folder."""
    shutil.rmtree(out, ignore_errors=True)
    workers, commands = WAYS[way]
    words = ["sample", str(run), "--masks", str(masks), "--per-mask", str(-(-pairs // MASKS)), "--out", str(out)]
    began = time.time()
    _finish([_start([*MORPHOGEN, *words, "--batch-size", str(BATCH), *extra]) for extra in commands])
    return steady(sorted(path.stat().st_mtime for path in (out / "images").iterdir()), workers * BATCH, began)


def steady(times: Sequence[float], first: int, began: float) -> Timed:
    """The rate after the first `first` things, of the sorted times at which each was done."""
    rate = (len(times) - first) / (times[-1] - times[first - 1])
    return Timed(rate, times[-1] - began - len(times) / rate)


def train(processes: int, data: Path, out: Path, steps: int) -> Timed:
    """Train in a new folder, and note when each line of the log is there."""
    words = ["train", "siamese", str(data), "--out", str(out), "--adapt-steps", "0", "--max-train-steps", str(steps)]
    command = [*(MORPHOGEN if processes == 1 else TORCHRUN), *words, "--train-batch-size", str(TRAIN_BATCH)]
    times: list[float] = []
    began, log = time.time(), out / "metrics.jsonl"
    process = _start(command)
    while process.poll() is None:
        lines = log.read_bytes().count(b"\n") if log.exists() else 0
        times += [time.time()] * (lines - len(times))
        time.sleep(POLL_S)
    _finish([process])
    return steady(times, 2, began)


def sizes(out: Path) -> dict[str, float]:
    """Bytes of a pair on the disk: image, mask, row of the manifest."""
    count = sum(1 for _ in (out / "images").iterdir())
    parts = {part: sum(path.stat().st_size for path in (out / part).iterdir()) / count for part in ("images", "masks")}
    row = (out / "manifest.jsonl").stat().st_size / count
    return {"bytes_per_image": parts["images"], "bytes_per_mask": parts["masks"], "bytes_per_row": row}


def _generator(room: Path, data: Any) -> Path:
    """A run of one step: what it costs to sample is what any run of `tiny` costs."""
    entry = GENERATORS["siamese"]
    return entry.train(data, entry.configure("tiny", max_train_steps=1, adapt_steps=0), room / "run")


def _start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, env={**os.environ, **ENVIRONMENT}, stdout=subprocess.DEVNULL)


def _finish(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.wait():
            raise SystemExit(f"a command failed: {process.args!r}")


def same(ours: Path, theirs: Path, levels: int) -> bool:
    """Whether two folders hold the same files: to the byte, or with images within some grey levels."""
    names = [sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()) for out in (ours, theirs)]
    if names[0] != names[1]:
        return False
    if not levels:
        return all((ours / name).read_bytes() == (theirs / name).read_bytes() for name in names[0])
    images = [name for name in names[0] if name.startswith("images/")]
    return all(np.abs(_pixels(ours / name) - _pixels(theirs / name)).max() <= levels for name in images)


def _pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image).astype(int)


if __name__ == "__main__":
    main()
