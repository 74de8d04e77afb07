"""SinGAN-Seg: a GAN pyramid for each image, its equations against literal versions, and the shared generator tests."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generators.base import GeneratorTester
from morphogen.cli import main
from morphogen.data.phantoms import phantom_dataset
from morphogen.data.readers import read_dataset
from morphogen.data.records import Dataset
from morphogen.errors import InputError
from morphogen.generators.singan_seg.config import SinganConfig, singan_config
from morphogen.generators.singan_seg.losses import (
    amplitude,
    discriminator_losses,
    generator_losses,
    gradient_penalty,
)
from morphogen.generators.singan_seg.model import check, chosen, load, refuse_classes, train
from morphogen.generators.singan_seg.networks import Discriminator, Generator
from morphogen.generators.singan_seg.pyramid import Scale, climb, drawn_noise, fixed_noise, resized, sides, width
from morphogen.generators.singan_seg.sampler import SinganSampler
from morphogen.generators.singan_seg.task import ScaleTask
from morphogen.sampling.jobs import Job, Sampler
from morphogen.study.arms import Variant
from morphogen.study.recipe import StudyConfig
from morphogen.study.run import freeze, prepare
from morphogen.study.synthesis import generator_config, synthetic_pairs
from morphogen.training.optim import learning_rate
from morphogen.training.task import Batch, Draw, Progress

QUICK = SinganConfig(resolution=32, max_images=2, max_train_steps=2)


def labelled(folder: Path, n: int = 6, every: int = 6) -> Dataset:
    """n phantoms, two a subject; every so-many-th one is a melanoma and the others are nevi."""
    phantom_dataset(folder, "skin", n, 32, seed=1, subjects=n)
    ids = read_dataset(folder).ids
    rows = [f"{id_},s{k // 2},{'nevus' if (k + 1) % every else 'melanoma'}" for k, id_ in enumerate(ids)]
    (folder / "records.csv").write_text("\n".join(["id,subject,class", *rows]) + "\n")
    return read_dataset(folder)


def content(run: Path) -> dict[str, bytes]:
    """Everything in a run folder."""
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}


class TestAsGenerator(GeneratorTester):
    name = "singan-seg"
    config = QUICK
    grey_levels = 0

    @pytest.fixture(scope="class")
    @classmethod
    def data(cls, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
        return labelled(tmp_path_factory.mktemp("data"))

    def test_its_captions_are_its_models_with_the_classes_of_their_images(self, sampler: Sampler) -> None:
        captions = cast(SinganSampler, sampler).captions
        assert Counter(caption.label for caption in captions) == {"nevus": 1, "melanoma": 1}
        assert len({caption.text for caption in captions}) == 2

    def test_a_job_names_the_image_that_it_is_like(self, sampler: Sampler) -> None:
        prompts = [caption.text for caption in cast(SinganSampler, sampler).captions]
        one, two = sampler.sample([Job("a", 7, prompt=prompt) for prompt in prompts])
        assert (one.origin["model"], two.origin["model"]) == (0, 1)
        assert not np.array_equal(one.image, two.image)

    def test_the_mask_is_the_fourth_channel_above_a_half(self, sampler: Sampler) -> None:
        singan = cast(SinganSampler, sampler)
        job = Job("a", 5, prompt=singan.captions[0].text)
        (pair,) = singan.sample([job])
        made = singan._made(singan._model(0), 5)
        assert pair.mask is not None
        assert np.array_equal(pair.mask, (made[3] > 0).long().numpy())
        assert pair.origin["area"] == pytest.approx(pair.mask.mean(), abs=1e-6)
        assert np.array_equal(pair.image, (127.5 * (made[:3].clamp(-1, 1) + 1)).round().byte().permute(1, 2, 0).numpy())

    def test_noise_begins_at_the_start_scale(self, sampler: Sampler) -> None:
        singan = cast(SinganSampler, sampler)
        model, seen = singan._model(0), []
        z_rec = fixed_noise(model.z_star, singan.config.sides)
        rebuilt = climb(model.scales, z_rec)[0]
        for start in range(3):
            other = singan.with_sampling(start_scale=start)
            noise = [*z_rec[:start], *drawn_noise([3], singan.config.sides)[start:]]
            assert torch.equal(other._made(model, 3), climb(model.scales, noise)[0])
            seen.append(float((other._made(model, 3) - rebuilt).abs().mean()))
            assert (other.hash == singan.hash) == (start == 0)
        assert seen[0] > seen[2] > 0
        with pytest.raises(InputError, match=r"start_scale=3: the finest scale is 2; give 0 to 2"):
            singan.with_sampling(start_scale=3)

    def test_other_words_are_refused(self, sampler: Sampler) -> None:
        for prompt in (None, "a large polyp"):
            with pytest.raises(InputError, match=r"^a: .* names no training image; .* leave --prompts out"):
                sampler.sample([Job("a", 0, prompt=prompt)])

    def test_training_again_changes_nothing(self, run: Path, data: Dataset) -> None:
        before = content(run)
        train(data, self.config, run)
        assert content(run) == before
        with pytest.raises(InputError, match="other settings"):
            train(data, replace(self.config, seed=1), run)

    def test_a_run_that_was_stopped_in_its_clean_up_goes_on_with_it(self, run: Path, data: Dataset) -> None:
        before, left = content(run), run / "models" / "0001" / "scale-2" / "final"
        shutil.copytree(run / "final", left)
        train(data, self.config, run)
        assert not left.exists()
        assert content(run) == before

    def test_weights_are_kept_once(self, run: Path) -> None:
        assert {path.parent for path in run.rglob("*.safetensors")} == {run / "final"}
        assert len(list(run.rglob("metrics.jsonl"))) == 2 * 3

    def test_a_damaged_model_is_refused(self, run: Path, tmp_path: Path) -> None:
        (tmp_path / "final").mkdir()
        for path in (run / "final").iterdir():
            (tmp_path / "final" / path.name).write_bytes(path.read_bytes().replace(b"z_star", b"z_stir"))
        sampler = load(tmp_path)
        with pytest.raises(InputError, match=r"model-0000.safetensors: is damaged"):
            sampler.sample([Job("a", 0, prompt=sampler.captions[0].text)])
        (tmp_path / "final" / "model-0001.safetensors").unlink()
        with pytest.raises(InputError, match=r"model-0001.safetensors: is missing"):
            load(tmp_path)

    def test_sample_makes_pairs_by_class(self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        words = ["sample", str(run), "--out", str(tmp_path / "out"), "--n", "4", "--preset", "start_scale=1"]
        assert main(words) == 0
        assert Counter(record.label for record in read_dataset(tmp_path / "out")) == {"nevus": 2, "melanoma": 2}
        (tmp_path / "words.txt").write_text("a large polyp\n")
        words = ["sample", str(run), "--out", str(tmp_path / "other"), "--prompts", str(tmp_path / "words.txt")]
        assert main(words) == 2
        assert "names no training image" in capsys.readouterr().err
        assert not (tmp_path / "other").exists()


class TestPyramid:
    @pytest.mark.parametrize(
        ("resolution", "wanted"),
        [(25, (25, 25)), (32, (25, 29, 32)), (64, (25, 31, 37, 44, 54, 64)), (250, (25, 32, 40, 50, 63, 80, 100))],
    )
    def test_sides(self, resolution: int, wanted: tuple[int, ...]) -> None:
        found = sides(resolution, 0.75, 25)
        assert found[: len(wanted)] == wanted
        assert (found[0], found[-1]) == (25, resolution)
        steps, side = 0, float(resolution)  # N: as many reductions as it takes to fall to 25 px, and one more
        while side > 25:
            steps, side = steps + 1, side * 0.75
        assert len(found) == steps + 2

    def test_width(self) -> None:
        assert [width(n) for n in range(10)] == [32] * 4 + [64] * 4 + [128] * 2
        assert width(20) == 128

    def test_noise(self) -> None:
        drawn = drawn_noise([1, 2], (5, 7))
        assert [tuple(z.shape) for z in drawn] == [(2, 4, 5, 5), (2, 4, 7, 7)]
        assert torch.equal(drawn[0][:, 0], drawn[0][:, 3])
        assert not torch.equal(drawn[1][:, 0], drawn[1][:, 3])
        assert torch.equal(drawn_noise([2], (5, 7))[1], drawn[1][1:])
        z_star = torch.randn(1, 1, 5, 5)
        fixed = fixed_noise(z_star, (5, 7))
        assert torch.equal(fixed[0], torch.cat([z_star] * 4, dim=1))
        assert fixed[1].shape == (1, 4, 7, 7)
        assert not fixed[1].any()

    def test_climb(self) -> None:
        scales = [Scale(Generator(32).eval(), 1.0), Scale(Generator(32).eval(), 0.3)]
        z = drawn_noise([4], (11, 13))
        with torch.no_grad():
            first = scales[0].generator(z[0], torch.zeros(1, 4, 11, 11))
            second = scales[1].generator(0.3 * z[1], resized(first, 13))
            assert torch.equal(climb(scales, z), second)
            assert torch.equal(climb(scales[:1], z[:1]), first)


class TestNetworks:
    def test_a_score_sees_eleven_pixels(self) -> None:
        x = torch.randn(1, 4, 21, 21, requires_grad=True)
        scores = Discriminator(32).eval()(x)
        assert scores.shape == (1, 1, 11, 11)
        scores[0, 0, 5, 5].backward()
        assert x.grad is not None
        seen = x.grad[0].abs().sum(dim=0) > 0
        wanted = torch.zeros(21, 21, dtype=torch.bool)
        wanted[5:16, 5:16] = True
        assert torch.equal(seen, wanted)

    def test_the_generator_against_its_layers_one_by_one(self) -> None:
        torch.manual_seed(0)
        generator = Generator(8).eval()
        z, x = torch.randn(1, 4, 12, 12), torch.randn(1, 4, 12, 12)
        h = F.pad(z + x, (5, 5, 5, 5))
        layers = list(generator.net)
        for i in range(0, 12, 3):
            conv, norm = cast(nn.Conv2d, layers[i]), cast(nn.BatchNorm2d, layers[i + 1])
            h = F.conv2d(h, conv.weight, conv.bias)
            h = h / (1 + norm.eps) ** 0.5 * norm.weight[:, None, None] + norm.bias[:, None, None]
            h = torch.maximum(h, 0.2 * h)
        last = cast(nn.Conv2d, layers[12])
        wanted = x + torch.tanh(F.conv2d(h, last.weight, last.bias))
        torch.testing.assert_close(generator(z, x), wanted, rtol=1e-5, atol=1e-6)


class TestLosses:
    def test_penalty_of_a_linear_critic(self) -> None:
        critic = nn.Conv2d(4, 1, 1)
        real, fake, epsilon = torch.randn(1, 4, 5, 5), torch.randn(2, 4, 5, 5), torch.tensor([0.2, 0.7])
        norm = float(critic.weight.detach().square().sum().sqrt())
        assert float(gradient_penalty(critic, real, fake, epsilon).detach()) == pytest.approx((norm - 1) ** 2, rel=1e-5)

    def test_penalty_against_differences(self) -> None:
        torch.manual_seed(0)
        critic = nn.Sequential(nn.Conv2d(4, 3, 3), nn.Tanh(), nn.Conv2d(3, 1, 1)).double()
        real, fake = (torch.randn(1, 4, 4, 4, dtype=torch.float64) for _ in range(2))
        mixed = 0.3 * real + 0.7 * fake
        gradient = np.zeros(mixed.shape)
        with torch.no_grad():
            for at in np.ndindex(*mixed.shape):
                step = torch.zeros_like(mixed)
                step[at] = 1e-5
                gradient[at] = float(critic(mixed + step).sum() - critic(mixed - step).sum()) / 2e-5
        wanted = ((np.sqrt((gradient**2).sum(axis=1)) - 1) ** 2).mean()
        found = gradient_penalty(critic, real, fake, torch.tensor([0.3]))
        assert float(found.detach()) == pytest.approx(wanted, rel=1e-6)
        found.backward()
        weight = critic[0].weight
        assert isinstance(weight, Tensor)
        assert weight.grad is not None
        assert weight.grad.abs().sum() > 0

    def test_sums(self) -> None:
        critic = nn.Identity()
        real, fake = torch.full((1, 4, 2, 2), 3.0), torch.full((1, 4, 2, 2), 1.0)
        losses = discriminator_losses(critic, real, fake, torch.zeros(1), 0.1)
        assert {k: float(v) for k, v in losses.items()} == pytest.approx({"real": -3, "fake": 1, "penalty": 0.1})
        assert "penalty" not in discriminator_losses(critic, real, fake, torch.zeros(1), 0.0)
        losses = generator_losses(critic, fake, fake, real, 10.0)
        assert {k: float(v) for k, v in losses.items()} == pytest.approx({"adversarial": -1, "reconstruction": 40})

    def test_amplitude(self) -> None:
        one, two = torch.randn(1, 4, 6, 6), torch.randn(1, 4, 6, 6)
        wanted = 0.1 * np.sqrt(((one - two).numpy().astype(np.float64) ** 2).mean())
        assert amplitude(0.1, one, two) == pytest.approx(wanted, rel=1e-6)


class TestTask:
    @staticmethod
    def task(coarser: int = 1) -> ScaleTask:
        torch.manual_seed(5)
        scales = [Scale(Generator(32).eval().requires_grad_(False), 1.0) for _ in range(coarser)]
        return ScaleTask(torch.randn(1, 4, 32, 32).clamp(-1, 1), torch.randn(1, 1, 25, 25), scales, QUICK, seed=3)

    def test_amplitudes(self) -> None:
        assert self.task(0).sigma == 1
        task = self.task(1)
        below = resized(climb(task.coarser, task.z_rec[:1]), 29)
        assert task.sigma == pytest.approx(0.1 * float((below - task.real).square().mean().sqrt()), rel=1e-5)

    def test_each_phase_moves_its_own_network(self) -> None:
        task = self.task()
        batch, progress = task.batch([Draw(0, 9)]), Progress(0, 10)
        torch.stack([*task.generator_loss(batch, progress).values()]).sum().backward()
        assert all(p.grad is None and p.requires_grad for p in task.D.parameters())
        assert all(p.grad is not None for p in task.G.parameters())
        task.modules.zero_grad()
        torch.stack([*task.discriminator_loss(batch, progress).values()]).sum().backward()
        assert all(p.grad is None for p in task.G.parameters())
        assert all(p.grad is not None for p in task.D.parameters())

    def test_losses_are_those_of_the_pictures(self) -> None:
        task = self.task()
        batch = task.batch([Draw(0, 9)])
        task.modules.eval()
        for parameter in task.modules.parameters():
            parameter.data *= 5  # new weights are so small that hardly anything shows
        losses = {name: value.detach() for name, value in task.generator_loss(batch, Progress(0, 10)).items()}
        below = resized(climb(task.coarser, [batch["z_0"]]), 29)
        with torch.no_grad():
            fake = task.G(task.sigma * batch["z_1"], below)
            rebuilt = task.G(torch.zeros_like(fake), resized(climb(task.coarser, task.z_rec[:1]), 29))
        assert float(losses["adversarial"]) == pytest.approx(-float(task.D(fake).detach().mean()), rel=1e-5)
        assert float(losses["reconstruction"]) == pytest.approx(10 * float((rebuilt - task.real).square().mean()), 1e-5)

    def test_the_device_of_a_scale_is_its_own(self) -> None:
        """The loop takes a task to its device; the next scale is begun where the pair is."""
        pair, z_star, scales = torch.randn(1, 4, 32, 32), torch.randn(1, 1, 25, 25), list[Scale]()
        for n in range(3):
            task = ScaleTask(pair, z_star, scales, QUICK, seed=3)
            task.to("meta")
            held = [task.real, task.below, *task.z_rec, *(p for s in task.coarser for p in s.generator.parameters())]
            assert {tensor.device.type for tensor in held} == {"meta"}
            scales.append(Scale(Generator(width(n)).eval(), 1.0))

    def test_it_begins_with_the_networks_below_where_they_fit(self) -> None:
        for n, same in ((1, True), (3, True), (4, False)):
            config = replace(QUICK, resolution=64)
            scales = [Scale(Generator(width(k)).eval(), 1.0) for k in range(n)]
            task = ScaleTask(torch.zeros(1, 4, 64, 64), torch.zeros(1, 1, 25, 25), scales, config, seed=3)
            nets = nn.ModuleDict({"G": Generator(width(n - 1)), "D": Discriminator(width(n - 1))})
            task.begin_with(nets.state_dict())
            first = [cast(nn.Conv2d, cast(Discriminator, net).net[0]).weight for net in (task.D, nets["D"])]
            assert torch.equal(*first) == same

    def test_the_rate_falls_at_1600_of_2000(self) -> None:
        for phase in self.task().phases():
            rates = [learning_rate(phase, Progress(step, 6000)) for step in (0, 4799, 4800, 5999)]
            assert rates == pytest.approx([5e-4, 5e-4, 5e-5, 5e-5])
            assert (phase.betas, phase.weight_decay) == ((0.5, 0.999), 0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return labelled(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("after", [1, 5, 9])
def test_a_stopped_run_ends_with_the_same_bytes(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Killed within the first scale, within a later one, and within the second image."""
    config = replace(QUICK, resolution=25, max_train_steps=3, checkpointing_steps=1)
    whole = train(data, config, tmp_path / "whole")
    batch, calls = ScaleTask.batch, 0

    def stopping(self: ScaleTask, draws: Any) -> Batch:
        nonlocal calls
        calls += 1
        if calls > after:
            raise KeyboardInterrupt
        return batch(self, draws)

    monkeypatch.setattr(ScaleTask, "batch", stopping)
    with pytest.raises(KeyboardInterrupt):
        train(data, config, tmp_path / "cut")
    monkeypatch.setattr(ScaleTask, "batch", batch)
    assert content(train(data, config, tmp_path / "cut")) == content(whole)


