"""Siamese-Diffusion as a generator: hints, presets, training, files, sampling."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional as F

from generators.base import GeneratorTester
from morphogen.data.pairs import Pairs
from morphogen.data.phantoms import phantom_dataset
from morphogen.data.records import Dataset
from morphogen.errors import InputError
from morphogen.foundation.model import Foundation
from morphogen.foundation.tiny_model import build_tiny
from morphogen.generators.siamese import model, sampling
from morphogen.generators.siamese.config import (
    PRESETS,
    ControlNetConfig,
    SiameseConfig,
    controlnet_config,
    siamese_config,
)
from morphogen.generators.siamese.control import HintedControlNet
from morphogen.generators.siamese.hint_images import mask_hint, palette
from morphogen.generators.siamese.hints import DenseHint, PatchMerging, Residual
from morphogen.generators.siamese.pretrain_hint import pretrain_hint
from morphogen.generators.siamese.step import Weights
from morphogen.generators.siamese.task import SiameseTask
from morphogen.sampling.jobs import Job
from morphogen.training.rng import normal
from morphogen.training.task import Draw, Progress
from small_foundations import SMALL, perturb, small_foundation, small_tiny, small_unet


@pytest.fixture(scope="module")
def foundation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("foundation") / "small"
    small_tiny().save(folder)
    return folder


def quick(foundation: Path, **changes: object) -> SiameseConfig:
    values = {"max_train_steps": 4, "train_batch_size": 4, "sampling_steps": 2, "hint_width": 4, **changes}
    return SiameseConfig(foundation=str(foundation), **values)  # type: ignore[arg-type]


def task_of(foundation: Path, config: SiameseConfig, data: Dataset) -> SiameseTask:
    made = Foundation.load(foundation)
    return SiameseTask(made, model.start(made, config), model._training_set(made, Pairs(data, 32), config), config)


def paints_as_the_stock_pipeline(run: Path, controlnet: HintedControlNet | None = None) -> bool:
    """Whether diffusers' pipeline class paints one mask as our sampler does, to a grey level."""
    sampler = model.load(run).with_sampling(solver="ddim", sampling_steps=4, guidance=3.0)
    given = {} if controlnet is None else {"controlnet": controlnet}
    pipeline = StableDiffusionControlNetPipeline.from_pretrained(
        run / "final", safety_checker=None, feature_extractor=None, **given
    )
    pipeline.set_progress_bar_config(disable=True)
    mask = np.zeros((32, 32), dtype=np.int64)
    mask[8:24, 8:24] = 1
    theirs = pipeline(
        "a photo of a polyp", image=mask_hint(mask[None], 2), latents=normal([5], (4, 8, 8), "z_T"), height=32,
        width=32, num_inference_steps=4, guidance_scale=3.0, eta=0.0, output_type="np",
    ).images[0]  # fmt: skip
    ours = sampler.sample([Job("x", 5, mask)])[0].image
    return bool(np.abs(ours.astype(float) - 255 * theirs).max() < 1.0)


class TestAsGenerator(GeneratorTester):
    name = "siamese"

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def set_config(cls, foundation: Path) -> None:
        cls.config = quick(foundation)


class TestControlNetAsGenerator(GeneratorTester):
    name = "controlnet"

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def set_config(cls, foundation: Path) -> None:
        cls.config = ControlNetConfig(
            foundation=str(foundation), max_train_steps=2, train_batch_size=4, sampling_steps=2
        )


