"""What a study will cost, before it starts: from constants measured on two CPU cores, and from the cells that exist."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from morphogen.data.images import load_rgb
from morphogen.foundation.adapt import AdaptConfig
from morphogen.sampling.gates import CLASSIFIED, SEGMENTED
from morphogen.study.arms import OWN, Variant, arm, find
from morphogen.study.bench import Bench
from morphogen.study.generators import generator_config, has_foundation, paints_into_images, variants_of
from morphogen.study.kinds import CLASSIFICATION, kind_of
from morphogen.study.plan import Training
from morphogen.study.recipe import StudyConfig
from morphogen.study.synthesis import candidates, judge_recipe

ROWS = 16
"""Rows of the steps that were timed, each of 64 x 64 px, with the networks of the defaults, on two CPU cores."""
SECONDS_A_STEP = 0.16
"""One optimiser step of the default U-Net."""
OF_A_CLASSIFIER = 0.1
"""What the small classifier takes of that."""
OF_A_SEMI_STEP = {"diff-cl": 5.1, "cps": 3.9, "ua-mt": 4.3, "bcp": 2.3}
"""What a step of an arm that learns from unannotated images takes of it, by method: CPU time on one thread, median over
the steps in which these have a say, of ``morphogen train diffcl PHANTOMS --max-train-steps 22 --preset
network=unet+labelled=20+method=METHOD`` over ``morphogen train unet PHANTOMS --max-train-steps 22``, encoder lite0."""
SECONDS_A_GENERATOR_STEP = 0.7
"""One optimiser step of Siamese-Diffusion on the foundation `tiny`."""
SECONDS_A_DECODER_STEP = 1.0
"""One optimiser step of fine-tuning the autoencoder's decoder of the foundation `tiny`, with the perceptual loss."""
SECONDS_AN_ADAPT_STEP = 0.3
"""One optimiser step of fine-tuning its denoiser."""
SECONDS_A_SCORE = 0.03
"""Reading, predicting and scoring one test image of 384 x 288 px."""
SECONDS_A_PAIR = 0.2
"""Sampling one synthetic pair at 64 px."""
SECONDS_OF_QUALITY = 90.0
"""Features of some 350 images for the distances of one repetition, and the audit."""
SECONDS_OF_COPIES = 15.0
"""Features of some 100 images for the gate that looks for copies."""
MB_A_RUN = 25.0
"""Weights, log and previews of one trained segmenter."""
MB_OF_PROCESS = 1500.0
"""Peak memory of a process that trains at 64 px."""


@dataclass(frozen=True)
class Estimate:
    """Seconds on two idle CPU cores, disk and memory in MB, of what is still to be done."""

    seconds: float
    disk_mb: float
    memory_mb: float


def estimate(bench: Bench, todo: Sequence[Training]) -> Estimate:
    """The cost of these trainings, their generators and their image measures."""
    config = bench.config
    area = config.resolution**2 / 64**2
    scale = area * config.train_batch_size / ROWS
    judge = _seconds_so_far(bench) or _rows(bench) / ROWS * SECONDS_A_STEP * area
    helper = SECONDS_A_STEP * scale * config.steps if config.recipe else judge
    tests = sum(len(bench.test_part(t, training.repetition)) for training in todo for t in training.test_sets)
    painted = {"synthetic", "autoencoded"}
    repetitions = {t.repetition.label: t.repetition for t in todo if painted & {*arm(t.arm).parts}}
    ways = {label: _sampled(config, label, todo) for label in repetitions}
    pairs = {(label, way): candidates(bench, r, way) for label, r in repetitions.items() for way in ways[label]}
    seconds = sum(_times(training.arm) for training in todo) * judge + tests * SECONDS_A_SCORE
    seconds += sum(pairs.values()) * SECONDS_A_PAIR * area + len(repetitions) * helper
    for label in repetitions:
        studies = [bench.of(Variant(generator=generator)) for generator in _trained(config, label, todo)]
        seconds += sum(map(_generator_seconds, studies)) * area + len(studies) * SECONDS_OF_QUALITY
        seconds += sum(dict(map(_adaptation, studies)).values()) * area
    gates = helper * (bool({*SEGMENTED} & {*config.gates}) + OF_A_CLASSIFIER * bool({*CLASSIFIED} & {*config.gates}))
    gates += SECONDS_OF_COPIES * ("copies" in config.gates)
    seconds += len(repetitions) * gates
    disk = (len(todo) + 2 * len(repetitions)) * MB_A_RUN
    disk += sum(n * 4 * _pixels(bench.of(way)) for (_, way), n in pairs.items()) / 1e6
    return Estimate(seconds, disk, MB_OF_PROCESS * max(1.0, scale**0.5))