def test_it_learns_its_image(tmp_path: Path) -> None:
    data = phantom_dataset(tmp_path / "data", "mucosa", 1, 32, seed=1)
    config = SinganConfig(resolution=25, max_train_steps=40, start_scale=1)
    run = train(data, config, tmp_path / "run")
    logs = [(run / "models" / "0000" / f"scale-{n}" / "metrics.jsonl").read_text().splitlines() for n in (0, 1)]
    first, last = json.loads(logs[0][0])["G/reconstruction"], json.loads(logs[1][-1])["G/reconstruction"]
    assert last < 0.25 * first
    sampler = load(run)
    (pair,) = sampler.sample([Job("a", 3, prompt=sampler.captions[0].text)])
    model = sampler._model(0)
    rebuilt = climb(model.scales, fixed_noise(model.z_star, config.sides))[0, 3] > 0
    assert pair.mask is not None
    assert 2 * (pair.mask & rebuilt.numpy()).sum() / (pair.mask.sum() + rebuilt.sum()) > 0.5


class TestChosen:
    def test_of_every_class_and_over_subjects(self, data: Dataset) -> None:
        for seed in range(4):
            config = replace(QUICK, seed=seed, max_images=3)
            taken = chosen(data, config)
            assert len(taken) == 3
            assert {record.label for record in taken} == {"nevus", "melanoma"}
            assert set(chosen(data, replace(config, max_images=2)).ids) < set(taken.ids)
        plain = replace(data, records=tuple(replace(record, label=None) for record in data))
        for seed in range(4):
            assert len({record.subject for record in chosen(plain, replace(QUICK, seed=seed, max_images=3))}) == 3
        assert len({chosen(data, replace(QUICK, seed=seed)).ids for seed in range(8)}) > 1

    def test_all(self, data: Dataset) -> None:
        assert chosen(data, replace(QUICK, max_images=0)).ids == data.ids
        assert chosen(data, replace(QUICK, max_images=99)).ids == data.ids

    def test_a_model_is_the_same_whatever_else_is_chosen(self, data: Dataset, tmp_path: Path) -> None:
        config = replace(QUICK, resolution=25, max_train_steps=1, max_images=1)
        one, (id_,) = train(data, config, tmp_path / "one"), chosen(data, config).ids
        all_ = train(data, replace(config, max_images=0), tmp_path / "all")
        position = data.ids.index(id_)
        wanted = (all_ / "final" / f"model-{position:04d}.safetensors").read_bytes()
        assert (one / "final" / "model-0000.safetensors").read_bytes() == wanted


