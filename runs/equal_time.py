"""Segmenters at equal training time, on the validation part of one fold: ``python runs/equal_time.py --help``.

    python runs/equal_time.py OUT $MORPHOGEN_DATA/polyps/cvc_clinicdb --seconds 300 unet latent+objective=x0

Each word is a segmenter with any options of its own, as a study names its judges. Behind a colon may stand options of
the training, as in ``latent:lr=3e-4``. Steps per second are measured first, so that every one trains for the same time
on the machine at hand. The test part of the fold is not opened. Figures are in docs/LOG.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from morphogen.data.images import load_rgb
from morphogen.data.pairs import Pairs, native_mask
from morphogen.data.readers import read_dataset
from morphogen.metrics.masks import score_masks
from morphogen.segmenters import named
from morphogen.segmenters.predictor import load_segmenter
from morphogen.segmenters.task import SegmenterConfig, train_segmenter
from morphogen.study.recipe import StudyConfig
from morphogen.study.splits import make
from morphogen.words import kinds_of, read_value

PROBE = 12
"""Steps that are timed; as many go before them."""


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


def step_seconds(word: str, train: Pairs, out: Path) -> float:
    """Seconds of one training step, from two short runs, so that what is done once does not count."""
    empty, took = Pairs(train.dataset.select(()), train.resolution), []
    for steps in (PROBE, 3 * PROBE):
        name, config = read(word, steps, 0)
        began = time.monotonic()
        train_segmenter(name, train, empty, config, out / f"probe{steps}")
        took.append(time.monotonic() - began)
        shutil.rmtree(out / f"probe{steps}")
    return (took[1] - took[0]) / (2 * PROBE)


def validation_dice(run: Path, val: Pairs) -> float:
    """Mean Dice at native size."""
    predict, dataset = load_segmenter(run), val.dataset
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
    told = parser.parse_args()
    dataset = read_dataset(told.data).annotated
    repetition = make(StudyConfig(data=told.data, out=told.out), dataset).repetitions[told.fold]
    train, val = (Pairs(dataset.select(ids), told.resolution) for ids in (repetition.train, repetition.validation))
    for word in told.words:
        folder = told.out / "".join(c if c.isalnum() or c in "-=." else "_" for c in word)
        folder.mkdir(parents=True, exist_ok=True)
        each = step_seconds(word, train, folder)
        steps = max(1, round(told.seconds / each))
        name, config = read(word, steps, told.seed)
        began = time.monotonic()
        run = train_segmenter(name, train, val, config, folder / f"run-{steps}")
        row = {"segmenter": word, "seconds_per_step": round(each, 3), "steps": steps}
        row |= {"wall_s": round(time.monotonic() - began), "validation_dice": round(validation_dice(run, val), 4)}
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
