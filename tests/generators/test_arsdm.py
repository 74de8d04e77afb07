"""ArSDM as a generator: SPADE layers, the adaptive loss, the refinement, presets, training, files, sampling."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from generators.base import GeneratorTester
from morphogen.data.pairs import Pairs
from morphogen.data.phantoms import phantom_dataset
from morphogen.data.records import Dataset
from morphogen.errors import InputError
from morphogen.foundation.halves import predict
from morphogen.foundation.model import Foundation
from morphogen.generators.arsdm import model, refiner
from morphogen.generators.arsdm.adaptive import EVEN, adaptive_weights, noise_loss
from morphogen.generators.arsdm.config import PRESETS, ArSDMConfig, arsdm_config
from morphogen.generators.arsdm.spade import Spade, class_maps, norms_of, shares
from morphogen.generators.arsdm.step import Inputs, Networks, Weights, step_losses
from morphogen.generators.arsdm.task import ArSDMTask
from morphogen.generators.arsdm.trained import made_networks, trained_modules
from morphogen.generators.mask_training import training_set
from morphogen.sampling.jobs import Job
from morphogen.training.task import Batch, Draw, Progress
from small_foundations import perturb, small_foundation, small_tiny, small_unet


@pytest.fixture(scope="module")
def foundation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("foundation") / "small"
    small_tiny().save(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return phantom_dataset(tmp_path_factory.mktemp("data"), "mucosa", 4, 32)


def quick(foundation: Path, **changes: object) -> ArSDMConfig:
    values = {
        "max_train_steps": 4, "train_batch_size": 4, "sampling_steps": 2, "spade_width": 4, "segmenter_steps": 1,
        "segmenter": "unet,encoder=scratch", **changes,
    }  # fmt: skip
    return ArSDMConfig(foundation=str(foundation), **values)  # type: ignore[arg-type]


def small_networks(kind: str = "tiny") -> Networks:
    made = small_tiny().to("cpu")
    if kind != "tiny":
        made.unet = small_unet(kind).eval().requires_grad_(False)
    return made_networks(made, 2, 4)


def inputs_of(nets: Networks, rows: int = 4) -> Inputs:
    generator = torch.Generator().manual_seed(0)
    z0, eps = torch.randn(2, rows, 4, 8, 8, generator=generator)
    mask = torch.zeros(rows, 32, 32, dtype=torch.long)
    mask[:, 8:20, 4:11] = 1
    t = torch.tensor([0, 299, 300, 900])[:rows]
    cond = nets.foundation.conditioning(["a photo of a polyp"] * rows)
    return Inputs(z0, eps, t, cond, mask, torch.zeros(rows, dtype=torch.bool), torch.arange(rows))


class Reader(nn.Module):
    """A segmenter of one map: the brightness of a pixel, against its darkness."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        grey = image.mean(dim=1, keepdim=True)
        return torch.cat([-grey, grey], dim=1)


class TestAsGenerator(GeneratorTester):
    name = "arsdm"

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def set_config(cls, foundation: Path) -> None:
        cls.config = quick(foundation, segmenter="sanet,size=14,weights=none", lr=1e-2)


