"""Siamese-Diffusion's two further mixtures: weights by area (ADC), and a ControlNet that reads mask and image."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import MultiControlNetModel, StableDiffusionControlNetPipeline
from torch import Tensor

from generators.base import GeneratorTester
from generators.test_siamese_step import batch, build, grads, inputs
from morphogen.cli.sample import Sample
from morphogen.data.pairs import Pairs
from morphogen.data.phantoms import phantom_dataset
from morphogen.data.records import Dataset
from morphogen.errors import InputError
from morphogen.foundation.halves import DecoderHalf
from morphogen.foundation.model import Foundation
from morphogen.generators import GENERATORS
from morphogen.generators.mask_training import TrainingSet
from morphogen.generators.siamese import memory, model
from morphogen.generators.siamese.config import (
    ControlNetConfig,
    SiameseConfig,
    controlnet_config,
    siamese_config,
)
from morphogen.generators.siamese.control import HintedControlNet
from morphogen.generators.siamese.hint_images import image_hint, mask_hint
from morphogen.generators.siamese.sources import digest, source_images
from morphogen.generators.siamese.step import Networks, Weights, area_weights, step_losses
from morphogen.generators.siamese.task import SiameseTask
from morphogen.sampling.jobs import Job, Sampler
from morphogen.sampling.plan import plan_jobs
from morphogen.training.rng import normal
from morphogen.training.task import Draw, Progress
from small_foundations import small_tiny


@pytest.fixture(scope="module")
def foundation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("foundation") / "small"
    small_tiny().save(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return phantom_dataset(tmp_path_factory.mktemp("d") / "d", "mucosa", 4, 32, seed=2)


def quick(foundation: Path, **changes: object) -> ControlNetConfig:
    values = {"max_train_steps": 2, "train_batch_size": 4, "sampling_steps": 2, "hint_input": "mask-image", **changes}
    return ControlNetConfig(foundation=str(foundation), **values)  # type: ignore[arg-type]


def predictions(nets: Networks, weights: Weights) -> tuple[dict[str, Tensor], list[Tensor]]:
    """The losses of the batch, and what the decoder foretold on the way."""
    kept: list[Tensor] = []
    real = DecoderHalf.forward

    def spy(self: DecoderHalf, *args: object, **kwargs: object) -> Tensor:
        kept.append(real(self, *args, **kwargs))  # type: ignore[arg-type]
        return kept[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DecoderHalf, "forward", spy)
        return step_losses(nets, inputs(nets, batch()), weights), kept


class TestAreaWeights:
    def test_against_counting_cells(self) -> None:
        """Of a mask that the latent grid samples at the upper left pixel of each cell, as the authors' code does."""
        g = torch.Generator().manual_seed(1)
        mask = (torch.rand(3, 1, 12, 8, generator=g) > 0.7).double()
        made = area_weights(mask.expand(-1, 3, -1, -1), torch.zeros(3, 4, 6, 4, dtype=torch.float64))
        for b in range(3):
            lesion = [[float(mask[b, 0, 2 * i, 2 * j]) for j in range(4)] for i in range(6)]
            n_lesion = sum(map(sum, lesion))
            for i in range(6):
                for j in range(4):
                    share = (24 - n_lesion) / 24 if lesion[i][j] else n_lesion / 24
                    assert float(made[b, 0, i, j]) == pytest.approx(share, abs=1e-12)

    def test_lesion_and_background_weigh_the_same_in_all(self) -> None:
        mask = torch.zeros(1, 3, 8, 8)
        mask[..., :3, :2] = 1
        made, lesion = area_weights(mask, torch.zeros(1, 4, 8, 8)), mask[:, :1] > 0
        assert float(made[lesion].sum()) == pytest.approx(float(made[~lesion].sum()))
        a = 6 / 64
        assert float(made.mean()) == pytest.approx(2 * a * (1 - a))

    def test_all_classes_but_the_background_are_lesions(self) -> None:
        labels = np.zeros((1, 8, 8), dtype=np.int64)
        labels[0, :2], labels[0, 2:4], labels[0, 4:6] = 1, 2, 3
        three, one = mask_hint(labels, 4), mask_hint((labels > 0).astype(np.int64), 2)
        z = torch.zeros(1, 4, 8, 8)
        assert torch.equal(area_weights(three, z), area_weights(one, z))

    def test_without_a_lesion_there_is_nothing_to_weigh(self) -> None:
        assert float(area_weights(torch.zeros(1, 3, 8, 8), torch.zeros(1, 4, 4, 4)).max()) == 0