class TestHints:
    def test_dense_hint_has_the_published_size(self) -> None:
        assert sum(p.numel() for p in DenseHint(320).parameters()) == 3_263_872

    def test_plain_hint_has_the_published_size(self) -> None:
        with torch.device("meta"):
            net = ControlNetModel()
        assert sum(p.numel() for p in net.controlnet_cond_embedding.parameters()) == 1_086_480

    def test_dense_hint_halves_once_a_merge_and_starts_at_zero(self) -> None:
        for merges in (1, 2, 3):
            out = DenseHint(12, merges, width=4)(torch.rand(2, 3, 32, 32))
            assert out.shape == (2, 12, 32 >> merges, 32 >> merges)
            assert float(out.abs().max()) == 0

    def test_patch_merging_against_loops(self) -> None:
        torch.manual_seed(0)
        layer, x = PatchMerging(3), torch.randn(2, 3, 4, 6)
        ours = layer(x)
        for b in range(2):
            for i in range(2):
                for j in range(3):
                    around = [(2 * i, 2 * j), (2 * i + 1, 2 * j), (2 * i, 2 * j + 1), (2 * i + 1, 2 * j + 1)]
                    v = torch.cat([x[b, :, r, c] for r, c in around])
                    v = (v - v.mean()) / (v.var(unbiased=False) + 1e-5).sqrt() * layer.norm.weight + layer.norm.bias
                    assert torch.allclose(
                        ours[b, :, i, j], layer.reduction.weight @ v + layer.reduction.bias, atol=1e-5
                    )

    def test_residual_against_its_formula(self) -> None:
        torch.manual_seed(0)
        layer, x = Residual(4), torch.randn(1, 4, 5, 5)
        inner = F.conv2d(x, layer.first.weight, layer.first.bias, padding=1)
        literal = x + F.conv2d(inner * inner.sigmoid(), layer.second.weight, layer.second.bias, padding=1)
        assert torch.allclose(layer(x), literal * literal.sigmoid(), atol=1e-6)

    @pytest.mark.parametrize("hint", ["plain", "dense"])
    def test_residuals_equal_diffusers_forward(self, hint: str) -> None:
        made = small_tiny().to("cpu")
        net = HintedControlNet.for_foundation(made, hint, hint_width=4).eval()
        perturb(net)
        z, t, image = torch.randn(2, 4, 8, 8), torch.tensor([5, 700]), torch.rand(2, 3, 32, 32)
        cond = made.conditioning(["a photo of a polyp", ""])
        with torch.no_grad():
            ours = net.residuals(z, t, cond, net.embed(image))
            down, mid = net(z, t, encoder_hidden_states=cond.states, controlnet_cond=image, return_dict=False)
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(ours.skips, down, strict=True))
        assert torch.allclose(ours.mid, mid, atol=1e-5)
        assert float(mid.abs().max()) > 0

    def test_the_trunk_is_a_copy_of_the_encoder(self) -> None:
        made = small_tiny().to("cpu")
        net = HintedControlNet.for_foundation(made, "dense")
        for name, value in net.down_blocks.state_dict().items():
            assert torch.equal(value, made.unet.down_blocks.state_dict()[name])
        assert float(net.controlnet_mid_block.weight.abs().max()) == 0


class TestHintImages:
    def test_binary_masks_are_replicated(self) -> None:
        hint = mask_hint(np.array([[[0, 1], [1, 0]]]), 2)
        assert hint.shape == (1, 3, 2, 2)
        assert hint[0, :, 0, 1].tolist() == [1, 1, 1]
        assert float(hint[0, :, 0, 0].sum()) == 0

    @pytest.mark.parametrize("classes", [3, 5, 9])
    def test_every_class_has_a_colour_of_its_own(self, classes: int) -> None:
        colours = palette(classes)
        apart = np.abs(colours[:, None] - colours[None]).max(-1) + np.eye(classes)
        assert colours.shape == (classes, 3)
        assert apart.min() > 0.2
        assert 0 <= colours.min() <= colours.max() <= 1


