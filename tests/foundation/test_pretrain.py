"""Making and adapting a foundation: what it may see, what its card says, its losses, and continuing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from morphogen.data.phantoms import phantom_dataset
from morphogen.data.prompts import Grammar
from morphogen.errors import InputError
from morphogen.foundation import pretrain as module
from morphogen.foundation.adapt import AdaptConfig, adapt
from morphogen.foundation.autoencoder_task import AutoencoderTask, edge_difference, latent_scale, psnr
from morphogen.foundation.decoder_task import perceptual_distance, recolour
from morphogen.foundation.denoiser_task import DenoiserTask
from morphogen.foundation.images import ImagePool, to_bytes, to_signed, turned
from morphogen.foundation.latents import Item, LatentBank, build_bank, symmetries
from morphogen.foundation.model import Foundation
from morphogen.foundation.pretrain import pretrain, read_sources
from morphogen.foundation.pretrain_config import PretrainConfig
from morphogen.foundation.tiny_model import TinyConfig
from morphogen.metrics.vgg16 import MEAN, STD, vgg16_encoder
from morphogen.training.rng import normal
from morphogen.training.task import Draw, Progress
from small_foundations import SMALL, small_tiny


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same code at a size for tests."""
    import morphogen.foundation.tiny_model as tiny_model

    monkeypatch.setattr(tiny_model, "TinyConfig", lambda resolution: replace(SMALL, resolution=resolution))


def config(tmp_path: Path, **changes: object) -> PretrainConfig:
    data = tmp_path / "d"
    if not data.exists():
        phantom_dataset(data, "mucosa", 10, 40)
    values = {"data": (data,), "out": tmp_path / "run", "resolution": 32, "autoencoder_steps": 2, "denoiser_steps": 2}
    return PretrainConfig(**{**values, **changes})  # type: ignore[arg-type]


def test_a_small_foundation_from_nothing(tmp_path: Path) -> None:
    folder = pretrain(config(tmp_path, phantoms=2))
    made = Foundation.load(folder)
    row = made.card["sets"]["d"]
    assert len(row["training_ids"]) == len(row["phashes"]) == 9
    assert made.card["resolution"] == 32
    x = to_signed(
        np.stack([np.asarray(image) for image in module.Pairs(read_sources(config(tmp_path))[0].train, 32).images()])
    )
    assert float(made.encode(x).std()) == pytest.approx(1.0, abs=0.15)  # the scaling factor makes it so
    before = (folder / "unet" / "diffusion_pytorch_model.safetensors").stat().st_mtime_ns
    assert pretrain(config(tmp_path, phantoms=2)) == folder
    assert (folder / "unet" / "diffusion_pytorch_model.safetensors").stat().st_mtime_ns == before


def test_a_stopped_run_ends_as_an_undisturbed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"autoencoder_steps": 4, "denoiser_steps": 4, "phantoms": 2}
    whole = pretrain(config(tmp_path, **settings, out=tmp_path / "whole"))
    for module_name in ("latents", "model"):  # after the autoencoder; after the denoiser
        with monkeypatch.context() as patch:
            kind = {"latents": "build_bank", "model": "Foundation.save"}[module_name]
            patch.setattr(f"morphogen.foundation.{module_name}.{kind}", _killed)
            with pytest.raises(KeyboardInterrupt):
                pretrain(config(tmp_path, **settings))
    stopped = pretrain(config(tmp_path, **settings))
    for file in sorted(path for path in whole.rglob("*") if path.is_file()):
        assert (stopped / file.relative_to(whole)).read_bytes() == file.read_bytes(), file


def _killed(*args: object, **kwargs: object) -> None:
    raise KeyboardInterrupt


def test_frozen_ids_are_obeyed(tmp_path: Path) -> None:
    c = config(tmp_path)
    ids = [p.stem for p in sorted((tmp_path / "d" / "images").iterdir())]
    (tmp_path / "ids.json").write_text(json.dumps({"sets": {"d": {"train": ids[:4], "held_out": ids[4:]}}}))
    source = read_sources(replace(c, ids=tmp_path / "ids.json"))[0]
    assert list(source.train.ids) == ids[:4]
    assert list(source.held_out.ids) == ids[4:]


def test_without_frozen_ids_a_tenth_is_held_out(tmp_path: Path) -> None:
    source = read_sources(config(tmp_path))[0]
    assert len(source.held_out) == 1
    assert not set(source.held_out.ids) & set(source.train.ids)


