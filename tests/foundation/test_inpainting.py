"""Foundations that inpaint: widening, folders that stock pipelines load, lengths of prompts, noised starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionInpaintPipeline, StableDiffusionXLInpaintPipeline

from morphogen.errors import InputError
from morphogen.foundation import model
from morphogen.foundation.fit_prompt import noise_errors
from morphogen.foundation.halves import predict
from morphogen.foundation.identity import weights_hash
from morphogen.foundation.inpainting import around, to_latent, unseen, widen
from morphogen.foundation.model import HALF_ONLY, HUB, Foundation
from morphogen.foundation.solvers import Start, solve
from small_foundations import perturb, small_foundation, small_tiny

PIPELINES = {"sd": StableDiffusionInpaintPipeline, "sdxl": StableDiffusionXLInpaintPipeline}


@pytest.mark.parametrize("kind", ["tiny", "sd", "sdxl"])
def test_a_widened_net_is_the_old_one(kind: str, tmp_path: Path) -> None:
    """Whatever the five new channels hold."""
    old = small_tiny().to("cpu") if kind == "tiny" else small_foundation(kind, tmp_path)
    wide = widen(old)
    assert (old.inpaints, wide.inpaints) == (False, True)
    assert wide.unet.config.in_channels == 9
    x, t = torch.randn(7, 9, 8, 8), torch.tensor([3, 950, 500, 0, 999, 20, 700])
    for row, channel in enumerate(range(4, 9)):
        x[row, channel] *= 1e4
    cond = old.conditioning(["a photo of a polyp", "", "polyp", "a", "skin", "lesion", "small"])
    with torch.no_grad():
        a, b = predict(old.unet, x[:, :4], t, cond), predict(wide.unet, x, t, cond)
    assert float((a - b).abs().max()) < 1e-6
    assert float(b.abs().max()) > 1e-3


def test_widening_copies_nothing_twice_and_leaves_the_old_one_as_it_was() -> None:
    old = small_tiny().to("cpu")
    before = {name: value.clone() for name, value in old.unet.state_dict().items()}
    wide = widen(old)
    assert widen(wide) is wide
    assert {p.shape[1] for p in (old.unet.conv_in.weight, wide.unet.conv_in.weight)} == {4, 9}
    assert all(torch.equal(value, old.unet.state_dict()[name]) for name, value in before.items())
    assert not any(p.is_meta for p in wide.unet.parameters())
    broken = small_foundation_with(7)
    with pytest.raises(InputError, match="reads 7 channels"):
        widen(broken)


def small_foundation_with(channels: int) -> Foundation:
    made = small_tiny()
    made.unet = type(made.unet).from_config({**made.unet.config, "in_channels": channels})
    return made.to("cpu")


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_stock_pipelines_load_what_is_saved(kind: str, tmp_path: Path) -> None:
    made = widen(small_foundation(kind, tmp_path / "t"))
    perturb(made.unet)
    made.save(tmp_path / "f")
    name = json.loads((tmp_path / "f" / "model_index.json").read_text())["_class_name"]
    assert name == PIPELINES[kind].__name__
    pipeline = PIPELINES[kind].from_pretrained(tmp_path / "f")
    loaded = Foundation.load(tmp_path / "f")
    x, t = torch.randn(1, 9, 8, 8), torch.tensor([400])
    cond = made.conditioning(["a polyp"])
    with torch.no_grad():
        outputs = [predict(net, x, t, cond) for net in (made.unet, loaded.unet, pipeline.unet)]
    assert all(torch.equal(outputs[0], output) for output in outputs[1:])
    assert loaded.inpaints


def test_the_empty_prompt_of_sdxl_is_zeros_where_its_folder_says_so(tmp_path: Path) -> None:
    made = widen(small_foundation("sdxl", tmp_path / "t"))
    made.save(tmp_path / "f")
    assert not Foundation.load(tmp_path / "f").zero_empty
    index = tmp_path / "f" / "model_index.json"
    values = json.loads(index.read_text())
    del values["force_zeros_for_empty_prompt"]  # which stands for true, as in diffusers
    index.write_text(json.dumps(values))
    loaded = Foundation.load(tmp_path / "f")
    pipeline = StableDiffusionXLInpaintPipeline.from_pretrained(tmp_path / "f")
    theirs = pipeline.encode_prompt("a polyp", None, "cpu", 1, True)
    ours = loaded.conditioning(["a polyp", ""])
    assert ours.pooled is not None
    for mine, (words, nothing) in ((ours.states, theirs[:2]), (ours.pooled, theirs[2:])):
        assert torch.allclose(mine[0], words[0], atol=1e-6)
        assert torch.equal(mine[1], nothing[0])
        assert float(mine[1].abs().max()) == 0
    loaded.save(tmp_path / "again")
    assert Foundation.load(tmp_path / "again").zero_empty


class TestLengths:
    def test_too_long_for_an_open_vocabulary(self, tmp_path: Path) -> None:
        made = small_foundation("sdxl", tmp_path)  # 64 tokens, no closed vocabulary
        made.check_lengths(["polyp " * 62, ""])
        with pytest.raises(InputError, match=r"has 65 tokens, the start and end marks .* reads 64; shorten"):
            made.check_lengths(["a polyp", "polyp " * 63])
        made.conditioning(["polyp " * 63])  # others cut it, as before

    def test_a_word_of_several_tokens_counts_as_several(self, tmp_path: Path) -> None:
        made = small_foundation("sd", tmp_path)
        word = "qzx"  # in no vocabulary: letters
        n = len(made.tokenizers[0](word).input_ids) - 2
        assert n > 1
        with pytest.raises(InputError, match=f"has {n * 40 + 2} tokens"):
            made.check_lengths([f"{word} " * 40])

    def test_a_closed_vocabulary_keeps_its_check(self) -> None:
        made = small_tiny().to("cpu")
        with pytest.raises(InputError, match="has 63 tokens, and the text encoder reads 62"):
            made.check_lengths(["polyp " * 63])
        with pytest.raises(InputError, match="does not know 'polip'"):
            made.check_lengths(["a polip"])


class TestHub:
    def test_every_short_name_is_pinned(self) -> None:
        for name, pinned in HUB.items():
            _, _, revision = pinned.partition("@")
            assert len(revision) == 40, name
            assert set(revision) <= set("0123456789abcdef")

    @pytest.mark.parametrize("name", [n for n in HUB if n.endswith("inpaint")])
    def test_half_precision_files_are_taken_where_there_are_no_others(
        self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kind = "sdxl" if name.startswith("sdxl") else "sd"
        widen(small_foundation(kind, tmp_path / "t")).save(tmp_path / "f", torch.float16)
        if name in HALF_ONLY:
            for file in (tmp_path / "f").rglob("*.safetensors"):
                file.rename(file.with_name(file.name.replace(".safetensors", ".fp16.safetensors")))
        asked = {}

        def fetch(found: str, files: list[str], remedy: str, leave: list[str], called: str) -> Path:
            asked.update(found=found, leave=leave)
            return tmp_path / "f"

        monkeypatch.setattr(model, "hub_folder", fetch)
        loaded = Foundation.load(name)
        assert loaded.inpaints
        assert loaded.unet.dtype == torch.float32
        assert asked["found"] == HUB[name]
        assert ("*.fp16*" in asked["leave"]) == (name not in HALF_ONLY)


def test_what_is_around_a_hole() -> None:
    """Mask, then the posterior mean of the image with the hole at mid-grey; the mask is resized as diffusers does."""
    made = widen(small_tiny()).to("cpu")
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    hole = torch.zeros(2, 1, 32, 32)
    hole[0, :, 5:14, 9:20], hole[1] = 1, 1
    found = around(made, x, hole)
    assert found.shape == (2, 5, 8, 8)
    literal = torch.stack([hole[:, 0, 4 * i, 4 * j] for i in range(8) for j in range(8)], dim=1).view(2, 1, 8, 8)
    assert torch.equal(found[:, :1], literal)
    assert torch.equal(to_latent(hole, 4), literal)
    grey = torch.where(hole == 1, torch.zeros(()), x)
    assert torch.allclose(found[:, 1:], made.encode(grey), atol=1e-6)
    nothing = unseen(made, 3)
    assert torch.equal(nothing[2, 1:], made.encode(torch.zeros(1, 3, 32, 32))[0])
    assert bool((nothing[:, 0] == 1).all())


def test_how_well_images_are_known_can_be_asked_of_both_kinds() -> None:
    """A widened net answers as the old one did, since nothing of the image is shown to it."""
    old = small_tiny().to("cpu")
    x = torch.rand(3, 3, 32, 32) * 2 - 1
    ours, theirs = noise_errors(old, x), noise_errors(widen(old), x)
    assert ours.keys() == theirs.keys()
    assert all(abs(ours[text] - theirs[text]) < 1e-5 for text in ours)


class TestStart:
    @pytest.mark.parametrize("solver", ["ddim", "dpm"])
    @pytest.mark.parametrize(("strength", "calls"), [(1.0, 10), (0.95, 9), (0.5, 5), (0.01, 1)])
    def test_as_many_steps_as_diffusers_makes(self, solver: str, strength: float, calls: int) -> None:
        scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)
        seen: list[int] = []

        def denoise(z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            seen.append(int(t[0]))
            return torch.zeros_like(z)

        z = torch.randn(2, 4, 8, 8)
        solve(denoise, z, scheduler.config, 10, solver, Start(torch.randn(2, 4, 8, 8), strength))
        assert len(seen) == calls
        assert seen == sorted(seen, reverse=True)

    @pytest.mark.parametrize("solver", ["ddim", "dpm"])
    def test_the_start_is_the_noised_latent(self, solver: str) -> None:
        scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)
        z0, noise, seen = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8), []

        def denoise(z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            abar = scheduler.alphas_cumprod[t].view(-1, 1, 1, 1)
            seen.append(float((z - abar.sqrt() * z0 - (1 - abar).sqrt() * noise).abs().max()))
            return noise  # the true one: every step stays on the line from noise to z0

        made = solve(denoise, noise, scheduler.config, 12, solver, Start(z0, 0.6))
        assert max(seen) < 1e-3
        assert float((made - z0).abs().max()) < 0.2


def test_the_hash_of_weights_knows_no_path_and_no_other_file(tmp_path: Path) -> None:
    made = small_tiny()
    for name in ("a", "b"):
        made.save(tmp_path / name)
    first = weights_hash(tmp_path / "a")
    (tmp_path / "b" / "morphogen.json").write_text("{}")
    assert weights_hash(tmp_path / "b") == first
    perturb(made.unet)
    made.save(tmp_path / "b")
    assert weights_hash(tmp_path / "b") != first
