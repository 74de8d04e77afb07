"""``morphogen eval masks``: predicted masks, or probability maps, against reference masks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from morphogen.cli.verb import Verb
from morphogen.errors import InputError

if TYPE_CHECKING:
    from morphogen.metrics.mask_files import MaskPairs
    from morphogen.metrics.masks import MaskScores
    from morphogen.metrics.thresholds import MapScores

INTERVAL = "ci95: percentile bootstrap over images, taken as independent."
EMPTY = (
    "Both masks empty: overlaps, weighted F and surface Dice 1, distances 0; one empty: 0, distances the diagonal; "
    "S-measure, E-measure and MAE are then what their definitions give."
)
LABELS = (
    "float64, at the size of the reference masks; an image scores the mean over its foreground classes, each against "
    "the rest. {definitions}. Pooled: over the pixels of all images together, then the mean over classes. Surface = "
    "foreground with a background 4-neighbour (6 in 3D), outside the image is background. Tolerance {tolerance:g} "
    "{unit}, distances in {unit}. {empty} {interval}"
)
MAPS = (
    "PraNet's: float64; each 8-bit map stretched to [0, 1] by its own minimum and maximum; dice, iou and e_measure at "
    "the 256 thresholds k / 255 (p >= threshold): _mean over thresholds and images, _max of the curve that is the mean "
    "over images; s_measure (Fan 2017), weighted_f (Margolin 2014) and mae of the stretched map. Map and reference "
    "both empty: overlaps 1. {interval}"
)
VOLUMES = (
    "float64, on the grid of the reference; a volume scores the mean over its foreground classes, each against the "
    "rest; per_volume has every class of every volume. {definitions}. Published tables of semi-supervised segmentation "
    "have dice, iou, hd95_pooled and asd in voxels (MedPy's). Pooled: over the voxels of all volumes together, then "
    "the mean over classes. Surface = foreground with a background 6-neighbour, outside the volume is background. "
    "Distances in {unit}. Both masks empty: overlaps 1, distances 0; one empty: 0, distances the diagonal. "
    "ci95: percentile bootstrap over volumes, taken as independent."
)


@dataclass(frozen=True, kw_only=True)
class Masks(Verb):
    """Compare predicted masks with reference masks of the same name, per image, per class and pooled.

    Overlaps (Dice, IoU), surface distances (HD, HD95, ASD, ASSD, surface Dice), S-measure, E-measure, weighted F and
    MAE, each with its definition in the result. Volumes are compared whole, never slice by slice.
    """

    pred: tyro.conf.Positional[Path]
    """Folder with the predicted masks, directly or in masks/."""
    ref: tyro.conf.Positional[Path]
    """Folder with the reference masks, directly or in masks/; with --volumes a folder of volumes in any layout."""
    mask_values: str | None = None
    """Label of every raw value in the reference masks, e.g. 0=0,255=1; found by itself where it is clear."""
    probabilities: bool = False
    """The predictions are 8-bit grey maps of the foreground's probability (`predict --probabilities`): scores over 256
    thresholds, as the polyp papers since PraNet have them."""
    metrics: tuple[str, ...] | None = None
    """Metrics of label masks to compute; all by default."""
    tolerance: float = 2.0
    """Tolerance of surface Dice, in the unit of the distances."""
    spacing: str | None = None
    """Size of a pixel in mm, for all axes (0.5) or for each (0.5,0.5,2), or `px` for distances in px; by default
    pictures are measured in px, volumes in mm by their headers."""
    workers: int | None = None
    """Processes; as many as there are cores by default, where the work is worth it."""
    volumes: bool = False
    """Score volumes as papers on volumes do: Dice, IoU, HD95, ASD and ASSD of every class of every volume, in voxels
    and, where the references or --spacing state a voxel size, in mm. REF may be lists of h5 files, too."""
    preset: str | None = None
    """With --volumes: the benchmark that REF is (la2018, say), which says where its files lie and what their labels
    mean."""
    part: Literal["train", "val", "test"] | None = None
    """With --volumes: the part of REF to score, where lists name parts; all that is labelled where left out."""

    def run(self) -> dict[str, Any]:
        """Score the masks.

        Raises:
            InputError: The folders do not match, a file is at fault, or an option makes no sense.
        """
        from morphogen.data.mask_values import parse_mask_values
        from morphogen.metrics.mask_files import match_masks

        self._check_kind()
        if not 0 <= self.tolerance < float("inf"):
            raise InputError(f"--tolerance {self.tolerance}: is no distance; give 0 or more")
        if self.probabilities and (self.spacing is not None or self.tolerance != Masks.tolerance):
            name = "tolerance" if self.spacing is None else "spacing"
            raise InputError(f"--{name}: is of distances, and --probabilities measures none; leave it out")
        stated = None if self.mask_values is None else parse_mask_values(self.mask_values)
        names, spacing = self._names(), _parse_spacing(self.spacing)
        if self.volumes:
            from morphogen.metrics.volume_files import match_volumes

            pairs = match_volumes(self.pred, self.ref, self.preset, self.part, stated, spacing)
            result = self._volumes(pairs)
        else:
            pairs = match_masks(self.pred, self.ref, stated, spacing, self.probabilities)
            result = self._maps(pairs) if self.probabilities else self._labels(pairs, names)
        warnings = [*pairs.notes, *result["warnings"]]
        if len(pairs) == 1:
            warnings.append(f"one {'volume' if self.volumes else 'image'} only: there is no interval")
        result["warnings"] = warnings
        _print(result, "volumes" if self.volumes else "images")
        return result

    def _check_kind(self) -> None:
        """Refuse options that are of the other kind of masks."""
        stated = {
            "probabilities": self.probabilities,
            "metrics": self.metrics is not None,
            "tolerance": self.tolerance != Masks.tolerance,
        }
        name = next((name for name, given in stated.items() if given), None)
        if self.volumes and name:
            raise InputError(f"--{name}: is not of --volumes, which has scores of its own; leave one of them out")
        name = next((name for name in ("preset", "part") if getattr(self, name) is not None), None)
        if not self.volumes and name:
            raise InputError(f"--{name}: is of --volumes; give that too, or leave it out")

    def _names(self) -> list[str]:
        """Metrics that were asked for, in the order of the table."""
        from morphogen.metrics.masks import ALL_METRICS

        if self.metrics is not None and self.probabilities:
            raise InputError("--metrics: chooses among the metrics of label masks; leave it out with --probabilities")
        for name in self.metrics or ():
            if name not in ALL_METRICS:
                raise InputError(f"--metrics {name}: is not a metric; known are {', '.join(ALL_METRICS)}")
        return [name for name in ALL_METRICS if not self.metrics or name in self.metrics]

    def _labels(self, pairs: MaskPairs, names: list[str]) -> dict[str, Any]:
        from morphogen.metrics.masks import ALL_METRICS
        from morphogen.metrics.scoring import score_files, score_labels
        from morphogen.metrics.summary import summarise

        flat = [name for name in names if pairs.volumes and ALL_METRICS[name].flat]
        if flat and self.metrics:
            raise InputError(
                f"--metrics {flat[0]}: is defined on pictures only, and {self.ref} holds volumes; leave it out"
            )
        names = [name for name in names if name not in flat]
        score = partial(score_labels, n_classes=len(pairs.classes), metrics=names, tolerance=self.tolerance)
        scores = score_files(pairs, score, self.workers)
        unit = "mm" if pairs.in_mm else "px"
        definitions = "; ".join(f"{name} = {ALL_METRICS[name].definition}" for name in names)
        protocol = LABELS.format(
            definitions=definitions, tolerance=self.tolerance, unit=unit, empty=EMPTY, interval=INTERVAL
        )
        warnings = _class_warnings(scores, pairs.classes)
        if flat:
            warnings.append(f"defined on pictures only, left out for volumes: {', '.join(flat)}")
        return summarise(scores, pairs.classes) | {"unit": unit, "protocol": protocol, "warnings": warnings}

    def _volumes(self, pairs: MaskPairs) -> dict[str, Any]:
        from morphogen.metrics.masks import ALL_METRICS
        from morphogen.metrics.scoring import score_files, score_volumes
        from morphogen.metrics.summary import summarise
        from morphogen.metrics.volumes import DISTANCES, OVERLAPS

        score = partial(score_volumes, n_classes=len(pairs.classes), in_mm=pairs.in_mm)
        scores = score_files(pairs, score, self.workers)
        unit = "voxels, and in mm where the name ends in _mm" if pairs.in_mm else "voxels"
        definitions = "; ".join(f"{name} = {ALL_METRICS[name].definition}" for name in (*OVERLAPS, *DISTANCES))
        warnings = _class_warnings(scores, pairs.classes)
        if not pairs.in_mm and self.spacing is None:
            warnings.append("the references state no voxel size: distances are in voxels alone; state --spacing for mm")
        return summarise(scores, pairs.classes) | {
            "per_volume": {name: _by_class(found, pairs.classes) for name, found in scores.items()},
            "protocol": VOLUMES.format(definitions=definitions, unit=unit),
            "warnings": warnings,
        }

    def _maps(self, pairs: MaskPairs) -> dict[str, Any]:
        from morphogen.metrics.scoring import score_files, score_probabilities
        from morphogen.metrics.summary import summarise_maps

        scores = score_files(pairs, score_probabilities, self.workers)
        result = summarise_maps(scores, pairs.classes[1])
        return result | {"protocol": MAPS.format(interval=INTERVAL), "warnings": _map_warnings(scores)}


def _parse_spacing(text: str | None) -> tuple[float, ...] | None:
    if text is None or text == "px":
        return None if text is None else ()
    try:
        sizes = tuple(float(part) for part in text.split(","))
    except ValueError:
        sizes = (0.0,)
    if not all(0 < size < float("inf") for size in sizes):
        raise InputError(f"--spacing {text}: is not a size in mm; write 0.5, or 0.5,0.5,2 for each axis, or px")
    return sizes


def _class_warnings(scores: dict[str, MaskScores], classes: tuple[str, ...]) -> list[str]:
    """Classes that one side, or both, do not know; they are scored by rule."""
    import numpy as np

    counts = np.sum([score.counts for score in scores.values()], axis=0)
    warnings = []
    for name, (_, pred, ref) in zip(classes[1:], counts, strict=True):
        if not pred and not ref:
            warnings.append(f"{name}: is in no mask of either side; every image scores 1 (distance 0) for it by rule")
        elif not ref:
            warnings.append(f"{name}: is in predictions and in no reference; it scores 0 wherever it is predicted")
        elif not pred:
            warnings.append(f"{name}: is in references and in no prediction; it scores 0 wherever it should be")
    return warnings


def _by_class(scores: MaskScores, classes: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Class -> metric -> value."""
    return {
        name: {metric: float(values[k]) for metric, values in scores.per_class.items()}
        for k, name in enumerate(classes[1:])
    }


