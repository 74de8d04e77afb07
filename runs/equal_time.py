"""Segmenters at equal training time, on the validation part of one fold: ``python runs/equal_time.py --help``.

    python runs/equal_time.py OUT $MORPHOGEN_DATA/polyps/cvc_clinicdb --seconds 300 unet latent+objective=x0

Each word is a segmenter with any options of its own, as a study names its judges. Behind a colon may stand options of
the training, as in ``latent:lr=3e-4``. What a step takes is measured first, so that every one trains for the same time
on the machine at hand; what comes before the first step counts too. The test part of the fold is opened with
--read-test alone, once, when everything has been chosen. Figures are in docs/LOG.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from morphogen.data.images import load_rgb
from morphogen.data.pairs import Pairs, native_mask
from morphogen.data.readers import read_dataset
from morphogen.data.records import Dataset
from morphogen.metrics.masks import score_masks
from morphogen.segmenters import named
from morphogen.segmenters.predictor import load_segmenter
from morphogen.segmenters.task import SegmenterConfig, SegmenterTask, train_segmenter
from morphogen.study.recipe import StudyConfig
from morphogen.study.splits import make
from morphogen.training.task import Batch, Draw
from morphogen.words import kinds_of, read_value

PROBE, PROBE_SECONDS = 24, 20.0
"""Steps that are timed before the training, the first left out; or as many as take this long, if those take less."""


def read(word: str, steps: int, seed: int) -> tuple[str, SegmenterConfig]:
    """Segmenter and training of ``segmenter+option=value:option=value``."""
    segmenter, *training = word.split(":")
    name, architecture = named(segmenter)
    kinds = kinds_of(SegmenterConfig)
    stated: dict[str, Any] = {"validation_steps": max(50, steps // 8), "checkpointing_steps": steps}
    for option in training:
        key, _, value = option.partition("=")
        stated[key] = read_value(kinds, key, value, word)
    return name, SegmenterConfig(architecture=architecture, max_train_steps=steps, seed=seed, **stated)


def pace(word: str, train: Pairs, out: Path, probe: int = PROBE) -> tuple[float, float]:
    """Seconds before the first step (a mask autoencoder trains there), and mean seconds of a step, of a short run."""
    empty, stamps = Pairs(train.dataset.select(()), train.resolution), [time.monotonic()]
    batch = SegmenterTask.batch

    def stamped(task: SegmenterTask, draws: Sequence[Draw]) -> Batch:
        stamps.append(time.monotonic())
        return batch(task, draws)

    name, config = read(word, probe, 0)
    SegmenterTask.batch = stamped  # type: ignore[method-assign]
    try:
        train_segmenter(name, train, empty, config, out)
    finally:
        SegmenterTask.batch = batch  # type: ignore[method-assign]
        shutil.rmtree(out, ignore_errors=True)
    each = float(np.mean(np.diff(stamps[2:])))
    if probe == PROBE and PROBE * each < PROBE_SECONDS:
        return pace(word, train, out, round(PROBE_SECONDS / each))
    return stamps[1] - stamps[0], each


def dice(run: Path, dataset: Dataset) -> float:
    """Mean Dice at native size."""
    predict = load_segmenter(run)
    labels = predict([load_rgb(record) for record in dataset])
    scores = [
        score_masks(label, native_mask(record, dataset), len(dataset.classes)).image["dice"]
        for label, record in zip(labels, dataset, strict=True)
    ]
    return float(np.mean(scores))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("words", nargs="+")
    parser.add_argument("--seconds", type=float, default=300.0, help="training time of each")
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--read-test", action="store_true", help="score the test part of the fold too")
    told = parser.parse_args()
    dataset = read_dataset(told.data).annotated
    repetition = make(StudyConfig(data=told.data, out=told.out), dataset).repetitions[told.fold]
    train, val = (Pairs(dataset.select(ids), told.resolution) for ids in (repetition.train, repetition.validation))
    for word in told.words:
        folder = told.out / "".join(c if c.isalnum() or c in "-=." else "_" for c in word)
        folder.mkdir(parents=True, exist_ok=True)
        before, each = pace(word, train, folder / "probe")
        steps = max(1, round((told.seconds - before) / each))
        name, config = read(word, steps, told.seed)
        began = time.monotonic()
        run = train_segmenter(name, train, val, config, folder / f"run-{steps}")
        row = {"segmenter": word, "before_s": round(before), "step_s": round(each, 3), "steps": steps}
        row |= {"wall_s": round(time.monotonic() - began), "validation_dice": round(dice(run, val.dataset), 4)}
        if told.read_test:
            row["test_dice"] = round(dice(run, dataset.select(repetition.test)), 4)
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