class TestRefusals:
    def test_another_run_in_its_folder(self, tmp_path: Path) -> None:
        pretrain(config(tmp_path))
        card = (tmp_path / "run" / "final" / "morphogen.json").read_bytes()
        with pytest.raises(InputError, match=r"holds a run with other settings .*seed"):
            pretrain(config(tmp_path, seed=1))
        ids = sorted(p.stem for p in (tmp_path / "d" / "images").iterdir())
        (tmp_path / "ids.json").write_text(json.dumps({"sets": {"d": {"train": ids[:4], "held_out": ids[4:]}}}))
        with pytest.raises(InputError, match="holds a run with other settings"):
            pretrain(config(tmp_path, ids=tmp_path / "ids.json"))
        assert (tmp_path / "run" / "final" / "morphogen.json").read_bytes() == card

    @pytest.mark.parametrize("text", ["{", "[]", "{}", '{"sets": {"d": {"train": []}}}'])
    def test_ids_of_another_form(self, text: str, tmp_path: Path) -> None:
        (tmp_path / "ids.json").write_text(text)
        with pytest.raises(InputError, match=r"ids.json: is no JSON of frozen ids"):
            pretrain(config(tmp_path, ids=tmp_path / "ids.json"))

    def test_a_damaged_image(self, tmp_path: Path) -> None:
        c = config(tmp_path)
        path = next((tmp_path / "d" / "images").iterdir())
        path.write_bytes(path.read_bytes()[:300])
        with pytest.raises(InputError, match=path.name):
            pretrain(c)
        assert not c.out.exists()

    def test_a_set_that_the_ids_do_not_name(self, tmp_path: Path) -> None:
        c = config(tmp_path)
        (tmp_path / "ids.json").write_text('{"sets": {"other": {"train": [], "held_out": []}}}')
        with pytest.raises(InputError, match=r"ids.json: names no set 'd'; add it"):
            read_sources(replace(c, ids=tmp_path / "ids.json"))

    def test_two_sets_of_one_name(self, tmp_path: Path) -> None:
        c = config(tmp_path)
        phantom_dataset(tmp_path / "other" / "d", "skin", 3, 40)
        with pytest.raises(InputError, match="a second set called 'd'"):
            read_sources(replace(c, data=(*c.data, tmp_path / "other" / "d")))

    def test_missing_ids(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"nothing.json: no such file; give the JSON of frozen ids"):
            read_sources(config(tmp_path, ids=tmp_path / "nothing.json"))

    def test_grammars_that_do_not_match(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="--grammars: 2 names for 1 folders"):
            read_sources(config(tmp_path, grammars=("polyp", "skin")))

    def test_an_unknown_grammar(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no such grammar"):
            read_sources(config(tmp_path, grammars=("liver",)))


class TestAutoencoder:
    def test_its_loss_against_loops(self, tmp_path: Path) -> None:
        made = small_tiny()
        images = np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32), dtype=np.uint8)
        task = AutoencoderTask(made, ImagePool([], 3, 32), images, 1e-3)
        x, seeds = to_signed(images), torch.tensor([4, 5, 6])
        losses = task.loss({"x": x, "seed": seeds}, Progress(0, 1))
        posterior = made.vae.encode(x).latent_dist
        z = posterior.mean + posterior.std * normal(seeds, posterior.mean.shape[1:], "posterior")
        y = made.vae.decode(z).sample
        assert float(losses["l1"].detach()) == pytest.approx(float((y - x).abs().mean().detach()), rel=1e-5)
        kl = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).sum(dim=(1, 2, 3)).mean()
        assert float(losses["kl"].detach()) == pytest.approx(1e-6 * float(kl.detach()), rel=1e-4)

    def test_edges_against_loops(self) -> None:
        a, b = torch.rand(1, 1, 3, 4), torch.rand(1, 1, 3, 4)
        d = (a - b)[0, 0]
        across = [abs(float(d[i, j + 1] - d[i, j])) for i in range(3) for j in range(3)]
        down = [abs(float(d[i + 1, j] - d[i, j])) for i in range(2) for j in range(4)]
        assert float(edge_difference(a, b)) == pytest.approx(np.mean(across) + np.mean(down), rel=1e-5)

    def test_psnr_of_a_known_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made = small_tiny()
        monkeypatch.setattr(Foundation, "autoencode", lambda self, x: x + 0.2)  # 0.1 of the range
        assert psnr(made, np.zeros((2, 3, 32, 32), dtype=np.uint8)) == pytest.approx(20.0, abs=1e-4)

    def test_the_scale_is_one_over_the_deviation(self) -> None:
        made = small_tiny()
        images = np.random.default_rng(0).integers(0, 256, (5, 3, 32, 32), dtype=np.uint8)
        literal = made.vae.encode(to_signed(images)).latent_dist.mean.std()
        assert latent_scale(made, images) == pytest.approx(1 / float(literal.detach()), rel=1e-5)


