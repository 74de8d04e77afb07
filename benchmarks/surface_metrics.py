"""Surface metrics of mask pairs: HD, HD95, ASD, ASSD and surface Dice together, this package against MONAI.

    python benchmarks/surface_metrics.py [--pairs 20] [--volumes 6] [--rounds 7] [--ways]

Ours takes one set of surface distances per pair for all five. The peer calls MONAI's metric functions for the same
five on one batch of all pairs (float32 tensors, one foreground channel, as its documentation has it), with one thread
or one a core, whichever is quicker. Two settings: polyp masks of 352 x 352 (references of Kvasir-SEG, each against
itself moved and with a ragged edge), and volumes of 112 x 112 x 80 voxels (crops of the left atrium, likewise; h5py
reads them). The sets are found through MORPHOGEN_DATA, else phantoms stand in. Rounds alternate; ratios are medians of
ratios taken round by round.

`equal`: ours agrees with a float64 brute force over all pairs of surface points to 1e-9, and MONAI's values with ours
to 1e-5 relative. `ratio` is the smaller of the two settings' ratios. `--ways` also times both ways to take the
distances, by a tree of points and by a distance transform, which decides `PIXELS_PER_POINT`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice
from PIL import Image
from scipy import ndimage
from scipy.spatial.distance import cdist

from morphogen.data.phantoms import phantom
from morphogen.metrics import surface
from morphogen.metrics.surface import surface_distances

PEER = "MONAI compute_hausdorff_distance (twice), compute_average_surface_distance (twice), compute_surface_dice"
NAMES = ("hd", "hd95", "asd", "assd", "surface_dice")
TOLERANCE = 2.0
SIDE, BOX = 352, (112, 112, 80)
SPACINGS: Mapping[str, tuple[float, ...]] = {"masks": (1.0, 1.0), "volumes": (1.25, 1.25, 2.5)}
Pairs = list[tuple[np.ndarray, np.ndarray]]


def ours(pairs: Pairs, spacing: tuple[float, ...]) -> np.ndarray:
    """(pairs, 5) values."""
    rows = []
    for pred, ref in pairs:
        found = surface_distances(pred, ref, spacing)
        rows.append([found.hd, found.hd95, found.asd, found.assd, found.surface_dice(TOLERANCE)])
    return np.array(rows)


def peers(pairs: Pairs, spacing: tuple[float, ...]) -> np.ndarray:
    """(pairs, 5) values."""
    pred, ref = (torch.from_numpy(np.stack(side))[:, None].float() for side in zip(*pairs, strict=True))
    options: dict[str, Any] = {"include_background": True, "spacing": spacing}
    values = [
        compute_hausdorff_distance(pred, ref, **options),
        compute_hausdorff_distance(pred, ref, percentile=95, **options),
        compute_average_surface_distance(pred, ref, **options),
        compute_average_surface_distance(pred, ref, symmetric=True, **options),
        compute_surface_dice(pred, ref, [TOLERANCE], **options),
    ]
    return torch.cat(values, dim=1).double().numpy()


def brute_force(pairs: Pairs, spacing: tuple[float, ...]) -> np.ndarray:
    """(pairs, 5) values from the distances between all surface points, in float64."""
    rows = []
    for pred, ref in pairs:
        points = [np.argwhere(m & ~ndimage.binary_erosion(m, border_value=0)) * spacing for m in (pred, ref)]
        to_ref, to_pred = nearest(*points), nearest(*points[::-1])
        pooled = np.concatenate([to_ref, to_pred])
        tail = max(np.percentile(to_ref, 95), np.percentile(to_pred, 95))
        rows.append([pooled.max(), tail, to_ref.mean(), pooled.mean(), np.mean(pooled <= TOLERANCE)])
    return np.array(rows)


def nearest(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    return np.concatenate([cdist(part, end).min(axis=1) for part in np.array_split(start, 1 + len(start) // 500)])


def polyps(root: Path | None, count: int) -> Pairs:
    """Masks of 352 x 352 against themselves, moved and frayed."""
    if root is None:
        masks = [phantom("mucosa", seed, SIDE)[1] > 0 for seed in range(count)]
    else:
        files = sorted((root / "polyps" / "kvasir_seg" / "masks").iterdir())
        chosen = [files[k] for k in np.linspace(0, len(files) - 1, count).astype(int)]
        nearest_neighbour = Image.Resampling.NEAREST
        masks = [np.array(Image.open(f).convert("L").resize((SIDE, SIDE), nearest_neighbour)) > 127 for f in chosen]
    return [(frayed(mask, seed), mask) for seed, mask in enumerate(masks)]


def volumes(root: Path | None, count: int) -> Pairs:
    """Volumes of 112 x 112 x 80 voxels against themselves, moved and frayed."""
    if root is None:
        masks = [ellipsoid(seed) for seed in range(count)]
    else:
        import h5py

        masks = []
        for file in sorted((root / "left_atrium").glob("*/mri_norm2.h5"))[:count]:
            with h5py.File(file) as held:
                masks.append(centred(np.asarray(held["label"]) > 0))
    return [(frayed(mask, seed), mask) for seed, mask in enumerate(masks)]


def ellipsoid(seed: int) -> np.ndarray:
    """A bent body about as large as an atrium in its crop."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, side) for side in BOX), indexing="ij")
    a, b, c = rng.uniform(0.4, 0.65, 3)
    return ((x + 0.3 * z**2) / a) ** 2 + (y / b) ** 2 + (z / c) ** 2 + 0.1 * np.sin(9 * x) * np.sin(7 * y) < 1


