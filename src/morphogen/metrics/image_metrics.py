"""Distances between a set of synthetic and a set of real images: which there are, what they need, and their values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morphogen.errors import InputError
from morphogen.metrics import lpips, weights
from morphogen.metrics.features import EXTRACTORS, Extractor, find

if TYPE_CHECKING:
    from morphogen.metrics.image_passes import Collected, Sets


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
    return "" if weights.available(member) else f"its weights are not installed; {weights.MEMBERS[member].remedy}"


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
