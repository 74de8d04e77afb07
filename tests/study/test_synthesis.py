"""Synthetic pairs of a repetition: from whom they are made, once, and how they are read back."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from morphogen.data.pairs import Pairs
from morphogen.data.records import Dataset
from morphogen.generators import GENERATORS, GeneratorEntry
from morphogen.study import synthesis
from morphogen.study.bench import Bench
from morphogen.study.generators import foundation_name, generator_config, own_resolution
from morphogen.study.recipe import StudyConfig
from morphogen.study.run import freeze, prepare
from morphogen.study.synthesis import ArrayPairs, read_synthetic, synthetic_pairs

Make = Callable[..., StudyConfig]


@pytest.fixture
def bench(make_config: Make) -> Bench:
    bench = prepare(make_config(per_mask=2))
    freeze(bench)
    return bench


def test_the_generator_sees_the_training_part_of_the_annotated_pairs_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, ...]] = []
    train = GeneratorEntry.train

    def watched(self: GeneratorEntry, data: Dataset, config: Any, out: Path) -> Path:
        seen.append(data.ids)
        return train(self, data, config, out)

    monkeypatch.setattr(GeneratorEntry, "train", watched)
    for repetition in bench.splits.repetitions:
        made = synthetic_pairs(bench, repetition)
        assert {record.origin["source_mask"] for record in made if record.origin} == set(repetition.train)
        assert len(made) == 2 * len(repetition.train)
        again = synthetic_pairs(bench, repetition)
        assert again.ids == made.ids
    assert seen == [repetition.train for repetition in bench.splits.repetitions]


def test_pairs_are_read_with_the_classes_of_the_real_ones(bench: Bench) -> None:
    real = replace(bench.dataset, classes=("background", "polyp"))
    synthetic_pairs(bench, bench.splits.repetitions[0])
    made = read_synthetic(bench.out / "synthetic" / "fold0", real)
    assert made.classes == real.classes
    pairs = Pairs(made, 16)
    assert set(np.unique(pairs.masks())) == {0, 1}
    rows = (bench.out / "synthetic" / "fold0" / "manifest.jsonl").read_text().splitlines()
    assert [json.loads(row)["id"] for row in rows] == list(made.ids)


def test_a_stopped_run_goes_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    repetition = bench.splits.repetitions[0]
    whole = synthetic_pairs(bench, repetition)
    image = whole[0].image.read_bytes()
    (bench.out / "synthetic" / "fold0" / "manifest.jsonl").unlink()
    whole[0].image.unlink()
    assert synthetic_pairs(bench, repetition).ids == whole.ids
    assert whole[0].image.read_bytes() == image


def test_a_pair_that_was_lost_with_the_power_is_made_again(bench: Bench) -> None:
    repetition = bench.splits.repetitions[0]
    whole = synthetic_pairs(bench, repetition)
    image = whole[0].image.read_bytes()
    whole[0].image.write_bytes(b"")
    assert synthetic_pairs(bench, repetition).ids == whole.ids
    assert whole[0].image.read_bytes() == image


def test_a_generator_is_told_what_it_has_options_for(make_config: Make) -> None:
    config = make_config(generator="siamese", resolution=32, preset="ablation-4")
    found = generator_config(config, 3)
    assert (found.resolution, found.seed, found.hint, found.online_augmentation) == (32, 3, "plain", False)
    assert found.max_train_steps == type(found)().max_train_steps
    assert generator_config(replace(config, generator_steps=5), 3).max_train_steps == 5
    assert foundation_name(config) == "tiny"
    assert foundation_name(replace(config, preset="/some/folder")) == "/some/folder"
    assert foundation_name(replace(config, generator="copy-paste", preset="/some/folder")) == "/some/folder"
    copy_paste = GENERATORS["copy-paste"].config()
    assert generator_config(make_config(resolution=32), 3) == copy_paste(resolution=32)


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_a_study_works_at_the_size_of_its_generator(make_config: Make, tmp_path: Path, kind: str) -> None:
    from small_foundations import small_foundation

    config = make_config(generator="siamese", resolution=0)
    assert own_resolution(config) == 64
    assert own_resolution(replace(config, preset="sd15")) == 384
    assert own_resolution(replace(config, generator="copy-paste")) == 64
    foreign = small_foundation(kind, tmp_path / "foreign")
    foreign.save(tmp_path / "again")
    for card in (tmp_path / "again").glob("morphogen.json"):
        card.unlink()
    assert own_resolution(replace(config, preset=str(tmp_path / "again"))) == foreign.resolution


def test_the_generator_adapts_on_what_it_may_see_and_nothing_else(
    make_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = prepare(make_config())
    bench = replace(bench, config=replace(bench.config, generator="siamese", adapt_steps=7))
    seen: dict[str, Any] = {}

    def train(self: GeneratorEntry, data: Dataset, config: Any, out: Path) -> Path:
        seen.update(ids=data.ids, foundation=config.foundation, seed=config.seed, adapt_steps=config.adapt_steps)
        raise KeyboardInterrupt

    monkeypatch.setattr(GeneratorEntry, "train", train)
    repetition = bench.splits.repetitions[1]
    with pytest.raises(KeyboardInterrupt):
        synthetic_pairs(bench, repetition)
    assert seen == {"ids": repetition.train, "foundation": "tiny", "seed": 1, "adapt_steps": 7}


def test_arrays_serve_as_pairs(bench: Bench) -> None:
    pairs = Pairs(bench.dataset.select(bench.dataset.ids[:3]), 16)
    arrays = ArrayPairs(pairs.dataset, pairs.images(), pairs.masks())
    assert len(arrays) == 3
    assert arrays.resolution == 16
    assert all(np.array_equal(a, b) for i in range(3) for a, b in zip(arrays[i], pairs[i], strict=True))


def test_autoencoding_keeps_order_and_range(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from morphogen.foundation.model import Foundation

    class Halving:
        def autoencode(self, x: torch.Tensor) -> torch.Tensor:
            assert x.min() >= -1
            assert x.max() <= 1
            return x * 0.5

    monkeypatch.setattr(Foundation, "load", classmethod(lambda cls, name, device="cpu": Halving()))
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 4, 4), dtype=np.uint8)
    bench = prepare(make_config())
    found = synthesis.autoencode(images, bench, bench.splits.repetitions[0], batch=2)
    assert found.dtype == np.uint8
    assert np.abs(found - (127.5 + (images.astype(float) - 127.5) / 2)).max() <= 0.5