class TestADC:
    def test_the_consistency_loss_against_loops(self) -> None:
        nets = build()
        losses, (eps_m, eps_mix) = predictions(nets, Weights(w_i=1.0, w_c=0.7, adaptive=True))
        mask, gap, total = batch().mask_hint, (eps_m - eps_mix).detach(), 0.0
        for b in range(len(mask)):
            lesion = mask[b, 0, ::4, ::4]  # nearest neighbour, factor 4
            n_l, n = float(lesion.sum()), lesion.numel()
            for c in range(4):
                for i in range(8):
                    for j in range(8):
                        w = (n - n_l) / n if lesion[i, j] else n_l / n
                        total += w * float(gap[b, c, i, j]) ** 2
        assert float(losses["L_c"]) == pytest.approx(0.7 * total / eps_m.numel(), rel=1e-9)

    def test_it_moves_the_mask_branch_alone(self) -> None:
        nets = build()
        x = inputs(nets, batch())
        seen = replace(x, image_hint=x.image_hint.clone().requires_grad_(True))
        step_losses(nets, seen, Weights(w_i=1.0, adaptive=True))["L_c"].backward()
        assert seen.image_hint.grad is None or float(seen.image_hint.grad.abs().max()) == 0

    def test_the_other_losses_stay(self) -> None:
        nets = build()
        x = inputs(nets, batch())
        plain, weighed = (step_losses(nets, x, Weights(w_i=1.0, adaptive=way)) for way in (False, True))
        assert plain.keys() == weighed.keys()
        assert all(torch.equal(plain[name], weighed[name]) for name in ("L_m", "L_i"))
        assert 0 < float(weighed["L_c"]) < float(plain["L_c"])

    def test_the_preset(self, foundation: Path, data: Dataset) -> None:
        c = siamese_config("tiny+adc")
        changed = {k for k, v in vars(c).items() if v != getattr(SiameseConfig(), k)}
        assert changed == {"w_i", "adaptive_w_c", "online_augmentation"}
        task = SiameseTask(*_of(foundation, data, siamese_config(f"{foundation}+adc", symmetries=False, hint_width=4)))
        for k in (0, 4, 8):  # w_i = 1 from the first step to the last
            assert task.weights(Progress(k, 9)) == Weights(1.0, 1.0, False, 200, True, True)
        drawn = task.batch([Draw(k, k) for k in range(4)])
        assert task.loss(drawn, Progress(8, 9)).keys() == {"L_m", "L_i", "L_c"}

    def test_a_controlnet_has_no_such_preset(self) -> None:
        with pytest.raises(InputError, match="--preset adc: no such preset; choose from tiny"):
            controlnet_config("adc")

    def test_an_unknown_word_is_refused(self) -> None:
        with pytest.raises(InputError, match="--w-i two: choose linear or one"):
            siamese_config("tiny+w_i=two")


class TestOlderRuns:
    def test_they_are_recognised(self, foundation: Path, data: Dataset, tmp_path: Path) -> None:
        """What a run was begun with does not mention options that it did not know."""
        young = {"w_i", "adaptive_w_c", "hint_input"}
        for config in (SiameseConfig(), ControlNetConfig(), siamese_config("sd15+ablation-4")):
            assert config.stated() == {k: v for k, v in vars(config).items() if k not in young}
        run = model.train(data, quick(foundation, hint_input="mask"), tmp_path / "run")
        assert not any(word in (run / "config.yaml").read_text() for word in young)
        info = json.loads((run / "final" / "generator.json").read_text())
        assert info.keys() == {"generator", "classes", "prompt", "config"}
        assert not young & info["config"].keys()

    def test_what_is_set_is_kept(self) -> None:
        assert siamese_config("adc").stated().keys() - SiameseConfig().stated().keys() == {"w_i", "adaptive_w_c"}
        assert controlnet_config("mask-image").stated()["hint_input"] == "mask-image"


