"""Time and memory of the selective scan: ours against mambapy's parallel scan and a loop over tokens.

    python benchmarks/scan.py [--rounds 15] [--threads 2] [--shapes 245x128 ...] [--wide] [--device cpu]

All sides get the same u, delta, A, B, C, D (batch 1, 16 numbers of state) and make y and the gradients of all six; the
shapes are L x ED, tokens by inner channels, of feature maps of 7 x 7 x 5, 14 x 14 x 10 and 28 x 28 x 20. The peer is
`MambaBlock.selective_scan` of mambapy (pip install mambapy==1.2.0), a Blelloch scan with a backward of its own; beside
it a plain loop over the unbound tokens under autograd, up to 1,960 of them. Rounds alternate, the first is not
counted; ratios are medians of ratios taken round by round. `--wide` adds the inner channels that a V-Net of 16 filters
has at those lengths; no bar is set for them.

Memory, in MB: `peak` is the most that lay allocated at once above what was there before, from the allocations that
PyTorch's profiler records (on a GPU, from the allocator); `saved` is what autograd keeps between the passes, from
`saved_tensors_hooks`, each storage once.

`equal`: y and all gradients agree with the loop in float64 to 1e-5 of the largest value of each (or of 1). The bars:
1.5 against mambapy at every shape, 2 against the loop. The exit status says whether all hold. Without mambapy its
columns are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from morphogen.segmenters.diffcl.selective_scan import selective_scan

PEER = "mambapy 1.2.0, MambaBlock.selective_scan"
OURS, MAMBAPY, LOOP = "ours", "mambapy", "loop"
BARS = {MAMBAPY: 1.5, LOOP: 2.0}
SHAPES, WIDE = ("245x128", "1960x64", "15680x32"), ("245x512", "1960x256", "15680x128")
STATE, TOLERANCE = 16, 1e-5
LOOP_TOKENS = 1960
"""A longer loop takes seconds and says nothing more."""
Scan = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def loop(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """Token by token; slices of the whole in place of unbound tokens would make the backward pass quadratic."""
    h, ys = u.new_zeros(len(u), *A.shape), []
    for u_t, delta_t, B_t, C_t in zip(*(x.unbind(1) for x in (u, delta, B, C)), strict=True):
        step = delta_t.unsqueeze(-1)
        h = (step * A).exp() * h + step * B_t.unsqueeze(1) * u_t.unsqueeze(-1)
        ys.append((h @ C_t.unsqueeze(-1)).squeeze(-1))
    return torch.stack(ys, dim=1) + D * u


def scans() -> dict[str, Scan]:
    """Ours first; mambapy's where it is installed."""
    found: dict[str, Scan] = {OURS: selective_scan, LOOP: loop}
    try:
        from mambapy.mamba import MambaBlock
    except ImportError:
        return found
    return {**found, MAMBAPY: lambda *args: MambaBlock.selective_scan(None, *args)}  # which reads nothing of its block


def inputs(length: int, inner: int, device: str) -> list[Tensor]:
    """As a Mamba block has them when its training begins."""
    rng = torch.Generator().manual_seed(length)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng)

    made = [
        normal(1, length, inner), F.softplus(normal(1, length, inner) - 4),
        -torch.arange(1.0, STATE + 1).repeat(inner, 1), normal(1, length, STATE), normal(1, length, STATE),
        torch.ones(inner),
    ]  # fmt: skip
    return [x.to(device).requires_grad_() for x in made]


def run(scan: Scan, args: list[Tensor]) -> list[Tensor]:
    """y, and the gradients of all inputs."""
    y = scan(*args)
    weight = torch.linspace(-1, 1, y.numel(), device=y.device, dtype=y.dtype).view_as(y)
    return [y.detach(), *torch.autograd.grad(y, args, weight)]


def difference(found: Sequence[Tensor], truth: Sequence[Tensor]) -> float:
    """The largest, of each tensor relative to its largest value or to 1."""
    pairs = zip(found, truth, strict=True)
    return max(((a - b).abs().max() / b.abs().max().clamp(min=1)).item() for a, b in pairs)


