"""A foundation as a sampler: words in, images out, one a job."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from morphogen.errors import InputError
from morphogen.foundation.model import Foundation
from morphogen.foundation.text_to_image import text_to_image
from morphogen.sampling.foundation_sampler import GUIDANCE, STEPS, FoundationSampler
from morphogen.sampling.jobs import Job
from small_foundations import perturb, small_foundation, small_tiny, small_unet

JOBS = [Job("a", 1, prompt="a polyp"), Job("b", 2, prompt="a photo of a polyp"), Job("c", 1, prompt="a photo")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = small_tiny()
    perturb(made.unet)
    path = tmp_path_factory.mktemp("foundation") / "f"
    made.save(path)
    return path


@pytest.fixture(scope="module")
def sampler(folder: Path) -> FoundationSampler:
    return FoundationSampler(folder)


def test_images_are_those_of_the_foundation(folder: Path, sampler: FoundationSampler) -> None:
    pairs = sampler.sample(JOBS)
    x = text_to_image(Foundation.load(folder), [str(job.prompt) for job in JOBS], [1, 2, 1], STEPS, GUIDANCE)
    expected = np.rint((x.numpy().astype(np.float64) + 1) * 127.5)
    assert sampler.resolution == 32
    for image, pair in zip(expected, pairs, strict=True):
        assert pair.mask is None
        assert (pair.image.shape, pair.image.dtype) == ((32, 32, 3), np.uint8)
        # Halves may round either way in the two precisions.
        assert np.abs(pair.image.transpose(2, 0, 1) - image).max() <= 1
        assert pair.origin == {"steps": STEPS, "solver": "dpm", "guidance": GUIDANCE}


def test_an_image_depends_on_its_own_prompt_and_seed(sampler: FoundationSampler) -> None:
    together = [pair.image.astype(int) for pair in sampler.sample(JOBS)]
    alone = [sampler.sample([job])[0].image for job in JOBS]
    for one, two in zip(together, alone, strict=True):
        assert np.abs(one - two).max() <= 1
    assert np.abs(together[0] - together[2]).max() > 1, "the prompt has no effect"
    other = sampler.sample([Job("a", 3, prompt="a polyp")])[0].image
    assert np.abs(together[0] - other).max() > 1, "the seed has no effect"


def test_hash_knows_content_and_not_place(folder: Path, sampler: FoundationSampler, tmp_path: Path) -> None:
    def changed(name: str) -> Path:
        return shutil.copytree(folder, tmp_path / name)

    same = changed("same")
    (same / "hint").mkdir()
    (same / "hint" / "config.json").write_text("{}")
    (same / "README.md").write_text("a note")
    assert FoundationSampler(same).hash == sampler.hash

    weights = changed("weights") / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    name = next(iter(tensors))
    save_file({**tensors, name: tensors[name] + 1e-3}, weights, metadata={"format": "pt"})
    schedule = changed("schedule") / "scheduler" / "scheduler_config.json"
    schedule.write_text(json.dumps({**json.loads(schedule.read_text()), "prediction_type": "v_prediction"}))
    card = changed("card") / "morphogen.json"
    card.write_text(json.dumps({**json.loads(card.read_text()), "resolution": 16}))
    hashes = {FoundationSampler(tmp_path / name).hash for name in ("weights", "schedule", "card")}
    assert len({sampler.hash, *hashes}) == 4


def test_a_job_without_prompt_is_refused(sampler: FoundationSampler) -> None:
    with pytest.raises(InputError, match=r"^b: a foundation paints words"):
        sampler.sample([JOBS[0], Job("b", 2)])


def test_a_model_for_inpainting_is_refused(tmp_path: Path) -> None:
    made = small_foundation("sd", tmp_path / "t")
    made.unet = small_unet("sd", in_channels=9)
    made.save(tmp_path / "f")
    with pytest.raises(InputError, match="reads 9 channels, not the 4 of a latent"):
        FoundationSampler(tmp_path / "f")