class TestSpade:
    @pytest.mark.parametrize("kind", ["tiny", "sd"])
    def test_the_unet_begins_as_the_foundations(self, kind: str) -> None:
        nets = small_networks(kind)
        unet = small_tiny().to("cpu").unet if kind == "tiny" else small_unet(kind).eval()
        unet.load_state_dict(nets.foundation.unet.state_dict())
        x = inputs_of(nets)
        with torch.no_grad():
            ours = nets.predict(x.z0, x.t, x.cond, class_maps(x.mask, 2))
            assert torch.allclose(ours, predict(unet, x.z0, x.t, x.cond), atol=1e-6)

    def test_the_mask_acts_behind_the_encoder_alone(self) -> None:
        nets = small_networks()
        perturb(nets.spade, 0.3)
        x, seen = inputs_of(nets, 2), []
        nets.foundation.unet.mid_block.register_forward_pre_hook(
            lambda block, args, kwargs: seen.append(kwargs["hidden_states"].clone()), with_kwargs=True
        )
        with torch.no_grad():
            one = nets.predict(x.z0, x.t, x.cond, class_maps(x.mask, 2))
            two = nets.predict(x.z0, x.t, x.cond, class_maps(x.mask.flip(-1), 2))
        assert torch.equal(*seen)
        assert float((one - two).abs().max()) > 1e-3

    def test_every_residual_block_behind_the_encoder_has_two(self) -> None:
        unet = small_unet("sd")  # three levels of two blocks, and one more in each of the decoder's; two in the middle
        assert len(norms_of(unet)) == 2 * (2 + 3 * 3)
        hung = {id(norm) for norm in norms_of(unet).values()}
        assert not hung & {id(part) for block in unet.down_blocks for part in block.modules()}

    def test_scale_and_shift_against_loops(self) -> None:
        torch.manual_seed(0)
        layer, h = Spade(3, 2, 5), torch.randn(1, 3, 4, 4)
        perturb(layer, 0.5)
        maps = torch.rand(1, 2, 4, 4)
        ours, around = layer(h, maps), F.pad(maps[0], (1, 1, 1, 1))
        hidden = torch.zeros(5, 6, 6)
        for i in range(4):
            for j in range(4):
                window = around[:, i : i + 3, j : j + 3]
                hidden[:, i + 1, j + 1] = ((layer.shared.weight * window).sum((1, 2, 3)) + layer.shared.bias).relu()
        for i in range(4):
            for j in range(4):
                window = hidden[:, i : i + 3, j : j + 3]
                gamma = (layer.gamma.weight * window).sum((1, 2, 3)) + layer.gamma.bias
                beta = (layer.beta.weight * window).sum((1, 2, 3)) + layer.beta.bias
                assert torch.allclose(ours[0, :, i, j], h[0, :, i, j] * (1 + gamma) + beta, atol=1e-5)

    def test_maps_are_one_hot_and_their_shares_add_up(self) -> None:
        masks = torch.tensor([[[0, 1, 2, 2], [0, 0, 2, 2], [1, 1, 0, 0], [1, 1, 0, 1]]])
        maps = class_maps(masks, 3)
        assert torch.equal(maps.argmax(dim=1), masks)
        coarse = shares(maps, (2, 2))[0]
        assert coarse[:, 0, 0].tolist() == [0.75, 0.25, 0.0]
        assert coarse[:, 1, 1].tolist() == [0.75, 0.25, 0.0]
        assert torch.equal(coarse.sum(dim=0), torch.ones(2, 2))

    def test_checkpointed_gradients_are_the_same(self) -> None:
        nets, grads = small_networks(), []
        perturb(nets.spade, 0.3)
        trained_modules(nets, ArSDMConfig())
        for on in (False, True):
            nets.foundation.unet.checkpointing = nets.decoder.checkpointing = on
            step_losses(nets, inputs_of(nets), Weights())["L_noise"].backward()
            named = {**dict(nets.spade.named_parameters()), **dict(nets.foundation.unet.named_parameters())}
            grads.append({name: p.grad.clone() for name, p in named.items() if p.grad is not None})
            for parameter in named.values():
                parameter.grad = None
        assert grads[0].keys() == grads[1].keys()
        assert all(torch.allclose(value, grads[1][name], atol=1e-7) for name, value in grads[0].items())