class TestPresets:
    def test_every_preset_builds(self) -> None:
        for name in PRESETS:
            siamese_config(name)

    def test_the_paper_recipe(self) -> None:
        c = siamese_config("sd15")
        assert (c.resolution, c.max_train_steps, c.train_batch_size, c.lr) == (384, 3000, 48, 1e-5)
        assert (c.solver, c.sampling_steps, c.guidance, c.prompt_drop, c.w_c) == ("ddim", 50, 9.0, 0.05, 1.0)
        assert not c.symmetries
        assert c.init == "zero"
        assert c.hint_width == 16
        assert c.max_grad_norm == 0

    @pytest.mark.parametrize(
        ("row", "dense", "augmentation", "consistency"),
        [
            (1, 0, 0, 0),
            (2, 1, 0, 0),
            (3, 0, 1, 0),
            (4, 0, 0, 1),
            (5, 0, 1, 1),
            (6, 1, 1, 0),
            (7, 1, 0, 1),
            (8, 1, 1, 1),
        ],
    )
    def test_the_ablation_table(self, row: int, dense: int, augmentation: int, consistency: int) -> None:
        c = siamese_config(f"sd15+ablation-{row}")
        assert (c.hint == "dense", c.online_augmentation, c.w_c > 0) == (
            bool(dense),
            bool(augmentation),
            bool(consistency),
        )
        assert c.image_branch == bool(augmentation or consistency)
        assert c.max_train_steps == 3000

    def test_the_rows_start_alike(self) -> None:
        assert {siamese_config(f"ablation-{row}").init for row in range(1, 9)} == {"zero"}

    def test_a_preset_on_a_foundation_of_ones_own(self, tmp_path: Path) -> None:
        folder = tmp_path / "a+b"
        folder.mkdir()
        assert siamese_config(str(folder)) == SiameseConfig(foundation=str(folder))
        assert siamese_config("sd15+/some/folder") == replace(siamese_config("sd15"), foundation="/some/folder")
        assert siamese_config("owner/model@abc+ablation-4").foundation == "owner/model@abc"

    def test_controlnet_is_row_one(self) -> None:
        assert siamese_config("controlnet") == siamese_config("ablation-1")

    def test_an_unknown_preset_is_refused(self) -> None:
        with pytest.raises(InputError, match="--preset huge: no such preset; choose from tiny"):
            siamese_config("huge")


