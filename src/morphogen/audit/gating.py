"""Quality gates on two folders: limits from the real training images, verdicts on the synthetic ones.

A pair that was painted into an image keeps all of it around the lesion by design, so that its copy is looked for among
lesions with their surroundings, as in studies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from morphogen.audit.folders import Material, subjects_of
from morphogen.audit.memorisation import Reference
from morphogen.audit.nearest import ImageSet, image_set
from morphogen.data.images import load_rgb
from morphogen.data.lesions import lesion
from morphogen.data.mask_values import parse_mask_values
from morphogen.data.pairs import Pairs, native_mask
from morphogen.data.readers import mask_rule
from morphogen.data.records import Dataset
from morphogen.errors import InputError
from morphogen.metrics.pictures import Size, pictures
from morphogen.progress import track
from morphogen.sampling.gates import (
    CLASSIFIED,
    SEGMENTED,
    Limit,
    Verdicts,
    class_scores,
    judge,
    overlap_scores,
    picture_scores,
    recorded_scores,
)
from morphogen.sampling.manifest import read_rows

Predict = Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]]
"""Images (H, W, 3) uint8 -> label maps (H, W) at their native size."""
Classify = Callable[[Sequence[np.ndarray]], Sequence[Mapping[str, float]]]
"""Images (H, W, 3) uint8 -> of each, class -> probability."""


@dataclass(frozen=True)
class Judges:
    """The networks that some gates need.

    Attributes:
        segment: For ``adherence`` and ``agreement``.
        classify: For ``class-agreement``.
        extractor: Features beside pixels by which ``copies`` compares lesions, or None.
    """

    segment: Predict | None = None
    classify: Classify | None = None
    extractor: str | None = None


def judge_folder(
    gates: Sequence[str],
    material: Material,
    size: Size,
    pairs: Sequence[Mapping[str, Any]],
    judges: Judges,
    mask_values: str | None = None,
) -> Verdicts:
    """Judge every synthetic image of a folder.

    Args:
        gates: Gates to judge by.
        material: The images; limits are set by ``train``.
        size: (height, width) at which blur and saturation are measured: that of the synthetic images.
        pairs: Of the memorisation audit, which compares whole images.
        judges: The networks that the gates need.
        mask_values: What the raw mask values mean, where that is not clear.

    Raises:
        InputError: A mask is missing or cannot be read, or a pair lacks its class, or the score of a gate.
    """
    synthetic, train = material.synthetic, material.train
    rows = read_rows(synthetic.root)
    scores: dict[str, Any] = {**recorded_scores(rows, synthetic.ids, gates, synthetic.root)}
    limits = [Limit.fixed(name) for name in scores]
    if {"blur", "saturation"} & {*gates}:
        ours, theirs = (
            picture_scores(track(pictures(list(some), size), f"{what} pictures", len(some)), gates)
            for some, what in ((synthetic, "synthetic"), (train, "real"))
        )
        scores |= ours
        limits += [Limit.of(name, values) for name, values in theirs.items()]
    if "copies" in gates:
        nearness = {pair["id"]: pair["nearness"] for pair in pairs}
        if painted := painted_into_images(material):
            nearness |= _nearness_of_lesions(synthetic.select(painted), train, max(size), judges.extractor, mask_values)
        scores["nearness"] = [nearness[i] for i in synthetic.ids]
        limits.append(Limit.of_copies(len(train)))
    if (wanted := [SEGMENTED[gate] for gate in gates if gate in SEGMENTED]) and judges.segment is not None:
        ours, theirs = (_overlaps(judges.segment, some, mask_values) for some in (synthetic, train))
        scores |= {name: ours[name] for name in wanted}
        limits += [Limit.of(name, theirs[name]) for name in wanted]
    for name in (CLASSIFIED[gate] for gate in gates if gate in CLASSIFIED):
        if judges.classify is not None:
            scores[name] = _agreement(judges.classify, synthetic)
            limits.append(Limit.fixed(name))
    return judge(gates, limits, synthetic.ids, scores, train.ids)


def painted_into_images(material: Material) -> list[str]:
    """Ids of the synthetic pairs whose rows say that they were painted into an image."""
    rows = read_rows(material.synthetic.root)
    known = {i: (row.get("origin"), row.get("mask_transform")) for i, row in rows.items()}
    return [
        i
        for i in material.synthetic.ids
        if any(isinstance(some, dict) and some.get("normal") for some in known.get(i, ()))
    ]


def _nearness_of_lesions(
    painted: Dataset, train: Dataset, side: int, extractor: str | None, mask_values: str | None
) -> dict[str, float]:
    """By id, how near a painted lesion is to one of the training images, in units of the threshold that these give."""
    if not len(train.annotated):
        raise InputError(
            f"{train.root}: has no masks, so that the lesions of {painted.root}, which were painted into images, have "
            "none to be compared with; add masks/, or leave the gate copies out"
        )
    real, ours = (_lesions(some, side, extractor, mask_values) for some in (train.annotated, painted))
    return dict(zip(painted.ids, Reference(real).judge(ours).nearness.tolist(), strict=True))


def _lesions(dataset: Dataset, side: int, extractor: str | None, mask_values: str | None) -> ImageSet:
    """The lesions of a folder in close-up, at (side, side)."""
    pairs = Pairs(_named(dataset, mask_values), side, cache=False)
    crops = (lesion(*pairs[i]).transpose(1, 2, 0) for i in range(len(pairs)))
    shown = track(crops, f"lesions of {dataset.name}", len(pairs))
    return image_set(dataset.ids, shown, subjects_of(dataset), extractor)


def _named(dataset: Dataset, mask_values: str | None) -> Dataset:
    """The folder with what its mask values mean."""
    rule = mask_rule(dataset.root, dataset.records, None if mask_values is None else parse_mask_values(mask_values))
    return Dataset(dataset.name, dataset.root, dataset.records, rule.classes, rule.values)


def _agreement(classify: Classify, dataset: Dataset) -> list[float]:
    """Of every image the probability of its class."""
    said = [classify([load_rgb(record)])[0] for record in track(dataset.records, f"classifying {dataset.name}")]
    return class_scores(said, dataset.records, dataset.root)


def _overlaps(predict: Predict, dataset: Dataset, mask_values: str | None) -> dict[str, list[float]]:
    """``dice`` and ``iou`` of every image against its mask, at the size of the file."""
    for record in dataset:
        if record.mask is None:
            raise InputError(
                f"{record.image}: has no mask, which the gates adherence and agreement compare; leave them out"
            )
    named = _named(dataset, mask_values)
    n, values = len(named.classes), dict[str, list[float]]({"dice": [], "iou": []})
    for record in track(named.records, f"segmenting {dataset.name}"):
        label = predict([load_rgb(record)])[0]
        if label.max() >= n:
            raise InputError(
                f"{dataset.root}: has {n} classes, the segmenter paints more; take one trained on this data"
            )
        for name, value in overlap_scores(label, native_mask(record, named), n).items():
            values[name].append(value)
    return values
