"""The price of a study, from constants and from what is done."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from morphogen.foundation.adapt import AdaptConfig
from morphogen.study import estimate as module
from morphogen.study.bench import Bench
from morphogen.study.estimate import estimate
from morphogen.study.generators import generator_config
from morphogen.study.plan import Training, trainings
from morphogen.study.recipe import StudyConfig
from morphogen.study.run import freeze, prepare

Make = Callable[..., StudyConfig]


def bench_and_plan(config: StudyConfig, **changes: Any) -> tuple[Bench, list[Training]]:
    """A bench (its config changed after it was prepared, so that no foundation is looked for) and all trainings."""
    bench = prepare(config)
    bench = replace(bench, config=replace(bench.config, **changes))
    return bench, trainings(bench.splits, bench.config.arms, bench.config.judges, ("test",))


def test_the_generator_is_priced_by_its_own_steps(make_config: Make) -> None:
    config = make_config(arms=("real", "syn"), resolution=32)
    seconds = {}
    for name, options in {
        "copy-paste": {},
        "default": {"generator": "siamese"},
        "stated": {"generator": "siamese", "generator_steps": 100, "adapt_steps": 0},
        "adapted": {"generator": "siamese", "generator_steps": 100, "adapt_steps": 40},
    }.items():
        bench, plan = bench_and_plan(config, **options)
        seconds[name] = estimate(bench, plan).seconds
    defaults = generator_config(bench.config, 0).__class__()
    step, decoder, denoiser = 0.7 / 4, 1.0 / 4, 0.3 / 4  # a quarter of the pixels; two repetitions
    own = defaults.max_train_steps * step + AdaptConfig.decoder_steps * decoder
    assert seconds["default"] - seconds["copy-paste"] == pytest.approx(2 * own)
    assert seconds["stated"] - seconds["copy-paste"] == pytest.approx(2 * 100 * step)
    assert seconds["adapted"] - seconds["stated"] == pytest.approx(2 * 40 * (decoder + denoiser))


def test_a_segmenter_is_priced_by_steps_rows_and_pixels(make_config: Make) -> None:
    config = make_config(arms=("real",), resolution=32, train_batch_size=8, steps=100)
    bench, plan = bench_and_plan(config)
    scores = len(bench.dataset) * module.SECONDS_A_SCORE
    assert estimate(bench, plan).seconds == pytest.approx(2 * 100 * 0.16 / 8 + scores)
    assert estimate(bench, []).seconds == 0


def test_a_training_that_is_done_counts_once(make_config: Make) -> None:
    bench, plan = bench_and_plan(make_config(arms=("real", "real-geo")))
    freeze(bench)
    times = {"real.unet.fold0.n8": {"test": 100.0, "far": 104.0, "near": 101.0}, "real.unet.fold1.n8": {"far": 10.0}}
    for training, cells in times.items():
        for test_set, wall_s in cells.items():
            bench.cell_path(f"{training}.{test_set}").write_text(json.dumps({"arm": "real", "wall_s": wall_s}))
    (bench.out / "cells" / ".real.unet.fold0.n8.test.json.9.tmp").write_text("half")
    todo = [training for training in plan if training.arm == "real-geo"]
    scores = len(bench.dataset) * module.SECONDS_A_SCORE
    assert estimate(bench, todo).seconds == pytest.approx(2 * (104 + 10) / 2 + scores)
