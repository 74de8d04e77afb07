"""Volumes per minute: the convolutional network against the diffusion network, windows at once, and their overlap.

    python benchmarks/inference.py [--shape 96x96x64] [--patch 48x48x32] [--filters 16] [--steps 10] [--rounds 3]

Ours is the convolutional network of Diff-CL (with its high-frequency modules) on one whole volume, from the values of
the file to class probabilities on its grid, windows overlapping by a half and four of them at once. Beside it: the
diffusion network in `--steps` DDIM steps, the plain V-Net without such modules, one, two and eight windows at once, and
overlaps of none and of three quarters (8, 27 and 125 windows for none, a half and three quarters). Volume and weights
are random; speed does not follow from them. The ways take turns, the first round is not counted, and ratios are medians
of ratios taken round by round. `--patch 112x112x80 --shape 194x142x88` is a left atrium as published.

`equal`: how many windows pass at once changes no probability by more than 1e-5; the exit status says so. `ratio` is the
diffusion network's time over ours.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from morphogen.data.volumes.files import Volume
from morphogen.data.volumes.preparation import Preparation
from morphogen.segmenters.diffcl.nets import rebuild
from morphogen.segmenters.diffcl.vnet import VNetConfig
from morphogen.segmenters.diffcl.volume_predictor import VolumePredictor, VolumeSettings

OURS, PEER, PLAIN = "convolutional network", "diffusion network", "convolutional network without modules"
TOLERANCE = 1e-5
LEVELS = (3, 4)
"""Skips with a high-frequency module, as Diff-CL has them by default."""
AT_ONCE = VolumeSettings.windows
WINDOWS, OVERLAPS = (1, 2, AT_ONCE, 8), (0.0, VolumeSettings.overlap, 0.75)


def predictor(filters: int, patch: Sequence[int], hfm: tuple[int, ...], device: str) -> VolumePredictor:
    """Networks of Diff-CL with random weights, as a finished run would hold them."""
    shape = VNetConfig(filters=filters, hfm=hfm)
    config = {
        "networks": {"cs": asdict(shape), "ds": asdict(replace(shape, denoiser=True, hfm=(), norm="instance"))},
        "classes": ["background", "organ"],
        "patch": list(patch),
        "preparation": asdict(Preparation()),
        "signal_scale": 0.5,
        "network": "cs",
        "steps": 10,
    }
    torch.manual_seed(0)
    return VolumePredictor(rebuild(config).to(device).eval(), config, Path())


def ways_of(options: argparse.Namespace) -> dict[str, tuple[VolumePredictor, VolumeSettings]]:
    """Ours first; the peer, the plain network, the other numbers of windows, and the other overlaps."""
    full, plain = (predictor(options.filters, options.patch, hfm, options.device) for hfm in (LEVELS, ()))
    usual = VolumeSettings()
    return {
        OURS: (full, usual),
        PEER: (full, replace(usual, network="ds", steps=options.steps)),
        PLAIN: (plain, usual),
        **{f"{n} at once": (full, replace(usual, windows=n)) for n in WINDOWS if n != AT_ONCE},
        **{f"overlap {o:g}": (full, replace(usual, overlap=o)) for o in OVERLAPS if o != usual.overlap},
    }


def clock() -> float:
    """Seconds, when all that was asked of the GPU is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def measure(
    ways: Mapping[str, tuple[VolumePredictor, VolumeSettings]], volume: Volume, rounds: int
) -> tuple[dict[str, list[float]], dict[str, np.ndarray]]:
    """Seconds of every way, round by round without the first, and what each said last."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    said = {}
    for _ in range(rounds + 1):
        for name, (network, settings) in ways.items():
            network.with_settings(settings)
            began = clock()
            said[name] = network.probabilities(volume)
            taken[name].append(clock() - began)
    return {name: times[1:] for name, times in taken.items()}, said


def against(times: Sequence[float], others: Sequence[float]) -> float:
    """Median over rounds of the one time over the other."""
    return statistics.median(mine / other for mine, other in zip(times, others, strict=True))


def sides(word: str) -> tuple[int, ...]:
    """``96x96x48``."""
    found = tuple(int(side) for side in word.split("x"))
    if len(found) != 3:
        raise ValueError
    return found


def parsed(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=sides, default=(96, 96, 64), help="of the volume, in voxels")
    parser.add_argument("--patch", type=sides, default=(48, 48, 32), help="of a window")
    parser.add_argument("--filters", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    options = parsed(words)
    torch.set_num_threads(options.threads)
    image = np.random.default_rng(0).normal(size=(1, *options.shape)).astype(np.float32)
    ways = ways_of(options)
    taken, said = measure(ways, Volume(image, None, None), options.rounds)
    off = max(float(np.abs(said[f"{n} at once"] - said[OURS]).max()) for n in WINDOWS if n != AT_ONCE)
    mine = taken[OURS]
    ratios = {name: against(times, mine) for name, times in taken.items()}
    windows = {n: taken[OURS if n == AT_ONCE else f"{n} at once"] for n in WINDOWS}
    of_one = {n: against(times, windows[1]) for n, times in windows.items()}
    print("| way | volumes a minute | time, of ours |\n|---|---|---|")
    for name, times in taken.items():
        print(f"| {name} | {60 / statistics.median(times):.2f} | {ratios[name]:.2f} |")
    print(f"\nWindows at once, time of one: {', '.join(f'{n} {ratio:.2f}' for n, ratio in of_one.items())}\n")
    result: dict[str, Any] = {
        "name": "inference", "peer": f"{PEER}, {options.steps} DDIM steps", "ours_s": statistics.median(mine),
        "peer_s": statistics.median(taken[PEER]), "ratio": ratios[PEER], "equal": off <= TOLERANCE, "difference": off,
        "ratios": ratios, "windows_of_one": of_one, "shape": options.shape, "patch": options.patch,
        "filters": options.filters, "rounds": options.rounds, "threads": options.threads,
        "device": torch.cuda.get_device_name() if options.device == "cuda" else f"CPU, {os.cpu_count()} cores",
    }  # fmt: skip
    print(json.dumps(result))
    return 0 if result["equal"] else 1


if __name__ == "__main__":
    sys.exit(main())