def _times(name: str) -> float:
    """What training in an arm takes, as a multiple of one without unannotated images."""
    found = find(name)
    return OF_A_SEMI_STEP[found.semi] if found and found.semi else 1.0


def _rows(bench: Bench) -> float:
    """Rows that a judge trains on, in all its steps; the mean over judges, those of a classifier as a part of one."""
    config, n = bench.config, len(bench.splits.repetitions[0].train)
    own = {"max_train_steps": config.steps, "train_batch_size": config.train_batch_size}
    found = [own | judge_recipe(config, judge.partition("+")[0], n) for judge in config.judges]
    parts = [OF_A_CLASSIFIER if kind_of(judge) is CLASSIFICATION else 1 for judge in config.judges]
    rows = [one["max_train_steps"] * one["train_batch_size"] for one in found]
    return sum(part * n for part, n in zip(parts, rows, strict=True)) / len(rows)


def _sampled(config: StudyConfig, label: str, todo: Sequence[Training]) -> set[Variant]:
    """The ways in which the pairs of a repetition are to be sampled; the generator's own where no arm has pairs."""
    found = [arm(t.arm) for t in todo if t.repetition.label == label]
    return {v for one in found if "synthetic" in one.parts for v in variants_of(config, one)} or {OWN}


def _trained(config: StudyConfig, label: str, todo: Sequence[Training]) -> set[str | None]:
    """The generators of a repetition that are to be trained, None for the study's own: `autoencoded` needs it too."""
    named = {way.generator for way in _sampled(config, label, todo)}
    autoencodes = any("autoencoded" in arm(t.arm).parts for t in todo if t.repetition.label == label)
    return named | {None} if autoencodes and has_foundation(config) else named


def _pixels(bench: Bench) -> int:
    """Pixels of a synthetic image: those of the first real one where the generator paints into images."""
    if not paints_into_images(bench.config):
        return bench.config.resolution**2
    height, width = load_rgb(bench.dataset.select(bench.splits.repetitions[0].train[:1])[0]).shape[:2]
    return height * width


def _seconds_so_far(bench: Bench) -> float | None:
    """Mean time of the trainings that are done, or None before the first; what an arm takes more is taken off.

    The cells of a training's test sets all hold its time, so that the longest of them counts.
    """
    found: dict[str, float] = {}
    times: dict[str, float] = {}
    for path in (bench.out / "cells").glob("[!.]*.json"):
        training, cell = path.stem.rpartition(".")[0], json.loads(path.read_text(encoding="utf-8"))
        found[training] = max(found.get(training, 0.0), cell["wall_s"])
        times[training] = _times(cell["arm"])
    return sum(found.values()) / sum(times.values()) if found else None


def _generator_seconds(bench: Bench) -> float:
    """Training the generator of one repetition at 64 px, without the adaptation of its foundation; 0 for one that takes
    no steps."""
    settings = generator_config(bench.config, 0)
    if hasattr(settings, "seconds"):  # steps of another kind, of which the generator knows more
        return float(settings.seconds(len(bench.splits.repetitions[0].train)))
    rows = getattr(settings, "train_batch_size", ROWS) / ROWS
    trained: float = getattr(settings, "max_train_steps", 0) * SECONDS_A_GENERATOR_STEP * rows
    if getattr(settings, "w_r", 0):  # a segmenter of its own refines it
        trained += settings.segmenter_steps * SECONDS_A_STEP * rows
    return trained


def _adaptation(bench: Bench) -> tuple[tuple[Any, ...], float]:
    """What the adaptation of a generator's foundation is known by, since generators share it, and its time at 64 px."""
    settings = generator_config(bench.config, 0)
    key = tuple(getattr(settings, name, None) for name in ("foundation", "adapt_steps", "symmetries", "prompt"))
    asked = getattr(settings, "adapt_steps", 0)
    if asked is None:  # the denoiser too where the images are far, which is not known yet
        return key, AdaptConfig.decoder_steps * SECONDS_A_DECODER_STEP
    # it has a batch of its own, of the rows that were timed
    return key, asked * (SECONDS_A_DECODER_STEP + SECONDS_AN_ADAPT_STEP)
