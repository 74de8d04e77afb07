"""Encodings are kept under the hash of what they follow from, and nothing depends on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from morphogen.data.phantoms import phantom_dataset
from morphogen.data.prompts import Grammar
from morphogen.foundation.cache import cached
from morphogen.foundation.latents import Item, build_bank, encode_texts
from morphogen.foundation.model import Foundation
from morphogen.generators.siamese import model
from morphogen.generators.siamese.config import SiameseConfig
from small_foundations import perturb, small_foundation, small_tiny


def items(*seeds: int) -> list[Item]:
    grammar = Grammar.load("generic")
    images = [np.random.default_rng(seed).integers(0, 256, (3, 32, 32), dtype=np.uint8) for seed in seeds]
    return [Item(image, None, grammar, caption="a photo of a polyp") for image in images]


def unused(*_: object, **__: object) -> None:
    raise AssertionError("encoded again")


class TestBank:
    def test_the_second_time_nothing_is_encoded(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        made = small_tiny()
        plain, first = build_bank(made, items(1, 2)), build_bank(made, items(1, 2), tmp_path)
        monkeypatch.setattr(made.vae, "encode", unused)
        again = build_bank(made, items(1, 2), tmp_path)
        for bank in (first, again):
            assert torch.equal(bank.mean, plain.mean)
            assert torch.equal(bank.std, plain.std)

    def test_other_images_weights_or_scales_are_other_files(self, tmp_path: Path) -> None:
        made = small_tiny()
        first = build_bank(made, items(1, 2), tmp_path)
        assert not torch.equal(build_bank(made, items(2, 1), tmp_path).mean, first.mean)
        made.vae.register_to_config(scaling_factor=2 * made.vae.config.scaling_factor)
        assert torch.allclose(build_bank(made, items(1, 2), tmp_path).mean, 2 * first.mean)
        perturb(made.vae)
        assert not torch.allclose(build_bank(made, items(1, 2), tmp_path).mean, 2 * first.mean)
        assert len(list(tmp_path.iterdir())) == 4

    @pytest.mark.parametrize("harm", ["gone", "cut", "empty"])
    def test_files_that_are_deleted_or_damaged_are_made_again(self, harm: str, tmp_path: Path) -> None:
        made = small_tiny()
        first = build_bank(made, items(1, 2), tmp_path)
        (path,) = tmp_path.iterdir()
        data = path.read_bytes()
        path.unlink() if harm == "gone" else path.write_bytes(data[: len(data) // 2] if harm == "cut" else b"")
        assert torch.equal(build_bank(made, items(1, 2), tmp_path).mean, first.mean)
        assert path.read_bytes() == data


class TestTexts:
    @pytest.mark.parametrize("kind", ["sd", "sdxl"])
    def test_texts_are_encoded_once_and_read_again(
        self, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made, texts = small_foundation(kind, tmp_path / "f"), ["a polyp", "", "a photo of a polyp", ""]
        first = encode_texts(made, texts, 32, tmp_path / "cache")
        assert first.keys() == set(texts)
        for text in first:
            literal = made.conditioning([text], 32)
            for name, value in vars(literal).items():
                kept = getattr(first[text], name)
                assert kept is value is None or torch.allclose(kept, value, atol=1e-6)
        monkeypatch.setattr(Foundation, "conditioning", unused)
        again = encode_texts(made, texts, 32, tmp_path / "cache")
        assert all(torch.equal(again[text].states, first[text].states) for text in first)

    def test_another_size_is_told_to_models_that_want_it(self, tmp_path: Path) -> None:
        made = small_foundation("sdxl", tmp_path / "f")
        found = [encode_texts(made, ["a polyp"], side, tmp_path / "c")["a polyp"].time_ids for side in (32, 64)]
        assert [ids[0, 0].item() for ids in found if ids is not None] == [32, 64]


class TestKey:
    def test_shape_and_kind_count(self, tmp_path: Path) -> None:
        a: NDArray[np.uint8] = np.arange(6, dtype=np.uint8)
        contents = [("x", a), ("x", a.reshape(2, 3)), ("xa",), ("x", "a"), ("a", "x")]
        for content in contents:
            cached(tmp_path, content, lambda: {"t": torch.zeros(1)})
        assert len(list(tmp_path.iterdir())) == len(contents)


class TestRuns:
    @pytest.mark.parametrize("shared", [False, True])
    def test_a_run_keeps_its_encodings_only_where_that_is_asked_for(
        self, shared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MORPHOGEN_CACHE", str(tmp_path / "shared") if shared else "")
        small_tiny().save(tmp_path / "f")
        data = phantom_dataset(tmp_path / "d", "mucosa", 4, 32)
        config = SiameseConfig(
            foundation=str(tmp_path / "f"), max_train_steps=1, train_batch_size=2, hint_width=4, symmetries=False
        )
        run = model.train(data, config, tmp_path / "run")
        assert not (run / "cache").exists()
        assert len(list((tmp_path / "shared").glob("*.safetensors"))) == (2 if shared else 0)
        if shared:
            other = model.train(data, config, tmp_path / "other")
            assert model.load(other).hash == model.load(run).hash