def centred(mask: np.ndarray) -> np.ndarray:
    """A box of 112 x 112 x 80 voxels around the middle of the foreground."""
    middle = np.argwhere(mask).mean(axis=0).astype(int)
    padded = np.pad(mask, [(side // 2, side // 2) for side in BOX])
    return padded[tuple(slice(m, m + side) for m, side in zip(middle, BOX, strict=True))]


def frayed(mask: np.ndarray, seed: int) -> np.ndarray:
    """What a segmenter might have made of it: moved a little, with a smooth random displacement of its edge."""
    rng = np.random.default_rng(seed)
    inside = ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(~mask)
    noise = ndimage.gaussian_filter(rng.normal(size=mask.shape), 4)
    moved = ndimage.shift(inside + 4 * noise / noise.std(), rng.uniform(-3, 3, mask.ndim), order=1, mode="nearest")
    return moved > 0


def seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def fastest_threads(pairs: Pairs, spacing: tuple[float, ...]) -> int:
    """Set and return the number of threads with which the peer is quickest."""
    peers(pairs[:1], spacing)
    times = {}
    for threads in sorted({1, os.cpu_count() or 1}):
        torch.set_num_threads(threads)
        times[threads] = min(seconds(lambda: peers(pairs, spacing)) for _ in range(2))
    best = min(times, key=lambda threads: times[threads])
    torch.set_num_threads(best)
    return best


def compare(pairs: Pairs, spacing: tuple[float, ...], rounds: int) -> dict[str, Any]:
    """Times of both sides, and how far their values lie apart."""
    threads = fastest_threads(pairs, spacing)
    mine, theirs, exact = ours(pairs, spacing), peers(pairs, spacing), brute_force(pairs, spacing)
    times = [(seconds(lambda: peers(pairs, spacing)), seconds(lambda: ours(pairs, spacing))) for _ in range(rounds)]
    off = float(np.abs(mine - exact).max())
    peer_off = float((np.abs(theirs - mine) / np.maximum(np.abs(mine), 1e-12)).max())
    return {
        "ours_s": statistics.median(t[1] for t in times),
        "peer_s": statistics.median(t[0] for t in times),
        "ratio": statistics.median(theirs / mine for theirs, mine in times),
        "difference_to_brute_force": off, "relative_difference_to_peer": peer_off,
        "equal": off <= 1e-9 and peer_off <= 1e-5, "pairs": len(pairs), "shape": list(pairs[0][0].shape),
        "peer_threads": threads,
    }  # fmt: skip


def ways(pairs: Pairs, spacing: tuple[float, ...]) -> str:
    """Milliseconds of both ways, and pixels per surface point."""
    step, rows = np.array(spacing), []
    for pred, ref in pairs:
        box = surface._bounding_box(pred | ref)
        edges = surface._surface(pred[box]), surface._surface(ref[box])
        share = edges[0].size / sum(np.count_nonzero(edge) for edge in edges)
        tree, transform = (seconds(partial(way, *edges, step)) for way in (surface.by_tree, surface.by_transform))
        rows.append((share, 1000 * tree, 1000 * transform))
    middle = np.median(rows, axis=0)
    return "pixels per point {:.0f}: tree {:.2f} ms, transform {:.2f} ms".format(*middle)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--volumes", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--ways", action="store_true")
    options = parser.parse_args()
    root = Path(os.environ["MORPHOGEN_DATA"]) if os.environ.get("MORPHOGEN_DATA") else None
    sides = {"masks": polyps(root, options.pairs), "volumes": volumes(root, options.volumes)}
    found: dict[str, dict[str, Any]] = {}
    for name, pairs in sides.items():
        if options.ways:
            print(name, ways(pairs, SPACINGS[name]), flush=True)
        found[name] = compare(pairs, SPACINGS[name], options.rounds)
        print(f"{name}: {found[name]['ratio']:.1f} times as fast", flush=True)
    slowest = min(found.values(), key=lambda one: one["ratio"])
    result = {
        "name": "surface_metrics", "peer": PEER,
        **{key: slowest[key] for key in ("ours_s", "peer_s", "ratio")},
        "equal": all(one["equal"] for one in found.values()), **found,
        "metrics": list(NAMES), "tolerance": TOLERANCE,
        "data": "phantoms" if root is None else "kvasir_seg, left_atrium",
    }  # fmt: skip
    print(json.dumps(result))
    sys.exit(0 if result["equal"] else 1)


if __name__ == "__main__":
    main()