class TestBothHintsAsGenerator(GeneratorTester):
    name = "controlnet"
    transform = "flip"

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def set_config(cls, foundation: Path) -> None:
        cls.config = quick(foundation, lr=1e-2)

    def test_sampling_reads_no_real_image(self, sampler: Sampler, jobs: list[Job]) -> None:
        """It must; what it may read is tested below."""
        gone = [replace(job, source=None) for job in jobs]
        with pytest.raises(InputError, match="has no image, and the generator reads the real image beside its mask"):
            sampler.sample(gone)

    def test_the_pairs_say_what_they_are(self, sampler: Sampler, jobs: list[Job]) -> None:
        for job, pair in zip(jobs, sampler.sample(jobs), strict=True):
            assert job.source is not None
            assert pair.origin["hint_input"] == "mask-image"
            assert pair.origin["near_copy_of"] == job.source.id


class TestBothHints:
    @pytest.fixture(scope="class")
    @classmethod
    def run(cls, foundation: Path, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
        config = quick(foundation, lr=1e-2, max_train_steps=4, prompt="a photo of a polyp")
        return model.train(data, config, tmp_path_factory.mktemp("run") / "run")

    def test_the_step_is_a_controlnets_with_summed_residuals(self) -> None:
        """By diffusers' own forward passes, gradients included."""
        nets, step = build("plain"), batch()
        x = inputs(nets, step)
        ours = step_losses(nets, x, Weights(w_i=0.3, both_hints=True))
        found = grads(nets, ours["L_mix"])
        z_t = nets.foundation.add_noise(x.z0, x.eps, x.t)
        both = [
            nets.controlnet(z_t, x.t, encoder_hidden_states=x.cond.states, controlnet_cond=hint, return_dict=False)
            for hint in (x.mask_hint, x.image_hint)
        ]
        down = [a + b for a, b in zip(both[0][0], both[1][0], strict=True)]
        output = nets.foundation.unet(
            z_t, x.t, encoder_hidden_states=x.cond.states, down_block_additional_residuals=down,
            mid_block_additional_residual=both[0][1] + both[1][1],
        ).sample  # fmt: skip
        theirs = (output - x.eps).square().mean()
        assert ours.keys() == {"L_mix"}
        assert float(ours["L_mix"]) == pytest.approx(float(theirs), rel=1e-9)
        wanted = grads(nets, theirs)
        assert found.keys() == wanted.keys()
        assert all(torch.allclose(found[name], wanted[name], atol=1e-9) for name in wanted)
        assert any(name.startswith("theta") for name in found)  # the decoder trains, as that of a ControlNet does

    def test_two_controlnets_of_the_stock_pipeline_paint_the_same(self, run: Path, data: Dataset) -> None:
        sampler = model.load(run).with_sampling(solver="ddim", sampling_steps=4, guidance=3.0)
        pair, net = Pairs(data, 32), HintedControlNet.from_pretrained(run / "final" / "controlnet")
        pipeline = StableDiffusionControlNetPipeline.from_pretrained(
            run / "final", controlnet=MultiControlNetModel([net, net]), safety_checker=None, feature_extractor=None
        )
        pipeline.set_progress_bar_config(disable=True)
        mask, image = pair.mask(1).astype(np.int64), pair.image(1)
        theirs = pipeline(
            "a photo of a polyp", image=[mask_hint(mask[None], 2), image_hint(image[None])], output_type="np",
            latents=normal([5], (4, 8, 8), "z_T"), height=32, width=32, num_inference_steps=4, guidance_scale=3.0,
            eta=0.0,
        ).images[0]  # fmt: skip
        ours = sampler.sample([Job("x", 5, mask, data[1])])[0].image
        assert np.abs(ours.astype(float) - 255 * theirs).max() < 1.0
        other = sampler.sample([Job("x", 5, mask, data[2])])[0].image
        assert not np.array_equal(ours, other)

    def test_the_image_is_mirrored_with_its_mask(self, data: Dataset) -> None:
        known = {digest(Pairs(data, 32).image(i)) for i in range(len(data))}
        plan, seen = plan_jobs(data, 4, "flip", seed=5, size=32), set()
        for job in plan:
            (image,) = source_images([job], 32, known)
            index = [record.id for record in data].index(job.id.rpartition("_")[0])
            down, across = job.params["flip"]
            seen.add((down, across))
            whole = np.concatenate([Pairs(data, 32).image(index), Pairs(data, 32).mask(index)[None]])
            turned = np.flip(whole, [axis for axis, on in ((1, down), (2, across)) if on])
            assert np.array_equal(image, turned[:3])
            assert np.array_equal(job.mask, turned[3])
        assert len(seen) == 3

    @pytest.mark.parametrize("transform", ["random", "scale", "rotate", "shift", "elastic", "all"])
    def test_other_transforms_are_refused(self, transform: str, run: Path, data: Dataset, tmp_path: Path) -> None:
        line = f"--mask-transform {transform}: .* cannot follow; give identity or flip"
        sampler = model.load(run)
        with pytest.raises(InputError, match=line):
            sampler.sample(list(plan_jobs(data, 1, transform, seed=1, size=32)))
        with pytest.raises(InputError, match=line):
            Sample(run_or_foundation=run, masks=data.root, out=tmp_path / "out", mask_transform=transform).run()
        with pytest.raises(InputError, match=line):
            GENERATORS["controlnet"].check_transform(sampler.config, transform)
        GENERATORS["controlnet"].check_transform(ControlNetConfig(), transform)
        GENERATORS["copy-paste"].check_transform(None, transform)
        assert not (tmp_path / "out").exists()

    def test_an_image_that_it_was_not_trained_on_is_refused(self, run: Path, tmp_path: Path) -> None:
        others = phantom_dataset(tmp_path / "others", "mucosa", 2, 32, seed=9)
        line = "is no image that the generator was trained on, and it would pass a near copy of it on; give --masks"
        with pytest.raises(InputError, match=line):
            model.load(run).sample(list(plan_jobs(others, 1, "identity", seed=1, size=32)))
        with pytest.raises(InputError, match=line):
            Sample(run_or_foundation=run, masks=others.root, out=tmp_path / "out").run()
        assert not (tmp_path / "out").exists()

    def test_loose_masks_are_refused(self, run: Path, data: Dataset, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="has no image, and the generator reads the real image beside its mask"):
            Sample(run_or_foundation=run, masks=data.root / "masks", out=tmp_path / "out").run()
        assert not (tmp_path / "out").exists()

    def test_sample_paints_the_training_masks(self, run: Path, data: Dataset, tmp_path: Path) -> None:
        made = Sample(run_or_foundation=run, masks=data.root, out=tmp_path / "out", mask_transform="flip").run()
        assert made["made"] == len(data)
        rows = [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
        assert {row["origin"]["near_copy_of"] for row in rows} == {row["source_mask"] for row in rows} == set(data.ids)

    def test_the_run_keeps_hashes_of_its_images_and_nothing_else(self, run: Path, data: Dataset) -> None:
        info = json.loads((run / "final" / "generator.json").read_text())
        assert info["sources"] == [digest(Pairs(data, 32).image(i)) for i in range(len(data))]

    def test_its_memory_is_counted_with_both_hints(self, foundation: Path) -> None:
        made, config = Foundation.load(foundation), quick(foundation)
        both, one = memory.need(made, config, 32), memory.need(made, replace(config, hint_input="mask"), 32)
        assert both.further > one.further

    def test_an_unknown_word_is_refused(self) -> None:
        with pytest.raises(InputError, match="--preset hint_input=image: choose mask or mask-image"):
            controlnet_config("tiny+hint_input=image")
        assert controlnet_config("sd15+mask-image").hint_input == "mask-image"


def test_the_image_helps_to_paint_it(foundation: Path, data: Dataset) -> None:
    """After a short training the noise is foretold better with an image's own hint than with another image's."""
    config = quick(foundation, lr=3e-3, symmetries=False, prompt="a photo of a polyp", prompt_drop=0.0)
    task = SiameseTask(*_of(foundation, data, config))
    optimiser = torch.optim.AdamW(task.phases()[0].parameters, lr=3e-3)
    for step in range(60):
        loss = task.loss(task.batch([Draw(k % 4, 100 * step + k) for k in range(8)]), Progress(step, 60))["L_mix"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    drawn = task.batch([Draw(k % 4, 10**6 + k) for k in range(32)])
    with torch.no_grad():
        right = float(task.loss(drawn, Progress(0, 60))["L_mix"])
        wrong = float(task.loss(drawn | {"image_hint": drawn["image_hint"].roll(1, 0)}, Progress(0, 60))["L_mix"])
    assert right < wrong


def _of(
    foundation: Path, data: Dataset, config: SiameseConfig
) -> tuple[Foundation, HintedControlNet, TrainingSet, SiameseConfig]:
    made = Foundation.load(foundation)
    return made, model.start(made, config), model._training_set(made, Pairs(data, 32), config), config
