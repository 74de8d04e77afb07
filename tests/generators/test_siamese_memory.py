"""What training Siamese-Diffusion takes: memory, the departures that save it, and the modules at their full size."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from torch.profiler import ProfilerActivity, profile

from morphogen.data.phantoms import phantom_dataset
from morphogen.errors import InputError
from morphogen.foundation.conditioning import Conditioning
from morphogen.foundation.halves import Features, encode
from morphogen.foundation.lora import merge_lora
from morphogen.foundation.model import Foundation
from morphogen.generators.siamese import memory, model
from morphogen.generators.siamese.config import SiameseConfig, siamese_config
from morphogen.generators.siamese.control import HintedControlNet
from morphogen.generators.siamese.memory import LADDER, fitted, need
from morphogen.generators.siamese.step import Inputs, Weights, step_losses
from morphogen.generators.siamese.trained import LORA_TARGETS, trained_networks
from morphogen.training.memory import GB, Need
from small_foundations import perturb, small_tiny

SD15_VAE = {
    "block_out_channels": (128, 256, 512, 512), "latent_channels": 4, "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def sd15() -> Foundation:
    """Stable Diffusion 1.5 by its published config, without weights."""
    small = small_tiny()
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8, sample_size=64)
        vae = AutoencoderKL(**SD15_VAE)
    return replace(small, unet=unet.requires_grad_(False), vae=vae, card={})


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("foundation") / "small"
    small_tiny().save(folder)
    return folder


def count(module: nn.Module, trained: bool = False) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trained)


class TestFullSize:
    """The same code at the width of Stable Diffusion 1.5; counts from the published architectures."""

    def shells(
        self, sd15: Foundation, **changes: object
    ) -> tuple[HintedControlNet, nn.ModuleDict, UNet2DConditionModel]:
        config = replace(siamese_config("sd15"), tuning="full", **changes)  # type: ignore[arg-type]
        with torch.device("meta"):
            unet = UNet2DConditionModel.from_config(sd15.unet.config).requires_grad_(False)
            shell = replace(sd15, unet=unet)
            controlnet = HintedControlNet.for_foundation(shell, config.hint, config.hint_width)
            return controlnet, trained_networks(shell, controlnet, config)[1], unet

    def test_parameters_of_every_part(self, sd15: Foundation) -> None:
        dense, modules, unet = self.shells(sd15)
        plain = self.shells(sd15, hint="plain")[0]
        assert count(unet) == 859_520_964
        assert count(dense.controlnet_cond_embedding) == 3_263_872
        assert count(plain.controlnet_cond_embedding) == 1_086_480
        assert count(plain) == 361_279_120  # of the published ControlNets for Stable Diffusion 1.5
        assert count(dense) == 361_279_120 - 1_086_480 + 3_263_872
        assert count(modules["decoder"]) == 510_808_004

    def test_what_trains(self, sd15: Foundation) -> None:
        _, modules, unet = self.shells(sd15)
        assert count(modules, trained=True) == count(modules) == 363_456_512 + 510_808_004
        trained = {name.split(".")[0] for name, p in unet.named_parameters() if p.requires_grad}
        assert trained == {"up_blocks", "conv_norm_out", "conv_out"}
        frozen = (unet.time_embedding, unet.conv_in, unet.down_blocks, unet.mid_block)
        assert not any(p.requires_grad for part in frozen for p in part.parameters())

    def test_shapes_at_384_px(self, sd15: Foundation) -> None:
        controlnet, modules, unet = self.shells(sd15)
        with torch.device("meta"):
            z, t = torch.empty(2, 4, 48, 48), torch.zeros(2, dtype=torch.long)
            cond = Conditioning(torch.empty(2, 77, 768))
            features: Features = encode(unet, z, t, cond)
            embedded = controlnet.embed(torch.empty(2, 3, 384, 384))
            c = controlnet.residuals(z, t, cond, embedded)
            eps = modules["decoder"](features, cond, c)
        assert embedded.shape == (2, 320, 48, 48)
        sides = [48] * 3 + [24] * 3 + [12] * 3 + [6] * 3
        widths = [320] * 4 + [640] * 3 + [1280] * 5
        assert [tuple(skip.shape) for skip in c.skips] == [
            (2, w, s, s) for w, s in zip(widths, sides, strict=True)
        ]  # twelve, and the middle one: thirteen zero-convolutions
        assert c.mid.shape == (2, 1280, 6, 6)
        assert eps.shape == z.shape

    def test_the_recipe_is_the_papers(self) -> None:
        c = siamese_config("sd15")
        assert (c.resolution, c.max_train_steps, c.train_batch_size) == (384, 3000, 48)
        assert (c.lr, c.weight_decay, c.prompt_drop, c.max_grad_norm) == (1e-5, 1e-2, 0.05, 0.0)
        assert (c.solver, c.sampling_steps, c.guidance, c.hint, c.init) == ("ddim", 50, 9.0, "dense", "zero")
        assert (c.w_c, c.T_tau, c.image_branch, c.online_augmentation) == (1.0, 200, True, True)
        assert (c.symmetries, c.ema_decay, c.adapt_steps) == (False, 0.0, 0)

    def test_cards_of_24_gb_run_it_and_those_of_16_do_not(
        self, sd15: Foundation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        states = Conditioning(torch.zeros(1, 77, 768))
        monkeypatch.setattr(Foundation, "conditioning", lambda *_: states)
        found = need(sd15, replace(siamese_config("sd15"), tuning="full", optimizer="adamw"), 384)
        trained = 363_456_512 + 510_808_004
        assert found.first > 4 * (859_520_964 + 363_456_512) + (4 + 8) * trained  # before any activation
        assert [found.rows(0.92 * gb * GB - 0.8 * GB) > 0 for gb in (16, 24, 80)] == [False, True, True]


class TestEstimate:
    @pytest.mark.parametrize("precision", ["no", "bf16"])
    @pytest.mark.parametrize("checkpointing", [False, True])
    def test_against_the_memory_that_a_step_takes(self, checkpointing: bool, precision: str) -> None:
        """Against torch's profiler, which notes every allocation of a real step."""
        foundation, rows = small_tiny(), 4
        config = SiameseConfig(hint_width=16, gradient_checkpointing=checkpointing, mixed_precision=precision)
        estimate = need(foundation, config, 64)
        controlnet = HintedControlNet.for_foundation(foundation, "dense", 16)
        nets, modules = trained_networks(foundation, controlnet, config)
        parts = (foundation.unet, controlnet)
        weights = sum(t.numel() * t.element_size() for m in parts for t in (*m.parameters(), *m.buffers()))
        there = weights + (8 + 4) * count(modules, trained=True)  # with AdamW's moments and the gradients
        z, hint = torch.randn(rows, 4, 16, 16), torch.rand(rows, 3, 64, 64)
        cond = Conditioning.cat([foundation.conditioning([""], 64)] * rows)
        x = Inputs(z, z, torch.zeros(rows, dtype=torch.long), cond, hint, hint)

        def step() -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=precision != "no"):
                late = Weights(0.5, augment=True, T_tau=1)  # every row is below it
                loss = torch.stack(list(step_losses(nets, x, late).values())).sum()
            loss.backward()

        for parameter in modules.parameters():
            parameter.grad = torch.zeros_like(parameter)
        step()
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
            step()
        assert found.profiler is not None
        events = [e for e in found.profiler.kineto_results.events() if e.name() == "[memory]"]
        now = peak = 0
        for event in sorted(events, key=lambda e: e.start_ns()):
            now += event.nbytes()
            peak = max(peak, now)
        assert estimate.first + (rows - 1) * estimate.further - there == pytest.approx(peak, rel=0.1)

    def test_moments_and_average_count(self) -> None:
        foundation, config = small_tiny(), SiameseConfig(hint_width=4)
        controlnet = HintedControlNet.for_foundation(foundation, "dense", 4)
        trained = count(trained_networks(foundation, controlnet, config)[1], trained=True)
        plain = need(foundation, config, 32).first
        assert need(foundation, replace(config, ema_decay=0.9), 32).first - plain == 4 * trained
        assert plain - need(foundation, replace(config, optimizer="adamw8bit"), 32).first == pytest.approx(
            5.97 * trained
        )

    def test_rows_that_fit(self) -> None:
        assert [Need(10, 2).rows(m) for m in (9, 10, 11.9, 12, 20)] == [0, 1, 1, 2, 6]