class TestClassesWithoutAModel:
    def test_are_named_with_the_remedy(self, data: Dataset) -> None:
        config = replace(QUICK, max_images=1)
        (left,) = {"nevus", "melanoma"} - {record.label for record in chosen(data, config)}
        with pytest.raises(InputError) as error:
            refuse_classes(data, config, ["nevus", "melanoma"])
        assert f"max_images=1 lets no image of class {left!r} have a model; give singan-seg" in str(error.value)
        assert "the preset max_images=2, or leave that class out" in str(error.value)
        assert "\n" not in str(error.value)
        refuse_classes(data, replace(config, max_images=2), ["nevus", "melanoma"])
        refuse_classes(data, config, [None, *({"nevus", "melanoma"} - {left})])

    def test_where_no_mask_of_a_class_holds_a_lesion(self, data: Dataset) -> None:
        bare = replace(data, records=tuple(replace(r, mask=None) if r.label == "melanoma" else r for r in data))
        with pytest.raises(InputError, match=r"no mask of class 'melanoma' in .* holds a lesion at 32 px; leave that"):
            refuse_classes(bare, replace(QUICK, max_images=0), ["melanoma"])

    def test_training_says_so(self, data: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        train(data, replace(QUICK, resolution=25, max_train_steps=1, max_images=1), tmp_path / "run")
        assert "of which sampling then makes no pair" in capsys.readouterr().out

    @pytest.mark.parametrize("options", [{"balance": "9"}, {"arms": ("syn-geo+balance=melanoma=3,nevus=3",)}])
    def test_a_study_finds_them_before_anything_is_written(self, tmp_path: Path, options: Mapping[str, Any]) -> None:
        data = labelled(tmp_path / "data", 12, every=2).root
        config = StudyConfig(
            **{
                "generator": "singan-seg", "data": data, "out": tmp_path / "s", "preset": "max_images=1",
                "arms": ("real-geo", "syn-geo"), "resolution": 32, "steps": 2, "folds": 2, **options,
            }
        )  # fmt: skip
        with pytest.raises(InputError, match=r"^fold\d: --balance: .*max_images=1 lets no image of class .* have a"):
            prepare(config)
        assert not config.out.exists()
        prepare(replace(config, preset="max_images=2"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 16}, "--resolution 16: is below min_size=25"),
        ({"min_size": 10}, "--preset min_size=10: must be 11 or more"),
        ({"scale_factor": 1.0}, "--preset scale_factor=1: must lie between"),
        ({"max_images": -1}, "--preset max_images=-1: must be 0 or more"),
        ({"max_train_steps": 0}, "--max-train-steps 0: must be 1 or more"),
        ({"lr": 0.0}, "--lr 0: must be positive"),
        ({"noise_weight": float("nan")}, "--preset noise_weight=nan: must be 0 or more"),
        ({"start_scale": 6}, "--preset start_scale=6: the finest scale is 5; give 0 to 5"),
    ],
)
def test_options_out_of_range(options: Mapping[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        SinganConfig(**options)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_presets() -> None:
    assert singan_config() == SinganConfig()
    paper = singan_config("paper+max-images=10", seed=2)
    assert (paper.max_images, paper.max_train_steps, paper.resolution, paper.seed) == (10, 6000, 250, 2)
    for words in ("sd15", "tiny+sd15"):
        with pytest.raises(InputError, match="singan-seg rests on no foundation; choose from tiny, paper"):
            singan_config(words)
    with pytest.raises(InputError, match="no option 'max_image'; did you mean 'max_images'"):
        singan_config("max_image=3")


def _without_masks(data: Dataset) -> Dataset:
    return replace(data, records=tuple(replace(record, mask=None) for record in data))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without_masks, "has no mask to learn from"),
        (lambda data: replace(data, classes=("background", "polyp", "tool")), r"several classes \(polyp, tool\)"),
        (lambda data: replace(data, mask_values={0: 0, 255: 0}), "no mask holds a lesion at 32 px"),
    ],
)
def test_data_that_cannot_train(
    data: Dataset, tmp_path: Path, change: Callable[[Dataset], Dataset], message: str
) -> None:
    for work in (lambda: check(change(data), QUICK), lambda: train(change(data), QUICK, tmp_path / "run")):
        with pytest.raises(InputError, match=message):
            work()
    assert not (tmp_path / "run").exists()