class TestDenoiser:
    def bank(self) -> tuple[Foundation, LatentBank]:
        made = small_tiny()
        image = np.random.default_rng(0).integers(0, 256, (3, 32, 32), dtype=np.uint8)
        grammar = Grammar.load("generic")
        return made, build_bank(made, [Item(image, None, grammar, caption="a photo of a polyp")] * 3)

    def test_its_loss_is_the_error_of_the_noise(self) -> None:
        made, bank = self.bank()
        task = DenoiserTask(made, bank, 1e-3)
        batch = task.batch([Draw(0, 1), Draw(1, 2)])
        loss = task.loss(batch, Progress(0, 1))["mse"]
        z_t = made.scheduler.add_noise(batch["z0"], batch["eps"], batch["t"])
        states = made.text_encoders[0](made.tokens(batch["prompts"])[0])[0]
        literal = (made.unet(z_t, batch["t"], states).sample - batch["eps"]).square().mean()
        assert float(loss.detach()) == pytest.approx(float(literal.detach()), rel=1e-5)

    def test_the_text_encoder_of_a_closed_vocabulary_trains_along(self) -> None:
        made, bank = self.bank()
        task = DenoiserTask(made, bank, 1e-3, drop=0.0)
        task.loss(task.batch([Draw(0, 1)]), Progress(0, 1))["mse"].backward()
        grads = [p.grad for p in made.text_encoders[0].parameters() if p.grad is not None]
        assert max(float(g.abs().max()) for g in grads) > 0

    def test_empty_prompts_at_the_stated_rate(self) -> None:
        made, bank = self.bank()
        drawn = DenoiserTask(made, bank, 1e-3, drop=0.1).batch([Draw(k % 3, k) for k in range(500)])
        assert sum(prompt == "" for prompt in drawn["prompts"]) == pytest.approx(50, abs=25)


class TestItems:
    def test_symmetries_turn_image_and_mask_together(self) -> None:
        rng = np.random.default_rng(0)
        image = rng.integers(0, 256, (3, 6, 6), dtype=np.uint8)
        made = symmetries(Item(image, (image[0] > 100).astype(np.int64), Grammar.load("generic")), range(8))
        assert len({item.image.tobytes() for item in made}) == 8
        for item in made:
            assert item.mask is not None
            assert np.array_equal(item.mask, item.image[0] > 100)

    @pytest.mark.parametrize(
        ("caption", "n"),
        [
            ("a polyp", 8),
            (None, 8),
            ("polyp, Upper-left of the image", 1),
            ("the right side", 1),
            ("a brighter polyp", 8),
        ],
    )
    def test_an_image_whose_caption_names_a_place_is_not_turned(self, caption: str | None, n: int) -> None:
        image = np.random.default_rng(0).integers(0, 256, (3, 6, 6), dtype=np.uint8)
        made = symmetries(Item(image, None, Grammar.load("generic"), caption=caption), range(8))
        assert len(made) == 8
        assert len({item.image.tobytes() for item in made}) == n
        assert {item.caption for item in made} == {caption}

    def test_turned_is_one_of_the_square(self) -> None:
        image = np.arange(4, dtype=np.uint8).reshape(1, 2, 2)
        assert turned(image, 1).tolist() == [[[1, 3], [0, 2]]]
        assert turned(image, 4).tolist() == [[[1, 0], [3, 2]]]

    def test_bytes_and_back(self) -> None:
        image = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
        assert np.array_equal(to_bytes(to_signed(image)), image)

    def test_captions_follow_the_mask(self) -> None:
        mask = np.zeros((32, 32), dtype=np.int64)
        image = np.full((3, 32, 32), 120, dtype=np.uint8)
        empty = Item(image, mask, Grammar.load("polyp")).captions(0)
        assert set(empty) == {"endoscopic photo of normal mucosa"}
        mask[4:28, 4:28] = 1
        found = [text for seed in range(5) for text in Item(image, mask, Grammar.load("polyp")).captions(seed)]
        assert any("large" in text for text in found)
        assert not any("small" in text or "normal" in text for text in found)


