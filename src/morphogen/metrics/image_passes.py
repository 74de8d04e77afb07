"""What must be computed image by image to compare two sets: features and LPIPS; several processes divide the images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from morphogen.data.records import Record
from morphogen.errors import InputError
from morphogen.metrics import lpips
from morphogen.metrics.features import EXTRACTORS, features_of
from morphogen.metrics.fid import FeatureStats, fid, frechet_distance
from morphogen.metrics.image_metrics import METRICS, Options, Plan
from morphogen.metrics.pictures import Size, picture
from morphogen.metrics.shares import divided, gathered, mine
from morphogen.progress import track

if TYPE_CHECKING:
    from morphogen.metrics.networks import Network

DIVERSITY_PAIRS = 200
"""Pairs of images within one set whose LPIPS is averaged."""


@dataclass(frozen=True)
class Features:
    """Features of one set: all `rows` (N, D), 8 D bytes an image; where these are not needed, their moments alone."""

    rows: np.ndarray | None
    stats: FeatureStats | None

    def frechet(self, other: Features) -> float:
        """FID to another set."""
        if self.rows is not None and other.rows is not None:
            return fid(self.rows, other.rows)
        assert self.stats is not None
        assert other.stats is not None
        return frechet_distance(self.stats, other.stats)

    @property
    def all(self) -> np.ndarray:
        """The rows, which were kept."""
        assert self.rows is not None
        return self.rows


@dataclass(frozen=True)
class Sets:
    """Synthetic and real records, the size (height, width) they are compared at, and who was painted from whom."""

    synthetic: Sequence[Record]
    real: Sequence[Record]
    size: Size
    sources: Mapping[int, int]


@dataclass(frozen=True)
class Collected:
    """Features by extractor (synthetic, real), LPIPS distances by metric and kind of pair, provenance by extractor."""

    features: Mapping[str, tuple[Features, Features]]
    distances: Mapping[str, Mapping[str, np.ndarray]]
    extractors: Mapping[str, Any]


def sources_of(synthetic: Sequence[Record], real: Sequence[Record]) -> dict[int, int]:
    """Index of a synthetic image -> index of the real one that it was made from.

    That is the record whose mask its manifest names; where there is no manifest, the one of the same id.
    """
    index = {record.id: k for k, record in enumerate(real)}
    named = ((record.origin or {"source_mask": record.id}).get("source_mask") for record in synthetic)
    return {k: index[name] for k, name in enumerate(named) if name in index}


def collect(sets: Sets, plan: Plan, options: Options) -> Collected:
    """Pass the images through the networks; all processes get the result.

    Raises:
        InputError: A set is too small, an image cannot be read or is too small, or a feature is not finite.
    """
    from morphogen.metrics.networks import load_network

    for name in plan.chosen:
        few = min(len(sets.synthetic), len(sets.real))
        if few < METRICS[name].least:
            which = "synthetic" if len(sets.synthetic) == few else "real"
            raise InputError(f"{few} {which} images: {name} needs at least {METRICS[name].least}; give more of them")
    rows = {options.extractor(name).id for name in plan.chosen if METRICS[name].lpips is None and not _moments(name)}
    needed = {options.extractor(name).id for name in plan.chosen if METRICS[name].lpips is None}
    if options.tsne is not None:
        rows.add(options.features)
    features, extractors = {}, {}
    for name in sorted(needed | rows):
        network = load_network(EXTRACTORS[name], options.device, options.folders.get(name))
        extractors[name] = network.provenance
        features[name] = (
            _features(network, sets.synthetic, sets.size, options.batch_size, name in rows),
            _features(network, sets.real, sets.size, options.batch_size, name in rows),
        )
    distances = {name: _distances(name, sets, options) for name in plan.chosen if METRICS[name].lpips is not None}
    return Collected(features, distances, extractors)


def _moments(name: str) -> bool:
    return METRICS[name].moments


def _features(network: Network, records: Sequence[Record], size: Size, batch_size: int, rows: bool) -> Features:
    def work(batch: Sequence[Record]) -> np.ndarray:
        return features_of([picture(r, size) for r in batch], network, [str(r.image) for r in batch])

    description = f"{network.spec.id} features"
    parts = batches(records, batch_size)
    if rows:
        return Features(np.concatenate(divided(parts, work, description)), None)
    stats = FeatureStats(network.spec.dim)
    for batch in track(mine(parts), description):
        stats.update(work(batch))
    first, *others = gathered(stats)
    for other in others:
        first.merge(other)
    return Features(None, first)


def batches(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    """Consecutive parts of at most `size` items."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def _distances(name: str, sets: Sets, options: Options) -> dict[str, np.ndarray]:
    """LPIPS of synthetic images and their sources, and of pairs within each set."""
    distance = lpips.Lpips(METRICS[name].lpips or "", options.device)

    def work(batch: Sequence[tuple[Record, Record]]) -> np.ndarray:
        sides = (np.stack([picture(pair[k], sets.size).transpose(2, 0, 1) for pair in batch]) for k in (0, 1))
        return distance(*sides)

    wanted = {
        "paired": [(sets.synthetic[i], sets.real[j]) for i, j in sets.sources.items()],
        "diversity": [(sets.synthetic[i], sets.synthetic[j]) for i, j in draw_pairs(len(sets.synthetic), options.seed)],
        "diversity_real": [(sets.real[i], sets.real[j]) for i, j in draw_pairs(len(sets.real), options.seed)],
    }
    return {
        kind: np.concatenate([np.empty(0), *divided(batches(pairs, options.batch_size), work, f"{name} {kind}")])
        for kind, pairs in wanted.items()
    }


def draw_pairs(n: int, seed: int) -> list[tuple[int, int]]:
    """At most `DIVERSITY_PAIRS` pairs i < j of n items, all different, by lot where there are more."""
    if n * (n - 1) // 2 <= DIVERSITY_PAIRS:
        return [(i, j) for j in range(n) for i in range(j)]
    rng = np.random.default_rng(seed)
    pairs: set[tuple[int, int]] = set()
    while len(pairs) < DIVERSITY_PAIRS:
        i, j = sorted(rng.choice(n, 2, replace=False).tolist())
        pairs.add((i, j))
    return sorted(pairs)