class TestAdaptiveLoss:
    def test_against_loops(self) -> None:
        """W = (1 - r) M + r (1 - M), pixel by pixel, and the mean of W |eps - eps_theta|."""
        generator = torch.Generator().manual_seed(0)
        eps, predicted = torch.randn(2, 2, 3, 4, 5, generator=generator)
        lesion = (torch.rand(2, 1, 4, 5, generator=generator) > 0.7).float()
        total = 0.0
        for b in range(2):
            r = sum(float(v) for v in lesion[b].flatten()) / 20
            for c in range(3):
                for i in range(4):
                    for j in range(5):
                        weight = 1 - r if lesion[b, 0, i, j] == 1 else r
                        total += weight * abs(float(eps[b, c, i, j]) - float(predicted[b, c, i, j]))
        assert float(noise_loss(eps, predicted, lesion)) == pytest.approx(total / (2 * 3 * 4 * 5), rel=1e-5)
        plain = float((eps - predicted).abs().mean())
        assert float(noise_loss(eps, predicted, None)) == pytest.approx(plain)

    def test_lesion_and_background_weigh_the_same(self) -> None:
        lesion = torch.zeros(1, 1, 10, 10)
        lesion[..., :2, :5] = 1
        weights = adaptive_weights(lesion)
        assert float(weights[lesion == 1].sum()) == pytest.approx(float(weights[lesion == 0].sum()))
        assert float(weights[0, 0, 0, 0]) == pytest.approx(0.9)

    def test_a_cell_has_the_mean_weight_of_its_pixels(self) -> None:
        fine = (torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(1)) > 0.5).float()
        coarse = adaptive_weights(F.avg_pool2d(fine, 4))
        assert torch.allclose(coarse, F.avg_pool2d(adaptive_weights(fine), 4))

    @pytest.mark.parametrize("value", [0.0, 1.0])
    def test_a_mask_of_one_kind_is_weighed_evenly(self, value: float) -> None:
        assert torch.equal(adaptive_weights(torch.full((1, 1, 2, 2), value)), torch.full((1, 1, 2, 2), EVEN))