def test_adapting_fits_the_images_better(tmp_path: Path) -> None:
    """The denoising error and the decoder's on the study's images fall; the encoder is not touched."""
    small_tiny().save(tmp_path / "f")
    data = phantom_dataset(tmp_path / "d", "skin", 4, 32)
    c = AdaptConfig(
        foundation=str(tmp_path / "f"), decoder_steps=30, decoder_lr=5e-3, max_train_steps=30, train_batch_size=8,
        lr=2e-3, prompt="",
    )  # fmt: skip
    folder = adapt(data, c, tmp_path / "run")
    for stage, loss in (("denoiser", "mse"), ("decoder", "l1")):
        lines = (tmp_path / "run" / stage / "metrics.jsonl").read_text().splitlines()
        rows = [row[loss] for row in map(json.loads, lines) if loss in row]
        assert np.mean(rows[-5:]) < np.mean(rows[:5]), stage
    before, after = Foundation.load(tmp_path / "f"), Foundation.load(folder)
    x = to_signed(module.Pairs(data, 32).images())
    assert torch.equal(before.encode(x), after.encode(x))  # the latents stay
    assert float((after.autoencode(x) - x).abs().mean()) < float((before.autoencode(x) - x).abs().mean())
    assert after.card["sets"][data.name]["training_ids"] == list(data.ids)
    assert adapt(data, c, tmp_path / "run") == folder


def test_the_shipped_sizes() -> None:
    assert TinyConfig() == TinyConfig(64, (24, 48, 64), 4, (64, 96, 128), 96, 2)


class TestPerceptualStage:
    """The decoder's second stage; VGG16 stands in with random weights, so that nothing need be installed."""

    @pytest.fixture(autouse=True)
    def _random_vgg(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from morphogen.foundation import decoder_task

        monkeypatch.setattr(decoder_task, "vgg16_encoder", lambda pretrained: vgg16_encoder(pretrained=False))
        monkeypatch.setattr(module, "available", lambda name: True)

    def test_the_distance_equals_a_literal_one(self) -> None:
        torch.manual_seed(0)
        judge = vgg16_encoder(pretrained=False).eval()
        x, y = torch.rand(2, 3, 32, 32) * 2 - 1, torch.rand(2, 3, 32, 32) * 2 - 1
        mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
        total = 0.0
        for b in range(2):
            a, c = (judge((((i[b] / 2 + 0.5) - mean) / std)[None]) for i in (x, y))
            for one, two in zip(a, c, strict=True):
                at_pixels = []
                for i in range(one.shape[2]):
                    for j in range(one.shape[3]):
                        u, v = one[0, :, i, j].double(), two[0, :, i, j].double()
                        u, v = u / (u.norm() + 1e-12), v / (v.norm() + 1e-12)
                        at_pixels.append(float(((u - v) ** 2).sum().detach()))
                total += np.mean(at_pixels) / 2
        assert float(perceptual_distance(judge, y, x).detach()) == pytest.approx(total, rel=1e-4)
        assert float(perceptual_distance(judge, x, x).detach()) == 0

    def test_the_encoder_and_with_it_the_latents_stay(self, tmp_path: Path) -> None:
        made = Foundation.load(pretrain(config(tmp_path, perceptual_steps=2)))
        first = Foundation.load(tmp_path / "run" / "final")
        first.vae = type(made.vae).from_pretrained(tmp_path / "run" / "autoencoder" / "final")
        before, after = first.vae.state_dict(), made.vae.state_dict()
        changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
        assert changed == {"decoder", "post_quant_conv"}

    def test_missing_weights_are_said_before_anything_trains(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "available", lambda name: False)
        with pytest.raises(InputError, match=r"--perceptual-steps 2: .*pip install"):
            pretrain(config(tmp_path, perceptual_steps=2))
        assert not (tmp_path / "run").exists()

    def test_another_camera_is_seeded_and_within_range(self) -> None:
        x = torch.rand(3, 8, 8) * 2 - 1
        made = [recolour(x, seed) for seed in range(40)]
        assert all(torch.equal(recolour(x, seed), y) for seed, y in enumerate(made))
        assert all(float(y.min()) >= -1 and float(y.max()) <= 1 for y in made)
        assert 10 < sum(torch.equal(x, y) for y in made) < 30
        changed = next(y for y in made if not torch.equal(x, y))
        assert not torch.allclose(changed.mean(dim=(1, 2)), x.mean(dim=(1, 2)), atol=1e-3)