def test_a_study_runs_it(data: Dataset, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "arms": ("real-geo", "syn-geo", "syn-geo+start_scale=1"),
        "resolution": 32,
        "steps": 2,
        "folds": 2,
    }
    words = "max_images=2+max_train_steps=1"
    config = StudyConfig(generator="singan-seg", data=data.root, out=tmp_path / "s", preset=words, **options)
    bench = prepare(config)
    assert generator_config(bench.config, 4) == SinganConfig(max_images=2, max_train_steps=1, resolution=32, seed=4)
    assert SinganConfig().seconds(5) == pytest.approx(SinganConfig().seconds(20) / 2)
    freeze(bench)
    repetition = bench.splits.repetitions[0]
    made = synthetic_pairs(bench, repetition)
    assert len(made) == len(repetition.train)
    labels = {record.label for record in bench.dataset.select(repetition.train)}
    assert {record.label for record in made} == labels
    nearer = synthetic_pairs(bench, repetition, Variant((("start_scale", 1),)))
    assert nearer.ids == made.ids
    assert {(record.origin or {})["origin"]["start_scale"] for record in nearer} == {1}
    assert len(list((config.out / "runs").glob("generator.*"))) == 1
    with pytest.raises(InputError, match="singan-seg rests on no foundation"):
        prepare(replace(config, preset="sd15"))
