"""Distances between a set of synthetic and a set of real images: which are asked for, what they need, and their values.

What must be computed image by image is divided over the processes that were launched together (`collect`); the values
follow from what was collected (`measure`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from morphogen.data.records import Record
from morphogen.errors import InputError
from morphogen.metrics import lpips, weights
from morphogen.metrics.features import EXTRACTORS, Extractor, features_of, find
from morphogen.metrics.fid import FeatureStats, fid, frechet_distance
from morphogen.metrics.pictures import Size, picture
from morphogen.metrics.shares import divided, gathered, mine
from morphogen.progress import track

if TYPE_CHECKING:
    from morphogen.metrics.networks import Network

DIVERSITY_PAIRS = 200
"""Pairs of images within one set whose LPIPS is averaged."""


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        least: Images that each set needs.
        extractor: Key of `EXTRACTORS`; None for the one that the user chooses.
        lpips: Key of `lpips.NETWORKS` where it is one of these.
        moments: Whether mean and covariance of the features are enough.
    """

    least: int
    extractor: str | None = None
    lpips: str | None = None
    moments: bool = False


METRICS: dict[str, Metric] = {
    "fid": Metric(2, moments=True),
    "kid": Metric(4),
    "fd_dinov2": Metric(2, "dinov2-l14", moments=True),
    "cmmd": Metric(2, "clip-l14-336"),
    "clip_i": Metric(1, "clip-b32"),
    "lpips": Metric(2, lpips="vgg16"),
    "lpips_alex": Metric(2, lpips="alex"),
}


@dataclass(frozen=True)
class Options:
    """What to compute.

    Attributes:
        metrics: Keys of `METRICS`; empty for all whose weights are at hand.
        features: Extractor of FID, KID and the map.
        folders: Extractor -> folder with its weights.
        batch_size: Images per forward pass.
        device: A torch device.
        seed: Of KID's subsets, of LPIPS's pairs, and of the map.
        tsne: Picture of the map, where it is wanted.

    Raises:
        InputError: A name is unknown, or the batch size is not positive.
    """

    metrics: tuple[str, ...] = ()
    features: str = "inception"
    folders: Mapping[str, Path] = field(default_factory=dict)
    batch_size: int = 16
    device: str = "cpu"
    seed: int = 0
    tsne: Path | None = None

    def __post_init__(self) -> None:
        find(self.features)
        for name in self.metrics:
            if name not in METRICS:
                raise InputError(f"--metrics: {name!r} is not a metric; choose among {', '.join(METRICS)}")
        for name in self.folders:
            if name not in EXTRACTORS:
                raise InputError(f"--features-folder: {name!r} is not one of {', '.join(EXTRACTORS)}; correct the name")
        if self.batch_size < 1:
            raise InputError(f"--batch-size {self.batch_size}: is not positive; give at least 1")

    def extractor(self, name: str) -> Extractor:
        """The extractor of a metric."""
        return EXTRACTORS[METRICS[name].extractor or self.features]


@dataclass(frozen=True)
class Plan:
    """The metrics to compute, and for each of the others why not."""

    chosen: tuple[str, ...]
    skipped: Mapping[str, str]


def choose(options: Options) -> Plan:
    """Which metrics: those asked for, else all whose weights are here (nothing is downloaded then).

    Raises:
        InputError: The weights of a metric that was asked for are not to be had, or there are none of any.
    """
    from morphogen.metrics import networks

    if options.tsne is not None:
        networks.require(find(options.features), options.folders.get(options.features))
    skipped = {} if options.metrics else {name: reason for name in METRICS if (reason := _lacks(name, options))}
    chosen = tuple(name for name in METRICS if name in (options.metrics or METRICS) and name not in skipped)
    if not chosen:
        name, reason = next(iter(skipped.items()))
        raise InputError(f"{name}: {reason}")
    for name in chosen:
        if METRICS[name].lpips is not None:
            weights.locate(lpips.NETWORKS[METRICS[name].lpips or ""].member)
        else:
            networks.require(options.extractor(name), options.folders.get(options.extractor(name).id))
    return Plan(chosen, skipped)


def _lacks(name: str, options: Options) -> str:
    """Why a metric cannot be computed with what is here, or nothing."""
    from morphogen.metrics import networks

    network = METRICS[name].lpips
    member = None if network is None else lpips.NETWORKS[network].member
    if member is None:
        spec = options.extractor(name)
        if networks.available(spec, options.folders.get(spec.id)):
            return ""
        if not spec.packaged:
            return f"{spec.id} ({spec.source}) is not here; ask for it by --metrics {name} to download it"
        member = spec.source
    return (
        "" if weights.available(member) else f"{name}: its weights are not installed; {weights.MEMBERS[member].remedy}"
    )


@dataclass(frozen=True)
class Features:
    """Features of one set: all `rows` (N, D), or where these are not needed their moments alone."""

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


def measure(collected: Collected, sets: Sets, plan: Plan, options: Options) -> dict[str, Any]:
    """The value of every metric, by name."""
    return {name: _value(name, collected, sets, options) for name in plan.chosen}


def _value(name: str, collected: Collected, sets: Sets, options: Options) -> Any:
    from morphogen.metrics.clip_i import clip_i
    from morphogen.metrics.cmmd import cmmd
    from morphogen.metrics.kid import kid

    if METRICS[name].lpips is not None:
        found = collected.distances[name]
        means = {kind: float(values.mean()) if len(values) else None for kind, values in found.items()}
        return means | {f"n_{kind}": len(values) for kind, values in found.items()}
    synthetic, real = collected.features[options.extractor(name).id]
    if METRICS[name].moments:
        return synthetic.frechet(real)
    if name == "kid":
        return asdict(kid(synthetic.all, real.all, seed=options.seed))
    if name == "cmmd":
        return asdict(cmmd(synthetic.all, real.all))
    return asdict(clip_i(synthetic.all, real.all, sets.sources))


def warnings_of(collected: Collected, sets: Sets, plan: Plan, options: Options) -> list[str]:
    """What a reader must know of these values, one line each."""
    found = []
    few = min(len(sets.synthetic), len(sets.real))
    for name in plan.chosen:
        if METRICS[name].moments and few <= (dim := options.extractor(name).dim):
            found.append(
                f"{name}: {few} images for {dim} features, so that a covariance is singular and the value biased "
                "upwards; compare it only at equal numbers of images, or use kid"
            )
    for name, said in collected.extractors.items():
        if not said["published"]:
            found.append(f"{name}: weights of sha256 {said['sha256'][:12]}, not the published file; values may differ")
    return found
