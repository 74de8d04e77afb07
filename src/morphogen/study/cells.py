"""One cell of a study: train a judge in one arm, score it on the test parts, write one JSON file each."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from morphogen.data.images import load_rgb
from morphogen.data.pairs import Pairs, native_mask
from morphogen.data.records import Dataset, Record
from morphogen.files import write_json
from morphogen.locks import lock
from morphogen.metrics.masks import score_masks
from morphogen.study.arms import Arm, arm, lead
from morphogen.study.bench import Bench
from morphogen.study.gating import kept_pairs
from morphogen.study.generators import others, variants_of
from morphogen.study.identity import stated_arms
from morphogen.study.kinds import CLASSIFICATION, SEGMENTATION, kind_of
from morphogen.study.oversample import oversampled
from morphogen.study.plan import Training
from morphogen.study.recipe import OWN_TEST
from morphogen.study.splits import Repetition
from morphogen.study.synthesis import (
    ArrayPairs,
    architecture_of,
    autoencoded_pairs,
    candidates,
    in_order_of_plan,
    judge_recipe,
)

Predict = Callable[[Sequence[np.ndarray]], Sequence[Any]]
"""Images (H, W, 3) uint8 -> of each its label map (H, W) at its native size, or class -> probability."""
Empty = dict[str, dict[str, int]]
"""Foreground class -> number of images with ``both`` masks or ``one`` mask empty."""
Source = Pairs | ArrayPairs
AT_ONCE = 32
"""Test images in memory together."""


@dataclass(frozen=True)
class JudgeRun:
    """One segmenter or classifier to train.

    Attributes:
        judge: Name of the network.
        architecture: Its options; its own defaults where empty.
        train: Sources of training pairs, joined end to end.
        validation: Pairs that choose the checkpoint.
        augmentation: ``none`` or ``geometric``.
        steps: Optimiser steps.
        batch: Rows of one step.
        seed: Seed of everything random.
        out: Run folder.
        recipe: Fields of `SegmenterConfig` or `ClassifierConfig` in place of their defaults.
        method: Semi-supervised method by which a segmenter learns from `unlabelled` too; None for pairs alone.
        unlabelled: Further images, without masks; None where there is no method.
    """

    judge: str
    architecture: Mapping[str, Any]
    train: Sequence[Source]
    validation: Pairs
    augmentation: str
    steps: int
    batch: int
    seed: int
    out: Path
    recipe: Mapping[str, Any] = field(default_factory=dict)
    method: str | None = None
    unlabelled: Pairs | None = None


@dataclass(frozen=True)
class Tools:
    """How a judge is trained and how it is loaded; tests put quick ones in their place."""

    train: Callable[[JudgeRun], Path]
    load: Callable[[Path, str], Predict]


def default_tools() -> Tools:
    """The segmenters and classifiers of this package."""
    return Tools(_train, _load)


def run_training(bench: Bench, training: Training, tools: Tools) -> bool:
    """Make the cells of one training that do not exist yet.

    Returns:
        False where another process is at work on them.

    Raises:
        MorphogenError: Data, generator or training failed; nothing half-done is left in ``cells/``.
    """
    with lock(bench.out / ".locks" / f"{training.name}.lock", wait=False) as held:
        missing = {t: name for t, name in training.cells.items() if not bench.cell_path(name).exists()}
        if not held or not missing:
            return held
        job, n_synthetic = _job(bench, training, tools)
        began = time.monotonic()
        predict = tools.load(tools.train(job), bench.config.device)
        trained = time.monotonic() - began
        for test_set, name in missing.items():
            began = time.monotonic()
            scores, empty = score(bench, training, test_set, predict)
            cell = _cell(bench, training, test_set) | {"n_synthetic": n_synthetic, "empty": empty, "scores": scores}
            if job.unlabelled is not None:
                cell["n_unlabelled"] = len(job.unlabelled)
            if named := others(bench.config, [training.arm]):  # the hash is of the study's own generator
                cell["presets"] = {name: bench.config.named_presets.get(name) for name in named}
            write_json(bench.cell_path(name), cell | {"wall_s": round(trained + time.monotonic() - began, 1)})
        return True


def _job(bench: Bench, training: Training, tools: Tools) -> tuple[JudgeRun, int]:
    """What to train, its synthetic pairs made, and how many of these it trains on."""
    config, repetition, ours = bench.config, training.repetition, arm(training.arm)
    network = (ours.network or training.judge).partition("+")[0]
    recipe = judge_recipe(config, network, len(repetition.train))
    if kind_of(network) is CLASSIFICATION:
        recipe |= {"classes": bench.image_classes}
    parts = {part: _sources(bench, training, part, tools) for part in dict.fromkeys(ours.parts)}
    job = JudgeRun(
        judge=network,
        architecture=architecture_of(ours.network or training.judge, config),
        train=[source for part in ours.parts for source in parts[part]],
        validation=Pairs(bench.dataset.select(repetition.validation), config.resolution),
        augmentation=ours.augmentation,
        steps=recipe.pop("max_train_steps", config.steps),
        batch=recipe.pop("train_batch_size", config.train_batch_size),
        seed=repetition.seed,
        out=bench.out / "runs" / training.name,
        recipe=recipe,
        method=ours.semi,
        unlabelled=Pairs(bench.unannotated(repetition), config.resolution) if ours.semi else None,
    )
    return job, sum(map(len, parts.get("synthetic", ())))


def _sources(bench: Bench, training: Training, part: str, tools: Tools) -> list[Source]:
    """The training pairs of one part of an arm, at working resolution."""
    repetition, resolution = training.repetition, bench.config.resolution
    if part == "synthetic":
        return [Pairs(some, resolution) for some in synthetic_part(bench, repetition, tools, arm(training.arm))]
    return [_source(bench, repetition, part, tools)]


def _source(bench: Bench, repetition: Repetition, part: str, tools: Tools) -> Source:
    """The training pairs of a part of real images."""
    resolution = bench.config.resolution
    if part == "oversampled":
        train = bench.dataset.select(repetition.train)
        return Pairs(
            oversampled(train, len(train) + _lead_pairs(bench, repetition, tools), repetition.seed), resolution
        )
    if part == "autoencoded":
        return autoencoded_pairs(bench, repetition)
    ids = {"real": repetition.train, "extra": repetition.extra}[part]
    return Pairs(bench.dataset.select(ids), resolution)


def _lead_pairs(bench: Bench, repetition: Repetition, tools: Tools) -> int:
    """How many synthetic pairs the arm of the verdict trains on, which they are made for; where the study has none, how
    many it would make."""
    arms = stated_arms(bench.config)
    ours = arm(lead(arms))
    if ours.name not in arms:
        return candidates(bench, repetition)
    return sum(map(len, synthetic_part(bench, repetition, tools, ours)))


def synthetic_part(bench: Bench, repetition: Repetition, tools: Tools, ours: Arm) -> list[Dataset]:
    """The synthetic pairs of an arm, one data set a generator.

    Of k generators the first gives its accepted pairs 1, k + 1, 2k + 1, ... in the order of the plan, the second those
    from 2, and so on: all together about as many as one would give. Without gates no two of them have a mask in common.
    """
    variants = variants_of(bench.config, ours)
    if len(variants) == 1:
        return [kept_pairs(bench, repetition, tools, variants[0], ours.n, ours.gated)]
    found, k = [], len(variants)
    for i, variant in enumerate(variants):
        pairs = kept_pairs(bench, repetition, tools, variant, gated=ours.gated)
        most = None if ours.n is None else len(range(ours.n)[i::k])
        taken = {*in_order_of_plan(pairs).ids[i::k][:most]}
        found.append(pairs.select(id_ for id_ in pairs.ids if id_ in taken))
    return found


def score(
    bench: Bench, training: Training, test_set: str, predict: Predict
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, int]]]:
    """Scores of a judge on one test set. Beside the audit of leakage, nothing else in a study reads test images, and
    nothing test masks; every call is counted.

    Returns:
        Image id -> ``subject``, and of a segmenter ``dice`` and ``iou`` in [0, 1], ``hd95`` in px (at the size of the
        mask file, means over foreground classes) and ``class`` where the image has one; of a classifier ``class``, that
        in truth, and ``p``, the probability of every class. And of a segmenter: class -> number of images with
        ``both`` masks or ``one`` mask empty, whose scores are set by rule.
    """
    dataset = bench.test_part(test_set, training.repetition)
    subjects = bench.splits.subjects if test_set == OWN_TEST else {r.id: r.subject or r.id for r in dataset}
    bench.count_read(training.name, test_set, len(dataset))
    scores: dict[str, dict[str, Any]] = {}
    empty: Empty = {}
    row = _class_row if kind_of(training.judge) is CLASSIFICATION else _mask_row
    for start in range(0, len(dataset), AT_ONCE):
        part = dataset.records[start : start + AT_ONCE]
        made = predict([load_rgb(record) for record in part])
        for record, said in zip(part, made, strict=True):
            scores[record.id] = {"subject": subjects[record.id], **row(record, dataset, said, empty)}
    return scores, empty


def _mask_row(record: Record, dataset: Dataset, label: np.ndarray, empty: Empty) -> dict[str, Any]:
    """Scores of a label map; counts empty masks."""
    found = score_masks(label, native_mask(record, dataset), len(dataset.classes))
    for name, both, one in zip(dataset.classes[1:], found.both_empty, found.one_empty, strict=True):
        counts = empty.setdefault(name, {"both": 0, "one": 0})
        counts["both"] += int(both)
        counts["one"] += int(one)
    means = {metric: found.image[metric] for metric in ("dice", "iou", "hd95")}
    return {**means, **({"class": record.label} if record.label else {})}


def _class_row(record: Record, dataset: Dataset, said: Mapping[str, float], empty: Empty) -> dict[str, Any]:
    """What a classifier says of an image, beside its class."""
    return {"class": record.label, "p": {name: round(float(p), 6) for name, p in said.items()}}


def _cell(bench: Bench, training: Training, test_set: str) -> dict[str, Any]:
    repetition = training.repetition
    return {
        "arm": training.arm,
        "judge": training.judge,
        "fold": repetition.fold,
        "seed": repetition.seed,
        "n_annotated": len(repetition.train) + len(repetition.validation),
        "test_set": test_set,
        "config_hash": bench.hash,
    }


def _train(job: JudgeRun) -> Path:
    from morphogen.segmenters.task import SegmenterConfig, train_segmenter

    stated: dict[str, Any] = {
        **job.recipe,
        "architecture": job.architecture,
        "augmentation": "geometric" if job.augmentation == "geometric" else "none",
        "max_train_steps": job.steps,
        "train_batch_size": job.batch,
        "seed": job.seed,
    }
    if job.unlabelled is not None:
        from morphogen.segmenters.diffcl.config import SemiConfig
        from morphogen.segmenters.diffcl.pictures import train_pictures

        semi = SemiConfig(**stated | {"method": job.method})
        return train_pictures(job.judge, job.train, job.unlabelled, job.validation, semi, job.out)
    if kind_of(job.judge) is SEGMENTATION:
        return train_segmenter(job.judge, job.train, job.validation, SegmenterConfig(**stated), job.out)
    from morphogen.classifiers.config import ClassifierConfig
    from morphogen.classifiers.task import train_classifier

    return train_classifier(job.judge, job.train, job.validation, ClassifierConfig(**stated), job.out, absent=True)


def _load(run: Path, device: str) -> Predict:
    from morphogen.training.net_files import kind_of as network_of

    if network_of(run) != "classifier":
        from morphogen.segmenters.predictor import load_segmenter

        return load_segmenter(run, device)
    from morphogen.classifiers.predictor import load_classifier

    return load_classifier(run, device).by_name