class TestRefinement:
    def test_against_the_equation(self) -> None:
        """w_r times the loss of D((z_t - sqrt(1 - abar) eps_theta) / sqrt(abar)), on the rows below T_r, over all."""
        nets, segmenter = small_networks(), Reader()
        x = replace(inputs_of(nets), dropped=torch.tensor([True, False, False, False]))
        with torch.no_grad():
            found = step_losses(nets, x, Weights(w_r=0.5, T_r=300), segmenter)["L_refine"]
            nets.spade.given(None)
            row = slice(1, 2)  # row 0 has no mask, rows 2 and 3 are above T_r
            abar = nets.foundation.scheduler.alphas_cumprod[x.t[row]].view(-1, 1, 1, 1)
            z_t = abar.sqrt() * x.z0[row] + (1 - abar).sqrt() * x.eps[row]
            eps = predict(nets.foundation.unet, z_t, x.t[row], x.cond.rows(row))
            image = nets.foundation.decode((z_t - (1 - abar).sqrt() * eps) / abar.sqrt())
            logits, mask = Reader()(image), x.mask[row]
            p, truth = logits.softmax(dim=1)[:, 1], (mask == 1).float()
            dice = 1 - (2 * (p * truth).sum() + 1) / (p.sum() + truth.sum() + 1)
        assert float(found) == pytest.approx(float(0.5 * (F.cross_entropy(logits, mask) + dice) / 4), rel=1e-4)

    def test_it_reaches_the_networks_and_leaves_the_segmenter(self, foundation: Path, data: Dataset) -> None:
        nets = small_networks()
        trained_modules(nets, ArSDMConfig())
        segmenter = nn.Sequential(nn.Conv2d(3, 2, 1)).requires_grad_(False)
        step_losses(nets, inputs_of(nets), Weights(w_r=1.0), segmenter)["L_refine"].backward()
        assert float(nets.decoder.conv_out.weight.grad.abs().max()) > 0
        assert float(nets.spade.layers["mid-0-norm1"].beta.bias.grad.abs().max()) > 0
        assert all(p.grad is None for p in (*segmenter.parameters(), *nets.foundation.vae.parameters()))

    def test_a_batch_without_clear_rows_has_none(self) -> None:
        nets = small_networks()
        x = inputs_of(nets)
        with torch.no_grad():
            found = step_losses(nets, replace(x, t=torch.full_like(x.t, 900)), Weights(w_r=1.0), Reader())
        assert float(found["L_refine"]) == 0

    def test_it_begins_late_in_the_run(self, foundation: Path, data: Dataset, tmp_path: Path) -> None:
        run = model.train(data, quick(foundation, max_train_steps=8, w_r=0.1, T_r=999), tmp_path / "run")
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows if "L_refine" in row] == [6, 7]

    def test_off_trains_no_segmenter(self, foundation: Path, data: Dataset, tmp_path: Path) -> None:
        run = model.train(data, quick(foundation, w_r=0.0), tmp_path / "run")
        assert not (run / refiner.FOLDER).exists()
        assert "L_refine" not in (run / "metrics.jsonl").read_text()

    def test_a_stopped_run_goes_on_with_its_segmenter(
        self, foundation: Path, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = quick(foundation, checkpointing_steps=2, refine_from=0.0, lr=1e-3)
        whole, loss = model.train(data, config, tmp_path / "whole"), ArSDMTask.loss

        def stopping(task: ArSDMTask, batch: Batch, progress: Progress) -> Mapping[str, torch.Tensor]:
            if progress.step == 3:
                raise KeyboardInterrupt
            return loss(task, batch, progress)

        monkeypatch.setattr(ArSDMTask, "loss", stopping)
        with pytest.raises(KeyboardInterrupt):
            model.train(data, config, tmp_path / "cut")
        monkeypatch.undo()
        made = (tmp_path / "cut" / refiner.FOLDER / "final" / "model.safetensors").stat().st_mtime_ns
        cut = model.train(data, config, tmp_path / "cut")
        assert (cut / refiner.FOLDER / "final" / "model.safetensors").stat().st_mtime_ns == made
        assert model.load(cut).hash == model.load(whole).hash
        assert (cut / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()


class TestPresets:
    def test_every_preset_builds(self) -> None:
        for name in PRESETS:
            arsdm_config(name)

    def test_the_published_recipe(self) -> None:
        c = arsdm_config("sd15")
        assert (c.resolution, c.train_batch_size, c.lr, c.ema_decay) == (384, 8, 8e-6, 0.9999)
        assert (c.solver, c.sampling_steps, c.guidance, c.condition_drop) == ("ddim", 200, 1.0, 0.0)
        assert (c.spade_width, c.max_grad_norm, c.tuning) == (128, 0.0, "full")

    @pytest.mark.parametrize(
        ("row", "adaptive", "refined"), [("base", 0, 0), ("adaptive", 1, 0), ("refine", 0, 1), ("tiny", 1, 1)]
    )
    def test_the_published_variants(self, row: str, adaptive: int, refined: int) -> None:
        c = arsdm_config(f"sd15+{row}")
        assert (c.adaptive, c.w_r > 0) == (bool(adaptive), bool(refined))
        assert c.resolution == 384

    def test_a_segmenters_options_stand_behind_commas(self) -> None:
        c = arsdm_config("tiny+segmenter=unet,encoder=scratch+w_r=0.5")
        assert (c.segmenter, c.w_r) == ("unet,encoder=scratch", 0.5)

    @pytest.mark.parametrize(
        ("words", "line"),
        [
            ("huge", "--preset huge: no such preset; choose from tiny"),
            ("segmenter=latent", "--preset segmenter=latent: choose sanet"),
            ("w_r=-1", "--preset w_r=-1.0: must be 0 or more"),
            ("w_r=nan", "--preset w_r=nan: must be 0 or more"),
            ("T_r=0", "--preset T_r=0: must be positive"),
            ("refine_from=1", "--preset refine_from=1.0: must lie in 0 to 1"),
            ("tuning=locked", "--tuning locked: choose full or decoder"),
            ("condition_drop=0", "--guidance 2.5: was never trained without its mask"),
            ("adapt_steps=-1", "--adapt-steps -1: is negative"),
        ],
    )
    def test_what_cannot_be_is_refused(self, words: str, line: str) -> None:
        with pytest.raises(InputError, match=line):
            arsdm_config(words)


class TestTraining:
    @pytest.mark.parametrize("tuning", ["full", "decoder"])
    def test_what_trains(self, tuning: str, foundation: Path, data: Dataset, tmp_path: Path) -> None:
        model.train(data, quick(foundation, tuning=tuning, w_r=0.0), tmp_path / "run")
        before, after = Foundation.load(foundation), Foundation.load(tmp_path / "run" / "final")
        old, new = before.unet.state_dict(), after.unet.state_dict()
        changed = {name.split(".")[0] for name in old if not torch.equal(old[name], new[name])}
        behind = {"mid_block", "up_blocks", "conv_norm_out", "conv_out"}
        assert changed == (behind if tuning == "decoder" else behind | {"conv_in", "down_blocks", "time_embedding"})
        assert all(torch.equal(v, after.vae.state_dict()[k]) for k, v in before.vae.state_dict().items())

    def test_a_row_holds_one_pair(self, foundation: Path, data: Dataset, tmp_path: Path) -> None:
        config = quick(foundation, condition_drop=0.25, prompt="a photo of a polyp", symmetries=False)
        made, pairs = Foundation.load(foundation), Pairs(data, 32)
        training = training_set(made, pairs, config, tmp_path)
        task = ArSDMTask(made_networks(made, 2, 4), None, training, config)
        drawn = task.batch([Draw(k % 4, 1000 + k) for k in range(400)])
        assert np.array_equal(drawn["mask"][:4].numpy(), pairs.masks(range(4)))
        assert int(drawn["dropped"].sum()) == pytest.approx(100, abs=30)
        assert [prompt == "" for prompt in drawn["prompts"]] == drawn["dropped"].tolist()
        mean = made.encode(torch.tensor(pairs.images([1]) / 127.5 - 1, dtype=torch.float32), [1001])
        assert torch.allclose(drawn["z0"][1:2], mean, atol=1e-4)
        assert task.weights(Progress(2, 4)) == Weights(True, 0.0, 300)
        assert task.weights(Progress(3, 4)) == Weights(True, config.w_r, 300)

    def test_dropped_rows_see_no_mask(self) -> None:
        nets = small_networks()
        perturb(nets.spade, 0.3)
        x = inputs_of(nets)
        gone = replace(x, dropped=torch.ones_like(x.dropped))
        with torch.no_grad():
            one, two = (
                step_losses(nets, replace(g, mask=m), Weights(adaptive=False))["L_noise"]
                for g, m in ((gone, x.mask), (gone, 1 - x.mask))
            )
            assert float(one) == float(two)
            assert float(step_losses(nets, x, Weights(adaptive=False))["L_noise"]) != float(one)

    def test_the_mask_is_learnt(self, foundation: Path, data: Dataset, tmp_path: Path) -> None:
        """The loss falls, and a masked image is another than one without."""
        config = quick(foundation, max_train_steps=40, lr=5e-3, w_r=0.0, condition_drop=0.0, guidance=1.0)
        run = model.train(data, config, tmp_path / "run")
        rows = [json.loads(line)["L_noise"] for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert np.mean(rows[-10:]) < 0.9 * np.mean(rows[:10])
        mask = np.zeros((32, 32), dtype=np.int64)
        other = mask.copy()
        other[8:24, 8:24] = 1
        a, b = model.load(run).sample([Job("x", 0, mask), Job("x", 0, other)])
        assert not np.array_equal(a.image, b.image)

    @pytest.mark.parametrize("kind", ["sd", "sdxl"])
    def test_a_foundation_of_another_family(self, kind: str, data: Dataset, tmp_path: Path) -> None:
        small_foundation(kind, tmp_path / "t", "v_prediction").save(tmp_path / "f")
        config = quick(tmp_path / "f", resolution=16, prompt="a photo of a polyp", max_train_steps=1, refine_from=0.0)
        sampler = model.load(model.train(data, config, tmp_path / "run"))
        assert sampler.sample([Job("x", 0, np.zeros((16, 16), dtype=np.int64))])[0].image.shape == (16, 16, 3)

    def test_three_classes(self, data: Dataset, foundation: Path, tmp_path: Path) -> None:
        three = replace(data, classes=("background", "a", "b"))
        run = model.train(three, quick(foundation, lr=1e-2), tmp_path / "run")
        sampler = model.load(run)
        assert sampler.classes == three.classes
        assert sampler.nets.spade.layers["mid-0-norm1"].shared.in_channels == 3

    @pytest.mark.parametrize(
        ("changes", "line"),
        [
            ({"segmenter": "sanet,size=9,weights=none"}, "sanet: has no size '9'"),
            ({"segmenter": "sanet,siz=14"}, "there is no option 'siz'; did you mean 'size'"),
            ({"segmenter": "sanet,size=50,weights=/nowhere"}, "/nowhere: no such weights"),
            ({"resolution": 30}, r"--resolution 30: is not a multiple of 4, .*; take 28"),
            ({"prompt": "a photo of a polip"}, "does not know 'polip'"),
            ({"max_train_steps": 0}, "--max-train-steps 0: must be positive"),
        ],
    )
    def test_what_cannot_train_leaves_no_run_behind(
        self, foundation: Path, data: Dataset, tmp_path: Path, changes: dict[str, object], line: str
    ) -> None:
        with pytest.raises(InputError, match=line):
            model.train(data, quick(foundation, **changes), tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_no_masks_is_refused(self, foundation: Path, data: Dataset, tmp_path: Path) -> None:
        bare = replace(data, records=tuple(replace(r, mask=None) for r in data))
        with pytest.raises(InputError, match="has no mask to learn from; add masks/"):
            model.train(bare, quick(foundation), tmp_path / "run")
        assert not (tmp_path / "run").exists()


class TestSampling:
    @pytest.fixture(scope="class")
    @classmethod
    def run(cls, foundation: Path, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return model.train(data, quick(foundation, lr=1e-2, w_r=0.0), tmp_path_factory.mktemp("arsdm") / "run")

    def test_files_are_safetensors_and_json(self, run: Path) -> None:
        kinds = {path.suffix for path in (run / "final").rglob("*") if path.is_file()}
        assert kinds <= {".safetensors", ".json", ".txt"}

    def test_loaded_layers_are_the_trained_ones(self, run: Path) -> None:
        sampler = model.load(run)
        assert float(sampler.nets.spade.layers["up-0-0-norm1"].gamma.weight.abs().max()) > 0
        mask = torch.zeros(1, 32, 32, dtype=torch.long)
        z, t = torch.randn(1, 4, 8, 8), torch.tensor([500])
        cond = sampler.nets.foundation.conditioning([""])
        with torch.no_grad():
            one = sampler.nets.predict(z, t, cond, class_maps(mask, 2))
            two = sampler.nets.predict(z, t, cond, class_maps(1 - mask, 2))
        assert not torch.allclose(one, two)

    def test_guidance_is_of_mask_and_text_against_neither(self, run: Path) -> None:
        sampler, mask = model.load(run), np.zeros((32, 32), dtype=np.int64)
        mask[8:24, 8:24] = 1
        calls, given = [], sampler.nets.spade.given

        def noted(maps: torch.Tensor) -> None:
            calls.append(maps)
            given(maps)

        sampler.nets.spade.given = noted  # type: ignore[method-assign]
        sampler.sample([Job("x", 0, mask)])
        assert calls[0].shape == (2, 2, 32, 32)
        assert float(calls[0][1].abs().max()) == 0
        calls.clear()
        sampler.with_sampling(guidance=1.0).sample([Job("x", 0, mask)])
        assert calls[0].shape == (1, 2, 32, 32)

    def test_a_job_without_mask_is_refused(self, run: Path) -> None:
        with pytest.raises(InputError, match="arsdm paints masks, and this sample has none; give --masks"):
            model.load(run).sample([Job("x", 0)])

    def test_a_damaged_folder_is_one_line(self, run: Path, tmp_path: Path) -> None:
        shutil.copytree(run, tmp_path / "r")
        (tmp_path / "r" / "final" / "spade.safetensors").write_bytes(b"{")
        with pytest.raises(InputError, match="is not a whole arsdm generator"):
            model.load(tmp_path / "r")
