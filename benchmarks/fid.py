"""FID from features: this package against the form with scipy's matrix square root.

    python benchmarks/fid.py [--images 5000] [--dim 2048] [--rounds 3]

Both sides get the same two sets of features, float64, non-negative and correlated as those after a ReLU are, and give
one number. The peer is what pytorch-fid and others compute: numpy's means and covariances, then
|m_1 - m_2|^2 + Tr(C_1) + Tr(C_2) - 2 Tr(sqrtm(C_1 C_2)). `ratio` is the median of the ratios taken round by round,
which include means and covariances on both sides; `distance_ratio` is that of the rest alone. OMP_NUM_THREADS sets the
threads of both. `equal` says that the values agree to 1e-6 relative.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import scipy.linalg

from morphogen.metrics.fid import FeatureStats, fid, frechet_distance

PEER = "numpy mean and cov, scipy.linalg.sqrtm"
TOLERANCE = 1e-6
T = TypeVar("T")


def features(seed: int, images: int, dim: int) -> np.ndarray:
    """(N, D) rectified mixtures of D sources with a falling spectrum."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(0).normal(size=(dim, dim)) / np.sqrt(dim)
    sources = rng.normal(size=(images, dim)) * np.linspace(2, 0.05, dim)
    return np.maximum(sources @ mixing + 0.3 * rng.random(dim), 0)


def moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return x.mean(axis=0), np.cov(x, rowvar=False)


def distance(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> float:
    shift = a[0] - b[0]
    root = scipy.linalg.sqrtm(a[1] @ b[1])
    return float(shift @ shift + np.trace(a[1]) + np.trace(b[1]) - 2 * np.trace(root).real)


def timed(work: Callable[[], T]) -> tuple[T, float]:
    start = time.perf_counter()
    return work(), time.perf_counter() - start


def one_round(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Values and seconds of both sides, of the whole and of the distance without the moments."""
    ours, ours_s = timed(lambda: fid(x, y))
    (a, b), peer_moments_s = timed(lambda: (moments(x), moments(y)))
    peer, peer_distance_s = timed(lambda: distance(a, b))
    stats = [FeatureStats(x.shape[1]).update(z) for z in (x, y)]
    again, ours_distance_s = timed(lambda: frechet_distance(*stats))
    assert abs(again - ours) <= 1e-9 * abs(ours)
    return {
        "ours": ours, "ours_s": ours_s, "ours_distance_s": ours_distance_s,
        "peer": peer, "peer_s": peer_moments_s + peer_distance_s, "peer_distance_s": peer_distance_s,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()

    x, y = (features(seed, options.images, options.dim) for seed in (1, 2))
    one_round(x[:200, :64], y[:200, :64])
    rounds = [one_round(x, y) for _ in range(options.rounds)]

    def median(of: Callable[[dict[str, float]], float]) -> float:
        return statistics.median(of(found) for found in rounds)

    difference = abs(rounds[0]["ours"] - rounds[0]["peer"]) / abs(rounds[0]["peer"])
    result: dict[str, Any] = {
        "name": "fid", "peer": PEER,
        "ours_s": median(lambda r: r["ours_s"]), "peer_s": median(lambda r: r["peer_s"]),
        "ratio": median(lambda r: r["peer_s"] / r["ours_s"]),
        "distance_ratio": median(lambda r: r["peer_distance_s"] / r["ours_distance_s"]),
        "equal": bool(difference <= TOLERANCE), "relative_difference": difference, "fid": rounds[0]["ours"],
        "images": options.images, "dim": options.dim, "cores": os.cpu_count(),
        "scipy": scipy.__version__, "numpy": np.__version__,
    }  # fmt: skip
    print(json.dumps(result))
    sys.exit(0 if result["equal"] else 1)


if __name__ == "__main__":
    main()
