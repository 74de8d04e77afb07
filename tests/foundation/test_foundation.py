"""Loading, saving, text, the noise schedule and sampling of a foundation."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from morphogen.data.prompts import vocabulary
from morphogen.errors import InputError
from morphogen.foundation.fit_prompt import DEFAULT_PROMPT, best_prompt
from morphogen.foundation.model import Foundation
from morphogen.foundation.solvers import solve
from morphogen.foundation.text_to_image import text_to_image
from morphogen.foundation.tokenizer import write_tokenizer
from morphogen.training.rng import normal
from small_foundations import perturb, small_foundation, small_tiny


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_what_is_saved_loads_as_it_was(kind: str, tmp_path: Path) -> None:
    made = small_foundation(kind, tmp_path / "t")
    made.card["resolution"] = 32
    made.save(tmp_path / "f")
    loaded = Foundation.load(tmp_path / "f")
    assert loaded.card == made.card
    assert loaded.resolution == 32
    assert loaded.factor == 4
    x, prompts = torch.rand(2, 3, 32, 32) * 2 - 1, ["a photo of a polyp", ""]
    assert torch.equal(made.encode(x), loaded.encode(x))
    ours, theirs = made.conditioning(prompts), loaded.conditioning(prompts)
    assert torch.equal(ours.states, theirs.states)
    if kind == "sdxl":
        assert ours.states.shape == (2, 64, 16)
        assert ours.pooled is not None
        assert ours.pooled.shape == (2, 8)
        assert ours.time_ids is not None
        assert ours.time_ids.tolist()[0] == [32, 32, 0, 0, 32, 32]
    assert not any(p.requires_grad for m in loaded.modules for p in m.parameters())
    loaded.save(tmp_path / "again")
    assert not any(str(tmp_path) in file.read_text() for file in (tmp_path / "again").rglob("*.json"))


def test_half_precision_files_are_read_as_single(tmp_path: Path) -> None:
    made = small_tiny()
    before = made.unet.conv_in.weight.clone()
    made.save(tmp_path, torch.float16)
    loaded = Foundation.load(tmp_path)
    assert loaded.unet.dtype == torch.float32
    assert torch.allclose(loaded.unet.conv_in.weight, before, atol=1e-3)
    assert torch.equal(loaded.unet.conv_in.weight, before.half().float())


class TestWhatCannotBeLoaded:
    def test_no_such_name(self) -> None:
        with pytest.raises(InputError, match=r"^nothing-here: no such foundation; give 'tiny', 'sd15'"):
            Foundation.load("nothing-here")

    def test_another_folder(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"holds no model_index.json; give a folder"):
            Foundation.load(tmp_path)

    def test_a_part_is_missing(self, tmp_path: Path) -> None:
        small_tiny().save(tmp_path)
        (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").unlink()
        with pytest.raises(InputError, match=r"is not a whole diffusers folder in safetensors") as caught:
            Foundation.load(tmp_path)
        assert "\n" not in str(caught.value)

    def test_a_prediction_that_is_neither_noise_nor_velocity(self, tmp_path: Path) -> None:
        made = small_foundation("sd", tmp_path / "t", prediction="sample")
        made.save(tmp_path / "f")
        with pytest.raises(InputError, match=r"f/scheduler: its U-Net foretells 'sample', and only epsilon and v_pr"):
            Foundation.load(tmp_path / "f")
        for kind in ("v_prediction", "epsilon"):
            made.scheduler.register_to_config(prediction_type=kind)
            made.save(tmp_path / "f")
            assert Foundation.load(tmp_path / "f").v_prediction == (kind == "v_prediction")

    @pytest.mark.parametrize("part", ["vae", "unet", "text_encoder"])
    @pytest.mark.parametrize("damage", ["a tensor is missing", "cut", "another config"])
    def test_a_damaged_part(self, part: str, damage: str, tmp_path: Path) -> None:
        """Neither library may fill a gap with random numbers."""
        small_tiny().save(tmp_path)
        file, config = next((tmp_path / part).glob("*.safetensors")), tmp_path / part / "config.json"
        if damage == "cut":
            file.write_bytes(file.read_bytes()[:-100])
        elif damage == "another config":
            text = config.read_text()
            config.write_text(re.sub(r'("hidden_size": |"block_out_channels": \[\s*)\d+', r"\g<1>24", text))
            assert config.read_text() != text
        else:
            tensors = load_file(file)
            tensors.pop(sorted(tensors)[-1])
            save_file(tensors, file, metadata={"format": "pt"})
        with pytest.raises(InputError, match=r"is not a whole diffusers folder in safetensors") as caught:
            Foundation.load(tmp_path)
        assert "\n" not in str(caught.value)

    def test_a_damaged_index(self, tmp_path: Path) -> None:
        small_tiny().save(tmp_path)
        (tmp_path / "model_index.json").write_text("{")
        with pytest.raises(InputError, match=r"model_index.json: is not a pipeline's index"):
            Foundation.load(tmp_path)

    def test_a_hub_id_without_a_revision(self) -> None:
        with pytest.raises(InputError, match=r"^someone/model: no such foundation; .*owner/name@revision"):
            Foundation.load("someone/model")

    def test_a_full_disk_is_not_the_hubs_fault(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import huggingface_hub

        def full(*args: object, **kwargs: object) -> str:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(huggingface_hub, "snapshot_download", full)
        with pytest.raises(OSError, match="No space"):
            Foundation.load("someone/model@abc")

    def test_pickles_are_not_read(self, tmp_path: Path) -> None:
        made = small_tiny()
        made.save(tmp_path)
        (tmp_path / "vae" / "diffusion_pytorch_model.safetensors").unlink()
        torch.save(made.vae.state_dict(), tmp_path / "vae" / "diffusion_pytorch_model.bin")
        with pytest.raises(InputError, match="in safetensors"):
            Foundation.load(tmp_path)

    def test_a_hub_id_without_a_network(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        import huggingface_hub

        def refuse(*args: object, **kwargs: object) -> str:
            raise ConnectionError("no route")

        monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
        with pytest.raises(InputError, match=r"^someone/model@abc: .*the hub cannot be reached.*give its folder"):
            Foundation.load("someone/model@abc")


class TestText:
    def test_every_word_of_the_vocabulary_is_one_token(self) -> None:
        made = small_tiny()
        for word in made.card["vocabulary"]:
            assert len(made.tokenizers[0](word).input_ids) == 3, word

    def test_the_same_words_have_the_same_ids_in_every_process(self, tmp_path: Path) -> None:
        words = vocabulary()
        held = [write_tokenizer(w, tmp_path / str(k)).get_vocab() for k, w in enumerate([words, words[::-1]] * 4)]
        assert all(one == held[0] for one in held)

    def test_an_unknown_word_lists_near_ones(self) -> None:
        with pytest.raises(InputError, match=r"does not know 'polip'; near words: .*polyp"):
            small_tiny().conditioning(["a photo of a polip"])

    def test_a_prompt_that_would_be_cut_is_refused(self) -> None:
        made = small_tiny()
        limit = made.tokenizers[0].model_max_length - 2
        made.conditioning([" ".join(["polyp"] * limit)])
        with pytest.raises(InputError, match=rf"has {limit + 1} tokens, and the text encoder reads {limit}"):
            made.conditioning([" ".join(["polyp"] * (limit + 1))])

    def test_different_words_give_different_states(self) -> None:
        made = small_tiny()
        a, b = made.conditioning(["a photo of a polyp", "a photo of a lesion"]).states
        assert not torch.allclose(a, b)


class TestSchedule:
    @pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
    def test_predictions_convert_into_one_another(self, prediction: str, tmp_path: Path) -> None:
        made = small_foundation("sd", tmp_path, prediction)
        z0, eps = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
        t = torch.tensor([10, 900])
        z_t, output = made.add_noise(z0, eps, t), made.target(z0, eps, t)
        assert torch.allclose(made.to_eps(output, z_t, t), eps, atol=1e-4)
        assert torch.allclose(made.to_x0(output, z_t, t), z0, atol=1e-3)
        abar = made.scheduler.alphas_cumprod[t].view(-1, 1, 1, 1)
        assert torch.allclose(made.to_v(output, z_t, t), abar.sqrt() * eps - (1 - abar).sqrt() * z0, atol=1e-3)

    def test_noising_is_that_of_diffusers(self, tmp_path: Path) -> None:
        made = small_foundation("sd", tmp_path)
        z0, eps, t = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8), torch.tensor([10, 900])
        assert torch.allclose(made.add_noise(z0, eps, t), made.scheduler.add_noise(z0, eps, t), atol=1e-6)


def test_the_posterior_is_sampled_by_seed(tmp_path: Path) -> None:
    made = small_tiny()
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    first, again, other = made.encode(x, [1, 2]), made.encode(x, [1, 2]), made.encode(x, [1, 3])
    assert torch.equal(first, again)
    assert torch.equal(first[0], other[0])
    assert not torch.equal(first[1], other[1])
    posterior = made.vae.encode(x).latent_dist
    literal = posterior.mean[1] + posterior.std[1] * normal([2], posterior.mean.shape[1:], "posterior")[0]
    assert torch.allclose(first[1], literal * made.vae.config.scaling_factor, atol=1e-6)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_sampling_equals_the_stock_pipeline(prediction: str, tmp_path: Path) -> None:
    """DDIM with guidance, step by step the same as diffusers' own pipeline on the saved folder."""
    made = small_foundation("sd", tmp_path / "t", prediction)
    perturb(made.unet)
    made.save(tmp_path / "f")
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "f", safety_checker=None, feature_extractor=None)
    pipeline.set_progress_bar_config(disable=True)
    latents = torch.randn(1, 4, 8, 8)
    theirs = pipeline(
        "a photo of a polyp", latents=latents.clone(), num_inference_steps=5, guidance_scale=3.0, eta=0.0, height=32,
        width=32, output_type="latent",
    ).images  # fmt: skip
    cond, empty = made.conditioning(["a photo of a polyp"]), made.conditioning([""])

    def denoise(z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        with_text = made.unet(z, t, cond.states).sample
        without = made.unet(z, t, empty.states).sample
        return without + 3.0 * (with_text - without)

    ours = solve(denoise, latents, made.scheduler.config, 5, "ddim")
    assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()


def test_a_sample_depends_on_its_own_seed_alone() -> None:
    made = small_tiny()
    prompts = ["a photo of a polyp", "a photo of a lesion", "a photo of a polyp"]
    together = text_to_image(made, prompts, seeds=[1, 2, 3], steps=3)
    alone = text_to_image(made, prompts[1:2], seeds=[2], steps=3)
    assert together.shape == (3, 3, 32, 32)
    assert (together[1] - alone[0]).abs().max() < 1e-4
    assert (together[0] - together[2]).abs().max() > 1e-3


class TestBestPrompt:
    def test_it_is_the_one_with_the_smallest_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made = small_tiny()
        wanted = made.conditioning(["a photo of a polyp"]).states[0]

        class Oracle(torch.nn.Module):
            """Knows the noise under one prompt only."""

            def __init__(self) -> None:
                super().__init__()
                self.p = torch.nn.Parameter(torch.zeros(()))

        from morphogen.foundation import fit_prompt

        def fake(unet: object, z_t: torch.Tensor, t: torch.Tensor, cond: object) -> torch.Tensor:
            right = torch.allclose(cond.states[0], wanted, atol=1e-6)  # type: ignore[attr-defined]
            return normal(list(range(len(z_t))), z_t.shape[1:], f"fit-{int(t[0])}") * (1.0 if right else 0.9)

        monkeypatch.setattr(fit_prompt, "predict", fake)
        assert best_prompt(made, torch.rand(2, 3, 32, 32)) == "a photo of a polyp"

    def test_an_open_vocabulary_gets_the_default(self, tmp_path: Path) -> None:
        assert best_prompt(small_foundation("sd", tmp_path), torch.rand(1, 3, 32, 32)) == DEFAULT_PROMPT


def test_the_folder_is_a_pipeline(tmp_path: Path) -> None:
    small_tiny().save(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionPipeline"
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path, safety_checker=None, feature_extractor=None)
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline("a photo of a polyp", num_inference_steps=2, height=32, width=32, output_type="np").images
    assert picture.shape == (1, 32, 32, 3)