def _map_warnings(scores: dict[str, MapScores]) -> list[str]:
    warnings = []
    faint = sum(score.highest < 128 and not score.constant for score in scores.values())
    if faint:
        warnings.append(
            f"in {faint} maps no pixel reaches 0.5; stretched as the protocol has it, they count as detections"
        )
    constant = sum(score.constant for score in scores.values())
    if constant:
        warnings.append(f"{constant} maps hold one value only and are not stretched")
    return warnings


def _print(result: dict[str, Any], what: str) -> None:
    print(f"{result['n']} {what}")
    for name, metric in result["metrics"].items():
        note = ""
        if metric.get("ci95") is not None:
            note = "  95 % interval {:.4f} to {:.4f}".format(*metric["ci95"])
        elif "threshold" in metric:
            note = f"  at threshold {metric['threshold']:.4f}"
        print(f"  {name:<22}{metric['mean']:>9.4f}{note}")
        if len(metric["per_class"]) > 1:
            print("    " + ", ".join(f"{label} {value:.4f}" for label, value in metric["per_class"].items()))
    for label, empty in result["empty"].items():
        print(f"  {label}: both masks empty in {empty['both']} {what}, one empty in {empty['one']}")
    for warning in result["warnings"]:
        print(f"warning: {warning}")
    print(result["protocol"])