def seconds(scan: Scan, args: list[Tensor], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    run(scan, args)
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def saved_bytes(scan: Scan, args: list[Tensor]) -> int:
    """What autograd keeps until the backward pass, the inputs left out."""
    kept: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        y = scan(*args)  # held, so that no address is given twice
    own = {x.untyped_storage().data_ptr() for x in args}
    return sum(size for where, size in kept.items() if where not in own) if y.requires_grad else 0


def peak_bytes(scan: Scan, args: list[Tensor], device: str) -> int:
    """The most that lies allocated at once during both passes."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(scan, args)
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run(scan, args)
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def compare(shape: str, rounds: int, device: str, barred: bool) -> dict[str, Any]:
    """One shape: times, ratios, memory, and how far the values lie from the truth."""
    length, inner = map(int, shape.split("x"))
    sides = {name: scan for name, scan in scans().items() if name != LOOP or length <= LOOP_TOKENS}
    args = inputs(length, inner, device)
    truth = run(loop if barred else selective_scan, [x.detach().double().requires_grad_() for x in args])
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds + 1):
        for name, scan in sides.items():
            taken[name].append(seconds(scan, args, device))
    times = {name: one[1:] for name, one in taken.items()}
    return {
        "shape": shape, "seconds": {name: statistics.median(one) for name, one in times.items()},
        "ratios": {
            name: statistics.median(theirs / mine for theirs, mine in zip(times[name], times[OURS], strict=True))
            for name in sides if name != OURS
        },
        "peak_mb": {name: peak_bytes(scan, args, device) / 1e6 for name, scan in sides.items()},
        "saved_mb": {name: saved_bytes(scan, args) / 1e6 for name, scan in sides.items()},
        "differences": {name: difference(run(scan, args), truth) for name, scan in sides.items()}, "barred": barred,
    }  # fmt: skip


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--shapes", nargs="+", default=SHAPES, help="LxED")
    parser.add_argument("--wide", action="store_true")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    options = parser.parse_args(words)
    torch.set_num_threads(options.threads)
    if MAMBAPY not in scans():
        print("mambapy is not installed, and its columns are left out: pip install mambapy==1.2.0")
    print("| L x ED | side | ms | time, of ours | peak, MB | saved, MB | off by |\n|---|---|---|---|---|---|---|")
    settings = []
    for shape in (*options.shapes, *(WIDE if options.wide else ())):
        found = compare(shape, options.rounds, options.device, shape in options.shapes)
        settings.append(found)
        for name, taken in found["seconds"].items():
            print(
                f"| {shape} | {name} | {1000 * taken:.1f} | {found['ratios'].get(name, 1):.2f} | "
                f"{found['peak_mb'][name]:.1f} | {found['saved_mb'][name]:.2f} | {found['differences'][name]:.1e} |",
                flush=True,
            )
    barred = [one for one in settings if one["barred"]]
    least = {name: [one for one in barred if name in one["ratios"]] for name in (MAMBAPY, LOOP)}
    held = {name: all(one["ratios"][name] >= BARS[name] for one in ones) for name, ones in least.items() if ones}
    result: dict[str, Any] = {"name": "scan", "peer": PEER}
    if least[MAMBAPY]:
        worst = min(least[MAMBAPY], key=lambda one: one["ratios"][MAMBAPY])
        result |= {"ours_s": worst["seconds"][OURS], "peer_s": worst["seconds"][MAMBAPY]}
        result |= {"ratio": worst["ratios"][MAMBAPY]}
    result |= {
        "bars": BARS, "held": held, "equal": all(one["differences"][OURS] <= TOLERANCE for one in settings),
        "settings": settings, "state": STATE, "rounds": options.rounds, "threads": options.threads,
        "device": torch.cuda.get_device_name() if options.device == "cuda" else f"CPU, {os.cpu_count()} cores",
    }  # fmt: skip
    print(json.dumps(result))
    return 0 if result["equal"] and all(held.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