class TestDepartures:
    """`fitted` with needs that are given, so that the choice alone is tested."""

    @pytest.fixture(autouse=True)
    def set_needs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def given(_: Foundation, config: SiameseConfig, side: int) -> Need:
            first = {"full": 20.0, "locked": 12.0, "lora": 6.0}[config.tuning]
            return Need(first * GB * (0.75 if config.optimizer == "adamw8bit" else 1), GB)

        monkeypatch.setattr(memory, "need", given)
        self.gb = 24.0
        monkeypatch.setattr(memory, "usable_memory", lambda _: self.gb * GB)

    def config(self, **changes: object) -> SiameseConfig:
        return replace(siamese_config("sd15"), **changes)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("gb", "named", "parts"),
        [(80, "none", 1), (24, "none", 10), (16, "8-bit AdamW", 24), (12, "locked decoder", 48), (6, "LoRA", 48)],
    )
    def test_the_first_that_fits_is_taken_and_named(
        self, gb: float, named: str, parts: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.gb = gb
        fit = fitted(small_tiny(), self.config(), 384, tmp_path)
        found = fit.config
        assert list(tmp_path.iterdir()) == []
        fit.announce(tmp_path)
        (rung,) = (rung for rung in LADDER if rung.name == named)
        assert (found.tuning, found.optimizer) == (rung.changes["tuning"], rung.changes["optimizer"])
        assert found.gradient_accumulation_steps == parts
        said = capsys.readouterr()
        assert ("departure from the recipe" in said.out + said.err) == (named != "none")
        assert f"{48 // parts} rows at a time, {parts} times a step" in said.out + said.err or parts == 10
        assert json.loads((tmp_path / "memory.json").read_text())["departure"] == named

    def test_a_run_that_goes_on_elsewhere_stays_what_it_was(self, tmp_path: Path) -> None:
        self.gb = 16
        begun = fitted(small_tiny(), self.config(), 384, tmp_path)
        begun.announce(tmp_path)
        self.gb = 80
        first, again = begun.config, fitted(small_tiny(), self.config(), 384, tmp_path).config
        assert (again.optimizer, again.tuning) == (first.optimizer, first.tuning) == ("adamw8bit", "full")
        assert again.gradient_accumulation_steps < first.gradient_accumulation_steps

    def test_what_is_chosen_stays(self, tmp_path: Path) -> None:
        self.gb = 80
        found = fitted(small_tiny(), self.config(tuning="lora", optimizer="adamw"), 384, tmp_path).config
        assert (found.tuning, found.optimizer, found.gradient_accumulation_steps) == ("lora", "adamw", 1)

    def test_without_bitsandbytes_its_rungs_are_passed_over(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(memory, "find_spec", lambda _: None)
        self.gb = 16
        fit = fitted(small_tiny(), self.config(), 384, tmp_path)
        assert (fit.config.tuning, fit.config.optimizer) == ("locked", "adamw")
        assert fit.lines[0].startswith("8-bit AdamW: passed over, since bitsandbytes is not installed")

    def test_what_fits_nowhere_is_refused(self, tmp_path: Path) -> None:
        self.gb = 5
        with pytest.raises(InputError, match=r"at 384 px takes about 6\.0 GB, and this device has 5\.0; lower"):
            fitted(small_tiny(), self.config(), 384, tmp_path)

    def test_a_run_that_does_not_fit_leaves_no_folder(self, small: Path, tmp_path: Path) -> None:
        self.gb = 5
        data = phantom_dataset(tmp_path / "d", "mucosa", 2, 32)
        with pytest.raises(InputError, match="this device has 5"):
            model.train(data, self.config(foundation=str(small), resolution=32), tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_settings_that_leave_nothing_open_are_not_touched(self, tmp_path: Path) -> None:
        config = SiameseConfig()
        assert fitted(small_tiny(), config, 64, tmp_path).config is config
        assert list(tmp_path.iterdir()) == []


class TestLora:
    def networks(self, rank: int = 4) -> tuple[HintedControlNet, nn.ModuleDict, Foundation]:
        foundation = small_tiny()
        torch.manual_seed(3)
        controlnet = HintedControlNet.for_foundation(foundation, "dense", 4)
        config = SiameseConfig(tuning="lora", lora_rank=rank)
        return controlnet, trained_networks(foundation, controlnet, config)[1], foundation

    def test_low_rank_updates_hint_and_zero_convolutions_train_alone(self) -> None:
        controlnet, modules, _ = self.networks()
        named = {name for name, p in modules.named_parameters() if p.requires_grad}
        whole = ("controlnet_cond_embedding", "controlnet_down_blocks", "controlnet_mid_block")
        assert all("lora_" in name or name.startswith(tuple(f"controlnet.{part}" for part in whole)) for name in named)
        assert any(name.startswith("decoder.") for name in named)
        assert all(p.requires_grad for part in whole for p in getattr(controlnet, part).parameters())

    def test_every_target_is_found_and_of_the_rank(self) -> None:
        _, modules, _ = self.networks(rank=3)
        updates = {n: p for n, p in modules.named_parameters() if "lora_A" in n}
        assert {p.shape[0] for p in updates.values()} == {3}
        for target in LORA_TARGETS:
            assert any(f".{target}.lora_A" in name for name in updates), target

    def test_merging_keeps_the_function_and_leaves_plain_modules(self) -> None:
        controlnet, modules, foundation = self.networks()
        perturb(modules, 0.1)
        z, t = torch.randn(2, 4, 8, 8), torch.tensor([5, 700])
        cond = foundation.conditioning(["a photo of a polyp"] * 2)

        def run() -> torch.Tensor:
            c = controlnet.residuals(
                z, t, cond, controlnet.embed(torch.rand(2, 3, 32, 32, generator=torch.manual_seed(0)))
            )
            return modules["decoder"](encode(foundation.unet, z, t, cond), cond, c)

        with torch.no_grad():
            before = run()
            merge_lora(modules)
            assert torch.allclose(run(), before, atol=1e-4)
        stock = HintedControlNet.for_foundation(small_tiny(), "dense", 4)
        assert controlnet.state_dict().keys() == stock.state_dict().keys()
        assert foundation.unet.state_dict().keys() == small_tiny().unet.state_dict().keys()


class TestRuns:
    """Each departure through the whole of training, restarts and sampling included."""

    @pytest.mark.parametrize(
        "changes",
        [{"tuning": "lora", "lora_rank": 2}, {"optimizer": "adamw8bit"}, {"ema_decay": 0.5, "tuning": "lora"}],
    )
    def test_a_stopped_run_ends_like_an_undisturbed_one(
        self, changes: dict[str, object], small: Path, tmp_path: Path
    ) -> None:
        if "optimizer" in changes:
            pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
        data = phantom_dataset(tmp_path / "d", "mucosa", 4, 32)
        config = SiameseConfig(
            foundation=str(small), max_train_steps=6, train_batch_size=4, hint_width=4, checkpointing_steps=2,
            symmetries=False, sampling_steps=2, **changes,  # type: ignore[arg-type]
        )  # fmt: skip
        whole = model.train(data, config, tmp_path / "whole")

        class StopError(Exception): ...

        def stop(self: object, step: int, *_: object) -> None:
            if step == 4:
                raise StopError

        from morphogen.training import loop

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop._Run, "_log", stop)
            with pytest.raises(StopError):
                model.train(data, config, tmp_path / "parts")
        model.train(data, config, tmp_path / "parts")
        hashes = {model.load(run).hash for run in (whole, tmp_path / "parts")}
        assert len(hashes) == 1
        before, after = (Foundation.load(f).unet.state_dict() for f in (small, whole / "final"))
        assert before.keys() == after.keys()
        assert any(not torch.equal(before[name], after[name]) for name in before)

    def test_8_bit_adamw_keeps_to_adamw(self) -> None:
        pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
        from morphogen.training.optim import PhaseOptimizer
        from morphogen.training.task import Phase, Progress

        torch.manual_seed(0)
        start, target = torch.randn(96, 96), torch.randn(96, 96)
        ends = []
        for kind in ("adamw", "adamw8bit"):
            weight = nn.Parameter(start.clone())
            optimizer = PhaseOptimizer(Phase("p", [weight], lambda *_: {}, lr=0.05), kind)
            for k in range(60):
                weight.grad = (weight - target).detach()
                optimizer.step(Progress(k, 60), 0.0)
            ends.append(weight.detach())
        moved = (ends[0] - start).norm()
        assert (ends[1] - ends[0]).norm() < 0.05 * moved

    def test_parts_of_a_step_are_no_part_of_a_runs_identity(self, small: Path, tmp_path: Path) -> None:
        data = phantom_dataset(tmp_path / "d", "mucosa", 4, 32)
        config = SiameseConfig(
            foundation=str(small), max_train_steps=2, train_batch_size=4, hint_width=4, symmetries=False,
            gradient_accumulation_steps=0, tuning="auto", optimizer="auto",
        )  # fmt: skip
        run = model.train(data, config, tmp_path / "run")
        assert json.loads((run / "memory.json").read_text())["departure"] == "none"
        assert model.train(data, config, run) == run
        saved = json.loads((run / "final" / "generator.json").read_text())["config"]
        assert (saved["tuning"], saved["optimizer"], saved["gradient_accumulation_steps"]) == ("full", "adamw", 1)

    def test_half_precision_trains_in_channels_last_and_is_saved_plainly(self, small: Path, tmp_path: Path) -> None:
        data = phantom_dataset(tmp_path / "d", "mucosa", 4, 32)
        config = SiameseConfig(
            foundation=str(small), max_train_steps=2, train_batch_size=4, hint_width=4, symmetries=False,
            mixed_precision="bf16",
        )  # fmt: skip
        foundation = Foundation.load(small)
        controlnet, _ = trained_networks(foundation, model.start(foundation, config), config)
        for net in (foundation.unet, controlnet.controlnet):
            assert net.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
            assert net.conv_in.weight.dtype == torch.float32
        run = model.train(data, config, tmp_path / "run")
        assert model.load(run).nets.controlnet.conv_in.weight.is_contiguous()