class TestTraining:
    def test_decoder_and_control_train_and_nothing_else(self, foundation: Path, tmp_path: Path) -> None:
        data = phantom_dataset(tmp_path / "d", "mucosa", 4, 32)
        model.train(data, quick(foundation), tmp_path / "run")
        before, after = Foundation.load(foundation), Foundation.load(tmp_path / "run" / "final")
        old, new = before.unet.state_dict(), after.unet.state_dict()
        changed = {name.split(".")[0] for name in old if not torch.equal(old[name], new[name])}
        assert changed == {"up_blocks", "conv_norm_out", "conv_out"}
        for part in ("vae", "text_encoders"):
            a, b = getattr(before, part), getattr(after, part)
            a, b = (a[0], b[0]) if part == "text_encoders" else (a, b)
            assert all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())

    def test_a_locked_decoder_stays(self, foundation: Path, tmp_path: Path) -> None:
        data = phantom_dataset(tmp_path / "d", "mucosa", 4, 32)
        model.train(data, quick(foundation, tuning="locked"), tmp_path / "run")
        old, new = (Foundation.load(f).unet.state_dict() for f in (foundation, tmp_path / "run" / "final"))
        assert all(torch.equal(old[name], new[name]) for name in old)

    def test_the_schedule_of_the_weights(self, foundation: Path, tmp_path: Path) -> None:
        data = phantom_dataset(tmp_path / "d", "mucosa", 4, 32)
        model.train(data, quick(foundation, max_train_steps=9), tmp_path / "run")
        rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows if "L_m'" in row] == [4, 5, 6, 7, 8]  # k > N / 3
        assert rows[0]["L_c"] == 0
        assert rows[0]["L_i"] == rows[0]["L_m"]

    def test_a_controlnet_keeps_the_options_that_it_is_given(self) -> None:
        plain = controlnet_config("sd15")
        assert (plain.hint, plain.init, plain.image_branch, plain.resolution) == ("plain", "zero", False, 384)
        chosen = controlnet_config("tiny+init=pretrained+hint=dense+lr=1e-4")
        assert (chosen.hint, chosen.init, chosen.lr, chosen.w_c) == ("dense", "pretrained", 1e-4, 0.0)

    @pytest.mark.parametrize(
        ("word", "says"), [("w_c=x", "w_c takes a number"), ("symmetries=1", "symmetries takes true or false"),
                           ("lora_rank=2.5", "lora_rank takes a whole number")]
    )  # fmt: skip
    def test_a_value_that_an_option_cannot_take_is_refused(self, word: str, says: str) -> None:
        with pytest.raises(InputError, match=says):
            siamese_config(f"tiny+{word}")

    def test_schedule_and_previews_are_at_hand(self, foundation: Path, tmp_path: Path) -> None:
        data = phantom_dataset(tmp_path / "d", "mucosa", 4, 32)
        config = quick(foundation, lr_scheduler="cosine", lr_warmup_steps=1, validation_steps=2, symmetries=False)
        (phase,) = task_of(foundation, config, data).phases()
        assert (phase.schedule, phase.warmup) == ("cosine", 1)
        run = model.train(data, config, tmp_path / "run")
        assert [p.name for p in sorted((run / "previews").iterdir())] == ["step-000002.png", "step-000004.png"]

    @pytest.mark.parametrize(
        "changes", [{}, {"w_c": 0.5}, {"T_tau": 50}, {"online_augmentation": False}, {"image_branch": False}]
    )
    def test_the_settings_reach_the_step(self, changes: dict[str, object], foundation: Path, tmp_path: Path) -> None:
        """w_i = k / N (Eq. 5); the Online-Augmentation for k > N / 3 (Eq. 13); the others as they are set."""
        config = quick(foundation, symmetries=False, **changes)
        task = task_of(foundation, config, phantom_dataset(tmp_path / "d", "mucosa", 4, 32))
        for k in range(9):
            late = config.online_augmentation and 3 * k > 9
            wanted = Weights(k / 9, config.w_c, late, config.T_tau, config.image_branch)
            assert task.weights(Progress(k, 9)) == wanted

    @pytest.mark.parametrize("row", range(1, 9))
    def test_every_row_of_the_ablation_has_its_losses(self, row: int, foundation: Path, tmp_path: Path) -> None:
        config = replace(siamese_config(f"ablation-{row}"), foundation=str(foundation), hint_width=4, symmetries=False)
        task = task_of(foundation, config, phantom_dataset(tmp_path / "d", "mucosa", 4, 32))
        drawn = task.batch([Draw(k, k) for k in range(4)]) | {"t": torch.tensor([3, 99, 150, 900])}
        terms = {"L_m"}
        terms |= {"L_i"} if row not in (1, 2) else set()
        terms |= {"L_c"} if row in (4, 5, 7, 8) else set()
        assert task.loss(drawn, Progress(0, 9)).keys() == terms
        terms |= {"L_m'"} if row in (3, 5, 6, 8) else set()
        assert task.loss(drawn, Progress(8, 9)).keys() == terms

    def test_a_row_holds_the_latent_the_mask_and_the_image_of_one_pair(self, foundation: Path, tmp_path: Path) -> None:
        data = phantom_dataset(tmp_path / "d", "mucosa", 6, 32)
        task, pairs = task_of(foundation, quick(foundation, symmetries=False), data), Pairs(data, 32)
        made, index, seeds = task.foundation, [4, 1, 5, 1], [11, 12, 13, 14]
        drawn = task.batch([Draw(i, s) for i, s in zip(index, seeds, strict=True)])
        images, masks = pairs.images(index), pairs.masks(index)
        assert torch.equal(drawn["image_hint"], torch.tensor(images / 255, dtype=torch.float32))
        assert torch.equal(drawn["mask_hint"], torch.tensor(masks[:, None] > 0).float().expand(-1, 3, -1, -1))
        z0 = made.encode(torch.tensor(images / 127.5 - 1, dtype=torch.float32), seeds)
        assert torch.allclose(drawn["z0"], z0, atol=1e-4)
        assert torch.equal(drawn["eps"], normal(seeds, z0.shape[1:], "eps"))

    def test_prompts_are_dropped_at_the_stated_rate(self, foundation: Path, tmp_path: Path) -> None:
        data = phantom_dataset(tmp_path / "d", "mucosa", 4, 32)
        config = quick(foundation, prompt_drop=0.25, prompt="a photo of a polyp", symmetries=False)
        task = task_of(foundation, config, data)
        drawn = task.batch([Draw(k % 4, 1000 + k) for k in range(400)])
        assert sum(prompt == "" for prompt in drawn["prompts"]) == pytest.approx(100, abs=30)
        assert int(drawn["t"].min()) >= 0
        assert int(drawn["t"].max()) <= 999
        assert float(drawn["mask_hint"].sum(dim=(1, 2, 3)).min()) > 0  # the hint is never dropped

    def test_the_foundation_is_adapted_first_where_asked(self, foundation: Path, tmp_path: Path) -> None:
        data = phantom_dataset(tmp_path / "d", "mucosa", 4, 32)
        run = model.train(data, quick(foundation, adapt_steps=2, tuning="locked"), tmp_path / "run")
        adapted, plain = Foundation.load(run / "adapted" / "final"), Foundation.load(foundation)
        after = Foundation.load(run / "final").unet.state_dict()
        assert all(torch.equal(v, after[k]) for k, v in adapted.unet.state_dict().items())
        assert not torch.equal(plain.unet.conv_in.weight, adapted.unet.conv_in.weight)
        assert adapted.card["sets"][data.name]["training_ids"] == list(data.ids)
        assert model.train(data, quick(foundation, adapt_steps=2, tuning="locked"), run) == run

    @pytest.mark.parametrize(("own", "stages"), [(1e9, {"decoder"}), (1e-9, {"decoder", "denoiser"}), (None, set())])
    def test_by_default_the_decoder_is_adapted_and_the_denoiser_on_far_images(
        self, own: float | None, stages: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Own: how well the foundation predicts the noise of its own kinds of images; None for a foreign foundation."""
        from morphogen.foundation.adapt import AdaptConfig

        monkeypatch.setattr(AdaptConfig, "decoder_steps", 1)
        monkeypatch.setattr(AdaptConfig, "max_train_steps", 1)
        data = phantom_dataset(tmp_path / "d", "mucosa", 4, 32)
        made = small_tiny()
        made.card |= {} if own is None else {"noise_error": own}
        made.save(tmp_path / "f")
        run = model.train(data, quick(tmp_path / "f", max_train_steps=1), tmp_path / "run")
        assert {stage for stage in ("decoder", "denoiser") if (run / "adapted" / stage).exists()} == stages
        vae = Foundation.load(run / "final").vae.state_dict()
        same = all(torch.equal(value, vae[name]) for name, value in made.vae.state_dict().items())
        assert same == (not stages)

    def test_multi_class_masks(self, foundation: Path, tmp_path: Path) -> None:
        data = phantom_dataset(tmp_path / "d", "mucosa", 4, 32)
        for record in data:
            assert record.mask is not None
            labels = np.array(Image.open(record.mask)) // 255
            labels[:8, :8] = 2
            Image.fromarray(labels).save(record.mask)
        three = replace(data, classes=("background", "a", "b"), mask_values={0: 0, 1: 1, 2: 2})
        config = quick(foundation, hint="plain", lr=1e-2)
        hint = task_of(foundation, config, three).batch([Draw(0, 0)])["mask_hint"][0]
        assert len({tuple(colour.tolist()) for colour in hint.flatten(1).T}) == 3
        sampler = model.load(model.train(three, config, tmp_path / "run"))
        mask = np.zeros((32, 32), dtype=np.int64)
        mask[8:16, 8:16], mask[20:28, 20:28] = 1, 2
        swapped = np.array([0, 2, 1])[mask]
        pair, other = sampler.sample([Job("x", 0, mask), Job("x", 0, swapped)])
        assert np.array_equal(pair.mask, mask)
        assert not np.array_equal(pair.image, other.image)
        assert sampler.classes == ("background", "a", "b")

    @pytest.mark.parametrize("kind", ["sd", "sdxl"])
    def test_a_foundation_of_another_family(self, kind: str, tmp_path: Path) -> None:
        """Prompts of a model that is told the size are told that of the images, in training and in sampling."""
        data = phantom_dataset(tmp_path / "d", "mucosa", 4, 32)
        small_foundation(kind, tmp_path / "t").save(tmp_path / "f")
        config = quick(tmp_path / "f", resolution=16, prompt="a photo of a polyp", hint="plain")
        task = task_of(tmp_path / "f", config, data)
        if kind == "sdxl":
            assert task.texts[""].time_ids is not None
            assert task.texts[""].time_ids[0].tolist() == [32, 32, 0, 0, 32, 32]  # `task_of` reads pairs of 32 px
        sampler = model.load(model.train(data, config, tmp_path / "run"))
        assert sampler.sample([Job("x", 0, np.zeros((16, 16), dtype=np.int64))])[0].image.shape == (16, 16, 3)

    def test_an_inpainting_foundation_is_refused(self, tmp_path: Path) -> None:
        data = phantom_dataset(tmp_path / "d", "mucosa", 4, 32)
        made = small_foundation("sd", tmp_path / "t")
        made.unet = small_unet("sd", in_channels=9)
        made.save(tmp_path / "f")
        with pytest.raises(InputError, match="reads 9 channels"):
            model.train(data, quick(tmp_path / "f"), tmp_path / "run")
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize(
        ("changes", "line"),
        [
            ({"init": "pretrained"}, "ships no dense hint path"),
            ({"adapt_steps": -3}, "--adapt-steps -3: is negative"),
            ({"resolution": 30}, r"--resolution 30: is not a multiple of 4, .*; take 28"),
            ({"prompt": "a photo of a polip"}, "does not know 'polip'"),
        ],
    )
    def test_what_cannot_train_leaves_no_run_behind(
        self, foundation: Path, tmp_path: Path, changes: dict[str, object], line: str
    ) -> None:
        data = phantom_dataset(tmp_path / "d", "mucosa", 4, 32)
        with pytest.raises(InputError, match=line):
            model.train(data, quick(foundation, **changes), tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_no_masks_is_refused(self, foundation: Path, tmp_path: Path) -> None:
        data = phantom_dataset(tmp_path / "d", "mucosa", 4, 32)
        bare = replace(data, records=tuple(replace(r, mask=None) for r in data))
        with pytest.raises(InputError, match="has no mask to learn from; add masks/"):
            model.train(bare, quick(foundation), tmp_path / "run")
        assert not (tmp_path / "run").exists()


class TestInit:
    def test_a_hint_path_made_on_phantoms(self, foundation: Path, tmp_path: Path) -> None:
        folder = tmp_path / "f"
        shutil.copytree(foundation, folder)
        before = Foundation.load(folder).unet.state_dict()
        pretrain_hint(folder, tmp_path / "hint-run", steps=3, phantoms=6)
        made = Foundation.load(folder)
        for trained in (made, Foundation.load(tmp_path / "hint-run" / "final")):  # the decoder stays locked
            assert all(torch.equal(v, trained.unet.state_dict()[k]) for k, v in before.items())
        started = model.start(made, quick(folder, init="auto"))
        assert float(started.controlnet_mid_block.weight.abs().max()) > 0
        zero = model.start(made, quick(folder, init="zero"))
        assert float(zero.controlnet_mid_block.weight.abs().max()) == 0

    def test_a_missing_one_is_refused(self, foundation: Path) -> None:
        with pytest.raises(InputError, match=r"--init pretrained: .* ships no dense hint path; use --init zero"):
            model.start(Foundation.load(foundation), quick(foundation, init="pretrained"))

    @pytest.mark.parametrize("option", ["init", "hint", "solver"])
    def test_an_unknown_word_is_refused_before_a_folder_is_made(self, option: str) -> None:
        with pytest.raises(InputError, match=f"--{option} one: choose "):
            SiameseConfig(**{option: "one"})


class TestSampling:
    @pytest.fixture(scope="class")
    @classmethod
    def run(cls, foundation: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("siamese")
        data = phantom_dataset(folder / "d", "mucosa", 4, 32)
        config = quick(foundation, hint="plain", lr=1e-2, prompt="a photo of a polyp")
        return model.train(data, config, folder / "run")

    def test_no_real_image_is_read(self, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        shutil.rmtree(run.parent / "d")  # the training images are gone
        mask = np.zeros((32, 32), dtype=np.int64)
        assert model.load(run).sample([Job("x", 0, mask)])[0].image.shape == (32, 32, 3)
        assert "image_hint" not in vars(sampling)

    def test_the_mask_changes_the_image(self, run: Path) -> None:
        sampler = model.load(run)
        mask = np.zeros((32, 32), dtype=np.int64)
        other = mask.copy()
        other[8:24, 8:24] = 1
        a, b = sampler.sample([Job("x", 0, mask), Job("x", 0, other)])
        assert not np.array_equal(a.image, b.image)

    def test_a_stock_pipeline_loads_the_folder_and_paints_the_same(self, run: Path) -> None:
        assert paints_as_the_stock_pipeline(run)

    def test_the_stock_pipeline_class_paints_the_same_with_our_dense_hint(
        self, foundation: Path, tmp_path: Path
    ) -> None:
        """As the README says: our ControlNet class, handed to diffusers' pipeline class."""
        data = phantom_dataset(tmp_path / "d", "mucosa", 4, 32)
        run = model.train(data, quick(foundation, lr=1e-2, prompt="a photo of a polyp"), tmp_path / "run")
        assert paints_as_the_stock_pipeline(run, HintedControlNet.from_pretrained(run / "final" / "controlnet"))

    def test_a_job_without_mask_is_refused(self, run: Path) -> None:
        with pytest.raises(InputError, match="siamese paints masks, and this sample has none; give --masks"):
            model.load(run).sample([Job("x", 0)])

    def test_a_damaged_folder_is_one_line(self, run: Path, tmp_path: Path) -> None:
        shutil.copytree(run, tmp_path / "r")
        (tmp_path / "r" / "final" / "controlnet" / "config.json").write_text("{")
        with pytest.raises(InputError, match="is not a whole siamese generator"):
            model.load(tmp_path / "r")

    def test_files_are_safetensors_and_json(self, run: Path) -> None:
        kinds = {path.suffix for path in (run / "final").rglob("*") if path.is_file()}
        assert kinds <= {".safetensors", ".json", ".txt"}
        assert load_file(run / "final" / "controlnet" / "diffusion_pytorch_model.safetensors")


def test_factor_eight_has_three_merges() -> None:
    made = build_tiny(replace(SMALL, vae_channels=(8, 8, 8, 8)), ["a", "photo"]).to("cpu")
    net = HintedControlNet.for_foundation(made, "dense", hint_width=2)
    assert net.embed(torch.rand(1, 3, 32, 32)).shape == (1, 16, 4, 4)
