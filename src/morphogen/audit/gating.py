"""Quality gates on two folders: limits from the real training images, verdicts on the synthetic ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from morphogen.audit.folders import Material
from morphogen.data.images import load_rgb
from morphogen.data.mask_values import parse_mask_values
from morphogen.data.pairs import native_mask
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
    """

    segment: Predict | None = None
    classify: Classify | None = None


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
        pairs: Of the memorisation audit.
        judges: The networks that the gates need.
        mask_values: What the raw mask values mean, where that is not clear.

    Raises:
        InputError: A mask is missing or cannot be read, or a pair lacks its class, or the score of a gate.
    """
    synthetic, train = material.synthetic, material.train
    scores: dict[str, Any] = {**recorded_scores(read_rows(synthetic.root), synthetic.ids, gates, synthetic.root)}
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
    rule = mask_rule(dataset.root, dataset.records, None if mask_values is None else parse_mask_values(mask_values))
    named = Dataset(dataset.name, dataset.root, dataset.records, rule.classes, rule.values)
    n, values = len(rule.classes), dict[str, list[float]]({"dice": [], "iou": []})
    for record in track(named.records, f"segmenting {dataset.name}"):
        label = predict([load_rgb(record)])[0]
        if label.max() >= n:
            raise InputError(
                f"{dataset.root}: has {n} classes, the segmenter paints more; take one trained on this data"
            )
        for name, value in overlap_scores(label, native_mask(record, named), n).items():
            values[name].append(value)
    return values
