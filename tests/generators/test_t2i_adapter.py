"""T2I-Adapter: its network, where its features go, its timesteps, training, files, sampling."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionAdapterPipeline, T2IAdapter, UNet2DConditionModel
from torch import Tensor

from generators.base import GeneratorTester
from morphogen.data.pairs import Pairs
from morphogen.data.phantoms import phantom_dataset
from morphogen.data.records import Dataset
from morphogen.errors import InputError
from morphogen.foundation.conditioning import Conditioning
from morphogen.foundation.model import Foundation
from morphogen.generators.mask_training import training_set
from morphogen.generators.siamese.hint_images import mask_hint
from morphogen.generators.t2i_adapter import model
from morphogen.generators.t2i_adapter.adapter import Networks, adapter_for, cubic_timesteps, predict
from morphogen.generators.t2i_adapter.config import T2IAdapterConfig, t2i_adapter_config
from morphogen.generators.t2i_adapter.task import T2IAdapterTask
from morphogen.sampling.jobs import Job
from morphogen.training.rng import normal
from morphogen.training.task import Draw, Progress
from small_foundations import small_foundation, small_tiny, small_unet


@pytest.fixture(scope="module")
def foundation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("foundation") / "small"
    small_tiny().save(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return phantom_dataset(tmp_path_factory.mktemp("d") / "d", "mucosa", 4, 32)


def quick(foundation: Path, **changes: object) -> T2IAdapterConfig:
    values = {"max_train_steps": 2, "train_batch_size": 4, "sampling_steps": 2, **changes}
    return T2IAdapterConfig(foundation=str(foundation), **values)  # type: ignore[arg-type]


def task_of(foundation: Path, config: T2IAdapterConfig, data: Dataset) -> T2IAdapterTask:
    made = Foundation.load(foundation)
    torch.manual_seed(0)
    nets = Networks(made, adapter_for(made, config.blocks))
    return T2IAdapterTask(nets, training_set(made, Pairs(data, 32), config), config)


def family(kind: str, folder: Path) -> Foundation:
    return small_tiny().to("cpu") if kind == "tiny" else small_foundation(kind, folder)


class TestAsGenerator(GeneratorTester):
    name = "t2i-adapter"

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def set_config(cls, foundation: Path) -> None:
        cls.config = quick(foundation)


class TestAdapter:
    def test_at_stable_diffusion_it_is_the_published_one(self) -> None:
        """ "About 77 M parameters", four levels of 320, 640, 1280, 1280 channels (section 3.3)."""
        with torch.device("meta"):
            unet = UNet2DConditionModel(cross_attention_dim=768, sample_size=64)
            shell = replace(small_tiny(), unet=unet)
            shell.vae.register_to_config(block_out_channels=(128, 256, 512, 512))
            made = adapter_for(replace(shell), 2)
        assert made.config.adapter_type == "full_adapter"
        assert (list(made.config.channels), made.config.downscale_factor) == ([320, 640, 1280, 1280], 8)
        assert round(sum(p.numel() for p in made.parameters()) / 1e6) == 77
        with torch.device("meta"):
            features = made(torch.empty(1, 3, 512, 512))
        sizes = [(320, 64, 64), (640, 32, 32), (1280, 16, 16), (1280, 8, 8)]
        assert [tuple(feature.shape[1:]) for feature in features] == sizes

    @pytest.mark.parametrize("kind", ["tiny", "sd", "sdxl"])
    def test_features_are_added_where_diffusers_adds_them(self, kind: str, tmp_path: Path) -> None:
        """Block by block: after the last resnet and attention of a level, or after a level that has no attention."""
        made = family(kind, tmp_path)
        torch.manual_seed(1)
        adapter, unet = adapter_for(made, 2), made.unet
        z, t = torch.randn(2, 4, 8, 8), torch.tensor([5, 700])
        cond = made.conditioning(["a photo of a polyp", ""], 32)
        with torch.no_grad():
            features = adapter(torch.rand(2, 3, 32, 32))
            ours = predict(made, z, t, cond, features)
            again = predict(made, z, t, cond, features)
            literal = by_hand(unet, z, t, cond, features)
            without = unet(z, t, encoder_hidden_states=cond.states, added_cond_kwargs=cond.added).sample
        assert torch.equal(ours, again)  # the features are neither used up nor added to
        assert torch.allclose(ours, literal, atol=1e-5)
        assert float((ours - without).abs().max()) > 1e-3

    def test_every_feature_has_a_say(self, tmp_path: Path) -> None:
        made = family("sd", tmp_path)
        adapter = adapter_for(made, 1)
        z, t, cond = torch.randn(1, 4, 8, 8), torch.tensor([400]), made.conditioning([""], 32)
        features = [f.detach().requires_grad_(True) for f in adapter(torch.rand(1, 3, 32, 32))]
        predict(made, z, t, cond, features).square().sum().backward()
        assert all(f.grad is not None and float(f.grad.abs().max()) > 0 for f in features)

    def test_several_texts_on_one_latent(self) -> None:
        made = family("tiny", Path())
        features = adapter_for(made, 1)(torch.rand(2, 3, 32, 32))
        z, t = torch.randn(2, 4, 8, 8), torch.tensor([5, 700])
        texts = made.conditioning(["a photo of a polyp"] * 2), made.conditioning([""] * 2)
        with torch.no_grad():
            both = predict(made, z, t, Conditioning.cat(list(texts)), features)
            apart = [predict(made, z, t, text, features) for text in texts]
        assert torch.allclose(both, torch.cat(apart), atol=1e-5)

    def test_levels_that_no_adapter_fits_are_refused(self, tmp_path: Path) -> None:
        made = family("sd", tmp_path)
        made.unet = UNet2DConditionModel(
            sample_size=8, block_out_channels=(16, 32, 32), norm_num_groups=8, cross_attention_dim=16,
            attention_head_dim=2, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"),
        )  # fmt: skip
        with pytest.raises(InputError, match="the levels of its U-Net take the features of no T2I-Adapter"):
            adapter_for(made, 2)


def by_hand(unet: UNet2DConditionModel, z: Tensor, t: Tensor, cond: Conditioning, features: list[Tensor]) -> Tensor:
    """The U-Net from its layers, with the adapter's features by the rule of the paper's figure."""
    emb = unet.time_embedding(unet.time_proj(t))
    if cond.pooled is not None:
        ids = unet.add_time_proj(cond.time_ids.flatten()).reshape(len(z), -1)
        emb = emb + unet.add_embedding(torch.cat([cond.pooled, ids], dim=-1))
    left, x = list(features), unet.conv_in(z)
    skips = [x]
    for block in unet.down_blocks:
        attends = getattr(block, "has_cross_attention", False)
        for k, resnet in enumerate(block.resnets):
            x = resnet(x, emb)
            if attends:
                x = block.attentions[k](x, encoder_hidden_states=cond.states).sample
                x = x + left.pop(0) if k == len(block.resnets) - 1 else x
            skips.append(x)
        for halve in block.downsamplers or ():
            x = halve(x)
            skips.append(x)
        if not attends:
            x = x + left.pop(0)
            skips[-1] = x  # diffusers adds in place, so that the decoder sees it too
    x = unet.mid_block(x, emb, encoder_hidden_states=cond.states)
    x = x + left.pop(0) if left else x
    for block in unet.up_blocks:
        for k, resnet in enumerate(block.resnets):
            x = resnet(torch.cat([x, skips.pop()], dim=1), emb)
            if getattr(block, "has_cross_attention", False):
                x = block.attentions[k](x, encoder_hidden_states=cond.states).sample
        for double in block.upsamplers or ():
            x = double(x)
    assert not left
    return unet.conv_out(unet.conv_act(unet.conv_norm_out(x)))


class TestTimesteps:
    def test_the_distribution_in_closed_form(self) -> None:
        """P(t < k) = P(u > (1 - k/T)^(1/3)) = 1 - (1 - k/T)^(1/3)."""
        n, T = 1_000_000, 1000
        t = cubic_timesteps((torch.arange(n, dtype=torch.float64) + 0.5) / n, T)
        for k in (1, 100, 500, 875, 990):
            assert float((t < k).double().mean()) == pytest.approx(1 - (1 - k / T) ** (1 / 3), abs=2e-6)
        assert float((t >= 875).double().mean()) == pytest.approx(0.5, abs=2e-6)

    def test_they_stay_in_range(self) -> None:
        t = cubic_timesteps(torch.tensor([0.0, 1e-9, 0.5, 1 - 2**-24]), 1000)
        assert t.tolist() == [999, 999, 875, 0]
        assert t.dtype == torch.int64

    @pytest.mark.parametrize("way", ["cubic", "uniform"])
    def test_training_draws_them(self, way: str, foundation: Path, data: Dataset) -> None:
        task = task_of(foundation, quick(foundation, timesteps=way, symmetries=False), data)
        t = task.batch([Draw(k % 4, 1000 + k) for k in range(600)])["t"]
        assert float((t >= 875).double().mean()) == pytest.approx(0.5 if way == "cubic" else 0.125, abs=0.07)


class TestTraining:
    @pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
    def test_the_loss_is_the_plain_error(self, prediction: str, data: Dataset, tmp_path: Path) -> None:
        small_foundation("sd", tmp_path / "t", prediction).save(tmp_path / "f")
        config = quick(tmp_path / "f", symmetries=False, prompt="a photo of a polyp", prompt_drop=0.5)
        task = task_of(tmp_path / "f", config, data)
        drawn, total = task.batch([Draw(k, k) for k in range(4)]), 0.0
        f, abar = task.foundation, task.foundation.scheduler.alphas_cumprod
        assert "" in drawn["prompts"]
        with torch.no_grad():
            loss = float(task.loss(drawn, Progress(0, 9))["L_AD"])
            for k in range(4):
                z0, eps, a = drawn["z0"][k], drawn["eps"][k], abar[drawn["t"][k]]
                z_t = a.sqrt() * z0 + (1 - a).sqrt() * eps
                output = f.unet(
                    z_t[None], drawn["t"][k], f.conditioning([drawn["prompts"][k]], 32).states,
                    down_intrablock_additional_residuals=task.nets.adapter(drawn["mask_hint"][k : k + 1]),
                ).sample[0]  # fmt: skip
                wanted = eps if prediction == "epsilon" else a.sqrt() * eps - (1 - a).sqrt() * z0
                total += float((output - wanted).square().mean()) / 4
        assert loss == pytest.approx(total, rel=1e-5)

    def test_the_adapter_trains_and_nothing_else(self, foundation: Path, data: Dataset, tmp_path: Path) -> None:
        run = model.train(data, quick(foundation), tmp_path / "run")
        before, after = Foundation.load(foundation), Foundation.load(run / "final")
        for old, new in zip(before.modules, after.modules, strict=True):
            assert all(torch.equal(value, new.state_dict()[name]) for name, value in old.state_dict().items())
        longer = model.train(data, quick(foundation, max_train_steps=3), tmp_path / "longer")
        one, two = (T2IAdapter.from_pretrained(r / "final" / "adapter").state_dict() for r in (run, longer))
        assert all(not torch.equal(value, two[name]) for name, value in one.items())

    def test_checkpointing_changes_nothing_but_what_is_kept(self, foundation: Path, data: Dataset) -> None:
        found, kept = [], [0, 0]
        for on in (0, 1):
            config = quick(foundation, symmetries=False, gradient_checkpointing=bool(on))
            task = task_of(foundation, config, data)
            drawn = task.batch([Draw(k, k) for k in range(4)])

            def count(tensor: Tensor, on: int = on) -> Tensor:
                kept[on] += tensor.numel() if tensor.grad_fn is not None else 0
                return tensor

            with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
                loss = task.loss(drawn, Progress(0, 9))["L_AD"]
            loss.backward()
            found.append([p.grad for p in task.nets.adapter.parameters()])
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*found, strict=True))
        assert kept[1] < 0.7 * kept[0]

    @pytest.mark.slow
    def test_it_learns_to_heed_the_mask(self, tmp_path: Path) -> None:
        """On a foundation that knows images: the loss of unseen pairs grows where their masks are exchanged."""
        seen, unseen = (phantom_dataset(tmp_path / str(k), "mucosa", 12, 64, seed=k) for k in (3, 30))
        config = T2IAdapterConfig(symmetries=False, prompt="a photo of a polyp", prompt_drop=0.0, blocks=1)
        made = Foundation.load("tiny")
        torch.manual_seed(0)
        nets = Networks(made, adapter_for(made, config.blocks))
        task, other = (T2IAdapterTask(nets, training_set(made, Pairs(d, 64), config), config) for d in (seen, unseen))
        drawn = other.batch([Draw(k % 12, 10**6 + k) for k in range(24)])

        def gap() -> float:
            right, wrong = drawn, drawn | {"mask_hint": drawn["mask_hint"].roll(1, 0)}
            with torch.no_grad():
                errors = [float(other.loss(one, Progress(0, 9))["L_AD"]) for one in (right, wrong)]
            return errors[1] - errors[0]

        before = abs(gap())
        optimiser = torch.optim.AdamW(task.phases()[0].parameters, lr=config.lr)
        for step in range(16):
            loss = task.loss(task.batch([Draw(k, 100 * step + k) for k in range(12)]), Progress(step, 16))["L_AD"]
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        assert gap() > 2 * before

    @pytest.mark.parametrize(
        ("changes", "line"),
        [
            ({"adapt_steps": -3}, "--adapt-steps -3: is negative"),
            ({"timesteps": "late"}, "--timesteps late: choose cubic or uniform"),
            ({"blocks": 0}, "--preset blocks=0: must be positive"),
            ({"resolution": 30}, r"--resolution 30: is not a multiple of 4, .*; take 28"),
            ({"resolution": 28}, r"--resolution 28: is not a multiple of 8, the factor of the adapter; take 24"),
            ({"prompt": "a photo of a polip"}, "does not know 'polip'"),
        ],
    )
    def test_what_cannot_train_leaves_no_run_behind(
        self, foundation: Path, data: Dataset, tmp_path: Path, changes: dict[str, object], line: str
    ) -> None:
        with pytest.raises(InputError, match=line):
            model.train(data, quick(foundation, **changes), tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_data_and_foundations_that_do_not_serve_are_refused(
        self, foundation: Path, data: Dataset, tmp_path: Path
    ) -> None:
        bare = replace(data, records=tuple(replace(r, mask=None) for r in data))
        with pytest.raises(InputError, match="has no mask to learn from; add masks/"):
            model.train(bare, quick(foundation), tmp_path / "run")
        made = small_foundation("sd", tmp_path / "t")
        made.unet = small_unet("sd", in_channels=9)
        made.save(tmp_path / "f")
        with pytest.raises(InputError, match="reads 9 channels"):
            model.train(data, quick(tmp_path / "f"), tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_another_run_in_the_folder_is_refused(self, foundation: Path, data: Dataset, tmp_path: Path) -> None:
        run = model.train(data, quick(foundation), tmp_path / "run")
        assert model.train(data, quick(foundation), run) == run
        with pytest.raises(InputError, match=r"holds a run with other settings \(blocks: 2 there, 1 asked\)"):
            model.train(data, quick(foundation, blocks=1), run)


class TestSampling:
    @pytest.fixture(scope="class")
    @classmethod
    def run(cls, foundation: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("adapter")
        data = phantom_dataset(folder / "d", "mucosa", 4, 32)
        config = quick(foundation, lr=1e-2, prompt="a photo of a polyp")
        return model.train(data, config, folder / "run")

    @pytest.mark.parametrize("kind", ["tiny", "sd", "sdxl"])
    def test_the_stock_pipeline_loads_the_folder_and_paints_the_same(
        self, kind: str, data: Dataset, tmp_path: Path
    ) -> None:
        family(kind, tmp_path / "t").save(tmp_path / "f")
        run = model.train(data, quick(tmp_path / "f", lr=1e-2, prompt="a photo of a polyp"), tmp_path / "run")
        sampler = model.load(run).with_sampling(solver="ddim", sampling_steps=4, guidance=3.0)
        given = {} if kind == "sdxl" else {"safety_checker": None, "feature_extractor": None}
        pipeline = DiffusionPipeline.from_pretrained(run / "final", **given)
        assert isinstance(pipeline, StableDiffusionAdapterPipeline) == (kind != "sdxl")
        assert type(pipeline).__name__ == f"StableDiffusion{'XL' * (kind == 'sdxl')}AdapterPipeline"
        pipeline.set_progress_bar_config(disable=True)
        mask = np.zeros((32, 32), dtype=np.int64)
        mask[8:24, 8:24] = 1
        theirs = pipeline(
            "a photo of a polyp", image=mask_hint(mask[None], 2), latents=normal([5], (4, 8, 8), "z_T"), height=32,
            width=32, num_inference_steps=4, guidance_scale=3.0, eta=0.0, output_type="np",
        ).images[0]  # fmt: skip
        ours = sampler.sample([Job("x", 5, mask)])[0].image
        assert np.abs(ours.astype(float) - 255 * theirs).max() < 1.0

    def test_the_adapter_runs_once_for_all_steps(self, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        sampler, calls, real = model.load(run).with_sampling(sampling_steps=5), [], T2IAdapter.forward

        def counted(self: T2IAdapter, x: Tensor) -> list[Tensor]:
            calls.append(len(x))
            return real(self, x)  # type: ignore[no-any-return]

        monkeypatch.setattr(T2IAdapter, "forward", counted)
        sampler.sample([Job(str(k), k, np.zeros((32, 32), dtype=np.int64)) for k in range(3)])
        assert calls == [3]

    def test_the_mask_changes_the_image(self, run: Path) -> None:
        mask = np.zeros((32, 32), dtype=np.int64)
        other = mask.copy()
        other[8:24, 8:24] = 1
        a, b = model.load(run).sample([Job("x", 0, mask), Job("x", 0, other)])
        assert not np.array_equal(a.image, b.image)
        assert a.origin == {"steps": 2, "solver": "dpm", "guidance": 2.5, "prompt": "a photo of a polyp"}

    def test_a_job_without_mask_is_refused(self, run: Path) -> None:
        with pytest.raises(InputError, match="t2i-adapter paints masks, and this sample has none; give --masks"):
            model.load(run).sample([Job("x", 0)])

    @pytest.mark.parametrize("part", ["config.json", "diffusion_pytorch_model.safetensors"])
    def test_a_damaged_folder_is_one_line(self, run: Path, tmp_path: Path, part: str) -> None:
        shutil.copytree(run, tmp_path / "r")
        (tmp_path / "r" / "final" / "adapter" / part).write_text("{")
        with pytest.raises(InputError, match="is not a whole t2i-adapter generator"):
            model.load(tmp_path / "r")

    def test_files_are_safetensors_and_json(self, run: Path) -> None:
        kinds = {path.suffix for path in (run / "final").rglob("*") if path.is_file()}
        assert kinds <= {".safetensors", ".json", ".txt"}
        assert json.loads((run / "final" / "generator.json").read_text())["generator"] == "t2i-adapter"
        assert [p.name for p in (run / "previews").iterdir()] == ["step-000002.png"]


class TestPresets:
    def test_the_recipe_of_the_tables(self) -> None:
        c = t2i_adapter_config("sd15")
        assert (c.foundation, c.resolution, c.max_train_steps, c.train_batch_size) == ("sd15", 384, 3000, 48)
        assert (c.lr, c.weight_decay, c.prompt_drop, c.max_grad_norm) == (1e-5, 1e-2, 0.05, 0.0)
        assert (c.solver, c.sampling_steps, c.guidance, c.timesteps, c.blocks) == ("ddim", 50, 9.0, "cubic", 2)
        assert not c.symmetries

    def test_words_and_folders(self, tmp_path: Path) -> None:
        assert t2i_adapter_config() == T2IAdapterConfig()
        assert t2i_adapter_config(str(tmp_path)) == T2IAdapterConfig(foundation=str(tmp_path))
        joined = t2i_adapter_config(f"sd15+{tmp_path}+timesteps=uniform+lr=1e-4")
        assert (joined.foundation, joined.timesteps, joined.lr, joined.resolution) == (
            str(tmp_path),
            "uniform",
            1e-4,
            384,
        )

    def test_an_unknown_preset_is_refused(self) -> None:
        with pytest.raises(InputError, match="--preset huge: no such preset; choose from tiny, sd15"):
            t2i_adapter_config("huge")
