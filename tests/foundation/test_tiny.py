"""The foundation that ships with the package."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from morphogen.data.phantoms import phantom
from morphogen.data.prompts import vocabulary
from morphogen.foundation.autoencoder_task import psnr
from morphogen.foundation.fit_prompt import best_prompt
from morphogen.foundation.images import to_signed
from morphogen.foundation.model import TINY, Foundation
from morphogen.foundation.text_to_image import text_to_image
from morphogen.generators.siamese.config import SiameseConfig
from morphogen.generators.siamese.model import start


@pytest.fixture(scope="module")
def tiny() -> Foundation:
    return Foundation.load("tiny")


def held_out(kind: str, n: int) -> np.ndarray:
    """Phantoms of seeds that no training used: (N, 3, 64, 64) uint8."""
    return np.stack([phantom(kind, 7_000_000 + k, 64)[0].transpose(2, 0, 1) for k in range(n)])


def test_all_weights_together_are_small() -> None:
    files = list(TINY.rglob("*.safetensors"))
    assert len(files) == 4  # autoencoder, denoiser, text encoder, hint path
    assert sum(f.stat().st_size for f in files) < 20.5e6


def test_it_saw_the_frozen_ids_and_no_others(tiny: Foundation) -> None:
    frozen = json.loads((Path(__file__).parents[2] / "splits" / "foundation.json").read_text())["sets"]
    assert set(tiny.card["sets"]) == set(frozen)
    for name, parts in frozen.items():
        assert set(tiny.card["sets"][name]["training_ids"]) == set(parts["train"])
        assert len(tiny.card["sets"][name]["phashes"]) == len(parts["train"])


def test_its_vocabulary_covers_the_grammars(tiny: Foundation) -> None:
    assert set(vocabulary()) <= set(tiny.card["vocabulary"])


def test_its_autoencoder_reconstructs_what_it_never_saw(tiny: Foundation) -> None:
    assert psnr(tiny, np.concatenate([held_out("mucosa", 8), held_out("skin", 8)])) > 27


def test_it_knows_mucosa_from_skin(tiny: Foundation) -> None:
    assert "polyp" in best_prompt(tiny, to_signed(held_out("mucosa", 16)))
    assert "skin" in best_prompt(tiny, to_signed(held_out("skin", 16)))


def test_its_samples_have_the_colours_of_their_kind(tiny: Foundation) -> None:
    """Dermoscopy is brighter and less red than colonoscopy; noise or a collapsed model would show neither."""
    prompts = ["a photo of a polyp"] * 6 + ["dermoscopic image of a skin lesion"] * 6
    x = text_to_image(tiny, prompts, seeds=range(12), steps=10)
    polyp, skin = x[:6].mean(dim=(0, 2, 3)), x[6:].mean(dim=(0, 2, 3))
    assert float(skin.mean() - polyp.mean()) > 0.15
    assert float(polyp[0] - polyp[2]) > float(skin[0] - skin[2])
    assert float(x.std(dim=0).mean()) > 0.1


def test_its_hint_path_starts_a_generator(tiny: Foundation) -> None:
    started = start(tiny, SiameseConfig())
    assert float(started.controlnet_mid_block.weight.abs().max()) > 0
    hint = torch.zeros(1, 3, 64, 64)
    hint[..., 20:40, 20:40] = 1
    assert float((started.embed(hint) - started.embed(torch.zeros(1, 3, 64, 64))).abs().max()) > 0
