"""Sampling of the inpainting generator: parity with diffusers' pipelines, pasting, words, scores, removal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionInpaintPipeline, StableDiffusionXLInpaintPipeline
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image

from morphogen.data.grammar_files import as_yaml
from morphogen.data.prompts import Grammar
from morphogen.errors import InputError
from morphogen.foundation.images import to_signed
from morphogen.foundation.inpainting import widen
from morphogen.foundation.model import Foundation
from morphogen.foundation.solvers import make_solver
from morphogen.generators.inpaint import sampling
from morphogen.generators.inpaint.artefact import Trained
from morphogen.generators.inpaint.config import InpaintConfig
from morphogen.generators.inpaint.holes import feathered, grown
from morphogen.generators.inpaint.sampler import InpaintSampler
from morphogen.generators.inpaint.sampling import Scene, latents, paint
from morphogen.generators.inpaint.zero_shot import zero_shot
from morphogen.sampling.jobs import Job
from morphogen.training.rng import normal
from small_foundations import perturb, small_foundation, small_tiny

PIPELINES: dict[str, Any] = {"sd": StableDiffusionInpaintPipeline, "sdxl": StableDiffusionXLInpaintPipeline}
PROMPTS = ["a photo of a polyp", "endoscopic photo of normal mucosa"]


def scene(n: int = 2, side: int = 32) -> Scene:
    rng = np.random.default_rng(3)
    holes = np.zeros((n, side, side), dtype=bool)
    for k, hole in enumerate(holes):
        hole[4 + k : 20, 6 : 23 + k] = True
    return Scene(rng.integers(0, 256, (n, side, side, 3), dtype=np.uint8), holes)


@pytest.fixture(scope="module")
def sampler() -> InpaintSampler:
    """An untrained one of the small foundation, whose weights are perturbed so that hole and words matter."""
    foundation = widen(small_tiny()).to("cpu")
    perturb(foundation.unet)
    config = InpaintConfig(foundation="small", sampling_steps=3, feather=0.1)
    return InpaintSampler(Trained(foundation, config, Grammar.load("polyp"), "hash"))


def job(height: int = 40, width: int = 57, seed: int = 5, **changes: Any) -> Job:
    rng = np.random.default_rng(seed)
    mask = np.zeros((height, width), dtype=np.int64)
    mask[height // 4 : height // 2, width // 3 : 2 * width // 3] = 1
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Job(**{"id": f"j{seed}", "seed": seed, "mask": mask, "image": image, **changes})


class TestParity:
    """The same noise, the same posterior means, on small random folders: the latents of diffusers' own pipelines."""

    @pytest.mark.parametrize(
        ("kind", "prediction", "solver", "strength"),
        [
            ("sd", "epsilon", "ddim", 1.0),
            ("sd", "v_prediction", "dpm", 0.8),
            ("sdxl", "epsilon", "ddim", 0.7),
            ("sdxl", "epsilon", "dpm", 1.0),
        ],
    )
    def test_latents_and_images(
        self, kind: str, prediction: str, solver: str, strength: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = widen(small_foundation(kind, tmp_path / "t", prediction))
        perturb(made.unet)
        made.save(tmp_path / "f")
        pipeline = PIPELINES[kind].from_pretrained(tmp_path / "f")
        pipeline.set_progress_bar_config(disable=True)
        pipeline.scheduler = make_solver(solver, made.scheduler.config)
        seeds, x = [11, 12], scene()
        z_T = normal(seeds, (4, 8, 8), "z_T")
        monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())
        for cls in PIPELINES.values():
            module = __import__(cls.__module__, fromlist=["randn_tensor"])
            monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: z_T.clone())
        config = InpaintConfig(solver=solver, sampling_steps=6, guidance=3.5, strength=strength, keep_known=False)
        words = {
            "prompt": PROMPTS, "image": [Image.fromarray(image) for image in x.images], "height": 32, "width": 32,
            "mask_image": [Image.fromarray(hole) for hole in x.holes], "num_inference_steps": 6, "strength": strength,
            "guidance_scale": 3.5,
        }  # fmt: skip
        theirs = pipeline(**words, output_type="latent").images
        ours = latents(made, x, PROMPTS, seeds, config)
        assert float((ours - theirs).abs().max()) < 1e-3 * max(1.0, float(theirs.abs().max()))
        pictures = pipeline(**words, output_type="np").images
        assert np.abs(paint(made, x, PROMPTS, seeds, config) - 255.0 * pictures).max() < 1.0

    @pytest.mark.parametrize("solver", ["ddim", "dpm"])
    def test_keeping_what_is_known_is_what_a_pipeline_of_four_channels_does(
        self, solver: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A net that was widened and not trained knows of the image by this alone."""
        narrow = small_foundation("sd", tmp_path / "t")
        perturb(narrow.unet)
        narrow.save(tmp_path / "f")
        pipeline = StableDiffusionInpaintPipeline.from_pretrained(
            tmp_path / "f", safety_checker=None, feature_extractor=None
        )
        pipeline.set_progress_bar_config(disable=True)
        pipeline.scheduler = make_solver(solver, narrow.scheduler.config)
        z_T, x = normal([11, 12], (4, 8, 8), "z_T"), scene()
        monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())
        module = __import__(StableDiffusionInpaintPipeline.__module__, fromlist=["randn_tensor"])
        monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: z_T.clone())
        theirs = pipeline(
            PROMPTS, [Image.fromarray(image) for image in x.images], [Image.fromarray(hole) for hole in x.holes],
            height=32, width=32, num_inference_steps=6, strength=0.8, guidance_scale=3.5, output_type="latent",
        ).images  # fmt: skip
        config = InpaintConfig(solver=solver, sampling_steps=6, guidance=3.5, strength=0.8, keep_known=True)
        ours = latents(widen(narrow), x, PROMPTS, [11, 12], config)
        assert float((ours - theirs).abs().max()) < 1e-3 * max(1.0, float(theirs.abs().max()))
        z0 = narrow.encode(to_signed(x.images.transpose(0, 3, 1, 2)))
        outside = torch.from_numpy(~x.holes[:, None, ::4, ::4]).expand_as(z0)
        assert torch.equal(ours[outside], z0[outside])

    def test_noise_without_words_is_not_guided(self, sampler: InpaintSampler) -> None:
        """With empty prompts alone the guidance has nothing to amplify."""
        config = replace(sampler.config, guidance=7.0)
        one = latents(sampler.foundation, scene(), ["", ""], [1, 2], config)
        two = latents(sampler.foundation, scene(), ["", ""], [1, 2], replace(config, guidance=1.0))
        mixed = latents(sampler.foundation, scene(), ["", "a polyp"], [1, 2], config)
        assert torch.equal(one, two)
        assert torch.allclose(mixed[0], one[0], atol=1e-4)
        assert not torch.allclose(mixed[1], one[1], atol=1e-2)


class TestPrecision:
    def test_a_cpu_samples_in_single_precision_whatever_is_said(self, sampler: InpaintSampler) -> None:
        found = [
            latents(sampler.foundation, scene(), PROMPTS, [1, 2], replace(sampler.config, mixed_precision=name))
            for name in ("no", "bf16", "fp16")
        ]
        assert all(torch.equal(found[0], other) for other in found[1:])

    @pytest.mark.parametrize(
        ("device", "name", "dtype"),
        [
            ("cuda:1", "bf16", torch.bfloat16),
            ("cuda", "fp16", torch.float16),
            ("cuda", "no", None),
            ("cpu", "bf16", None),
            ("cpu", "fp16", None),
        ],
    )
    def test_half_precision_is_for_gpus(
        self, device: str, name: str, dtype: torch.dtype | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[Any] = []
        monkeypatch.setattr(torch, "autocast", lambda kind, dtype, enabled: asked.append((kind, dtype, enabled)))
        sampling.precision(torch.device(device), name)
        ((kind, stated, enabled),) = asked
        assert kind == torch.device(device).type
        assert enabled == (dtype is not None)
        assert stated == dtype or not enabled

    def test_the_unet_alone_computes_in_it(self, sampler: InpaintSampler, monkeypatch: pytest.MonkeyPatch) -> None:
        """Shown with a CPU's autocast in place of a GPU's."""
        foundation, types = sampler.foundation, dict[str, set[torch.dtype]]({})
        parts = {
            "unet": foundation.unet.conv_in,
            "vae": foundation.vae.decoder.conv_in,
            "text": foundation.text_encoders[0],
        }

        def note(name: str) -> Any:
            def hook(module: Any, inputs: Any, output: Any) -> None:
                made = output if isinstance(output, torch.Tensor) else output[0]
                types.setdefault(name, set()).add(made.dtype)

            return hook

        single = paint(foundation, scene(), PROMPTS, [1, 2], sampler.config)
        half = torch.autocast("cpu", torch.bfloat16)
        monkeypatch.setattr(sampling, "precision", lambda *_: half)
        hooks = [part.register_forward_hook(note(name)) for name, part in parts.items()]
        z = latents(foundation, scene(), PROMPTS, [1, 2], sampler.config)
        made = paint(foundation, scene(), PROMPTS, [1, 2], sampler.config)
        for hook in hooks:
            hook.remove()
        assert z.dtype == torch.float32
        assert types == {"unet": {torch.bfloat16}, "vae": {torch.float32}, "text": {torch.float32}}
        assert 0 < np.abs(made.astype(int) - single).mean() < 3


class TestPairs:
    def test_any_size_in_one_batch_and_bit_exact_outside(self, sampler: InpaintSampler) -> None:
        jobs = [job(40, 57, 1), job(32, 32, 2), job(71, 20, 3), job(64, 96, 4)]
        for one, pair in zip(jobs, sampler.sample(jobs), strict=True):
            assert one.mask is not None
            assert one.image is not None
            assert (pair.image.shape, pair.image.dtype) == (one.image.shape, np.uint8)
            assert np.array_equal(pair.mask, one.mask)
            weight = feathered(one.mask, 0.1 * min(one.mask.shape))
            assert np.array_equal(pair.image[weight == 0], one.image[weight == 0])
            assert not np.array_equal(pair.image[one.mask > 0], one.image[one.mask > 0])
            assert pair.origin["outside"] == 0

    def test_what_is_said_of_a_pair(self, sampler: InpaintSampler) -> None:
        pair = sampler.sample([job(params={"normal": {"id": "n1", "source": "folder"}})])[0]
        assert set(pair.origin) == {
            "prompt", "text", "steps", "solver", "guidance", "strength", "foundation", "normal", "feather", "drawn",
            "outside",
        }  # fmt: skip
        assert pair.origin["normal"] == {"id": "n1", "source": "folder"}
        assert pair.origin["text"] == "mask"
        assert pair.origin["prompt"].startswith("endoscopic photo of a ")

    def test_drawn_against_its_definition(self, sampler: InpaintSampler, monkeypatch: pytest.MonkeyPatch) -> None:
        """RMS change inside the mask, in units of that by the autoencoder alone; at 32 px there is no resizing."""
        from morphogen.generators.inpaint import sampler as module

        one = job(32, 32)
        assert one.image is not None
        assert one.mask is not None
        flat = np.full((1, 32, 32, 3), 200, dtype=np.uint8)
        near = (one.image.astype(int) + np.where(one.image > 127, -3, 3)).astype(np.uint8)[None]
        monkeypatch.setattr(module, "paint", lambda *_: flat)
        monkeypatch.setattr(module, "autoencode", lambda *_: near)
        inside = one.mask > 0
        change = 200.0 - one.image[inside]
        drawn = sampler.sample([one])[0].origin["drawn"]
        assert drawn == pytest.approx(np.sqrt((change**2).mean()) / 3, rel=1e-3)
        monkeypatch.setattr(module, "paint", lambda *_: near)
        assert sampler.sample([one])[0].origin["drawn"] == pytest.approx(1.0, abs=1e-3)
        monkeypatch.setattr(module, "paint", lambda *_: one.image[None])
        monkeypatch.setattr(module, "autoencode", lambda *_: one.image[None])
        assert sampler.sample([one])[0].origin["drawn"] == 0  # and not 0 / 0

    def test_the_pair_follows_from_image_mask_words_and_seed(self, sampler: InpaintSampler) -> None:
        base = job()
        assert base.image is not None
        assert base.mask is not None
        others = [
            replace(base, seed=6, prompt="a photo of a polyp"),
            replace(base, prompt="endoscopic photo of normal mucosa"),
            replace(base, prompt="a photo of a polyp", image=255 - base.image),
            replace(base, prompt="a photo of a polyp", mask=base.mask[::-1].copy()),
        ]
        first = sampler.sample([replace(base, prompt="a photo of a polyp")])[0].image
        assert np.array_equal(sampler.sample([replace(base, prompt="a photo of a polyp")])[0].image, first)
        assert not any(np.array_equal(pair.image, first) for pair in sampler.sample(others))

    def test_several_labels_are_kept(self, sampler: InpaintSampler) -> None:
        one = job()
        assert one.mask is not None
        one.mask[30:36, 40:50] = 3
        pair = sampler.sample([one])[0]
        assert np.array_equal(pair.mask, one.mask)
        assert pair.mask is not None
        assert pair.mask.max() == 3


class TestOptions:
    def test_texts(self, sampler: InpaintSampler) -> None:
        said = {}
        for text in ("mask", "none", "wrong"):
            pair = sampler.with_sampling(text=text).sample([job()])[0]
            assert pair.origin["text"] == text
            said[text] = pair.origin["prompt"]
        assert said["none"] == ""
        assert said["mask"] != said["wrong"]
        given = sampler.with_sampling(text="none").sample([job(prompt="a {size} polyp")])[0].origin
        assert given["text"] == "given"
        size = sampler.trained.grammar.describe(None, job().mask)["size"]
        assert given["prompt"] == f"a {size} polyp"

    def test_every_option_has_its_hash_and_the_sampler_stays_as_it_was(self, sampler: InpaintSampler) -> None:
        changes: list[dict[str, Any]] = [
            {"text": "none"}, {"guidance": 1.0}, {"sampling_steps": 2}, {"strength": 0.5}, {"solver": "ddim"},
        ]  # fmt: skip
        hashes = {sampler.with_sampling(**change).hash for change in changes} | {sampler.hash}
        assert len(hashes) == 6
        assert sampler.with_sampling(text="none").with_sampling(text="mask").hash == sampler.hash
        first = sampler.sample([job()])[0].image
        assert not np.array_equal(sampler.with_sampling(strength=0.5).sample([job()])[0].image, first)
        assert np.array_equal(sampler.sample([job()])[0].image, first)

    @pytest.mark.parametrize(("change", "line"), [({"feather": 0.3}, "feather"), ({"text": "some"}, "--text some")])
    def test_no_other_option(self, change: dict[str, Any], line: str, sampler: InpaintSampler) -> None:
        with pytest.raises(InputError, match=line):
            sampler.with_sampling(**change)


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "line"),
        [
            ({"mask": None}, "j5: has no mask to paint"),
            ({"image": None}, "j5: has no image to paint into"),
            ({"mask": np.zeros((40, 57), dtype=np.int64)}, "j5: its mask is empty"),
            ({"mask": np.ones((57, 40), dtype=np.int64)}, "are of different sizes, 40 x 57 and 57 x 40 pixels"),
            ({"prompt": "a photo of a polip"}, "does not know 'polip'"),
            ({"prompt": "polyp " * 70}, "has 70 tokens, and the text encoder reads 62"),
            ({"prompt": "a {sort} polyp"}, "has no slot 'sort'"),
            ({"prompt": "a diminutive polyp"}, "says 'diminutive', but the mask is"),
        ],
    )
    def test_one_line(self, changes: dict[str, Any], line: str, sampler: InpaintSampler) -> None:
        with pytest.raises(InputError, match=line) as caught:
            sampler.sample([job(seed=1), job(**changes)])
        assert "\n" not in str(caught.value)


class TestRemoval:
    def test_what_is_far_from_the_lesion_stays_to_the_bit(
        self, sampler: InpaintSampler, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from morphogen.generators.inpaint import sampler as module

        asked: list[Sequence[str]] = []

        def spy(foundation: Foundation, scene: Scene, prompts: Sequence[str], *rest: Any) -> Any:
            asked.append(prompts)
            return paint(foundation, scene, prompts, *rest)

        monkeypatch.setattr(module, "paint", spy)
        jobs = [job(40, 57, 1), job(64, 33, 2)]
        images, masks = [j.image for j in jobs if j.image is not None], [j.mask for j in jobs if j.mask is not None]
        made = sampler.remove(images, masks, [8, 9])
        assert [list(prompts) for prompts in asked] == [[sampler.trained.grammar.empty] * 2]
        for before, mask, after in zip(images, masks, made, strict=True):
            assert after.shape == before.shape
            width = 0.1 * min(mask.shape)
            far = feathered(grown(mask, width), width) == 0
            assert np.array_equal(after[far], before[far])
            assert not np.array_equal(after[mask > 0], before[mask > 0])
        alone = [sampler.remove([i], [m], [s])[0] for i, m, s in zip(images, masks, (8, 9), strict=True)]
        assert all(np.abs(a.astype(int) - b).max() <= 1 for a, b in zip(alone, made, strict=True))


class TestZeroShot:
    @pytest.mark.parametrize("kind", ["sd", "sdxl"])
    def test_a_stock_folder_paints_with_the_preset_of_its_kind(self, kind: str, tmp_path: Path) -> None:
        made = widen(small_foundation(kind, tmp_path / "t"))
        made.save(tmp_path / "f")
        zero = zero_shot(str(tmp_path / "f"), preset="grammar=polyp+sampling_steps=3")
        assert (zero.config.strength, zero.config.guidance, zero.resolution) == (0.95, 7.5, 32)
        assert zero.normals is None
        pair = zero.sample([job()])[0]
        assert "polyp" in pair.origin["prompt"]
        assert pair.origin["foundation"] == "f"
        other = zero_shot(str(tmp_path / "f"), preset="grammar=polyp+sampling_steps=4")
        half = zero_shot(str(tmp_path / "f"), preset="grammar=polyp+sampling_steps=3+mixed_precision=bf16")
        assert len({zero.hash, other.hash, half.hash}) == 3
        assert zero_shot(str(tmp_path / "f")).trained.grammar.name == "generic"

    def test_the_grammar_is_part_of_what_it_is(self, tmp_path: Path) -> None:
        """Of pairs in one folder the words come from one grammar, whatever its file is called."""
        widen(small_foundation("sd", tmp_path / "t")).save(tmp_path / "f")
        text = as_yaml(Grammar.load("polyp"))
        for name, said in (("a", text), ("b", text), ("c", text.replace("smooth surface", "glossy surface"))):
            (tmp_path / f"{name}.yaml").write_text(said)
        names = ("polyp", "skin", *(str(tmp_path / f"{name}.yaml") for name in "abc"))
        polyp, skin, a, b, c = (zero_shot(str(tmp_path / "f"), preset=f"grammar={name}").hash for name in names)
        assert polyp == a == b
        assert len({polyp, skin, c}) == 3

    @pytest.mark.parametrize(
        ("kind", "preset", "line"),
        [
            ("sdxl", "sd15", "has two text encoders, as SDXL, .* take preset sdxl"),
            ("sdxl", "sd2+guidance=5", "has two text encoders, as SDXL, .* take preset sdxl"),
            ("sd", "grammar=polyp+sdxl", "has one text encoder, .* take preset sd15 or sd2"),
        ],
    )
    def test_another_layout(self, kind: str, preset: str, line: str, tmp_path: Path) -> None:
        widen(small_foundation(kind, tmp_path / "t")).save(tmp_path / "f")
        with pytest.raises(InputError, match=line) as caught:
            zero_shot(str(tmp_path / "f"), preset=preset)
        assert "\n" not in str(caught.value)
        own = {"sd": "sd15", "sdxl": "sdxl"}[kind]
        assert zero_shot(str(tmp_path / "f"), preset=own).hash == zero_shot(str(tmp_path / "f")).hash

    def test_four_channels_are_refused(self, tmp_path: Path) -> None:
        for name, made in (("ours", small_tiny()), ("sd", small_foundation("sd", tmp_path / "t"))):
            made.save(tmp_path / name)
            with pytest.raises(InputError, match="reads 4 channels, not those of one for inpainting") as caught:
                zero_shot(str(tmp_path / name))
            assert "\n" not in str(caught.value)
        with pytest.raises(InputError, match="no option 'gramar'; did you mean 'grammar'"):
            zero_shot(str(tmp_path / "ours"), preset="gramar=polyp")
