"""The latent segmenter as a whole: objectives and prediction."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from morphogen.errors import InputError
from morphogen.segmenters import build, resolve
from morphogen.segmenters.latent import mask_autoencoder
from morphogen.segmenters.latent.config import T
from morphogen.segmenters.latent.labels import distances, picture
from morphogen.segmenters.latent.model import LatentSegmenter, Prediction
from morphogen.segmenters.losses import cross_entropy, losses_of
from morphogen.training.rng import normal, uniform
from segmenters.base import PhantomPairs, SegmenterTester
from segmenters.latent_nets import inner, outer


@pytest.fixture(scope="module", autouse=True)
def options(foundation: Path) -> None:
    """Where `TestLatent` finds the foundation."""
    TestLatent.options = {"foundation": str(foundation), "vision": "autoencoder"}


class Blocks(PhantomPairs):
    """Bright rectangles of whole cells on noise: masks that the smallest autoencoder can learn."""

    def _pair(self, seed: int, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        cells = np.zeros((self.resolution // 4, self.resolution // 4), dtype=np.uint8)
        top, left, height, width = *rng.integers(0, 5, 2), *rng.integers(2, 5, 2)
        cells[top : top + height, left : left + width] = 1
        mask = cells.repeat(4, axis=0).repeat(4, axis=1)
        image = np.clip(90 + 80 * mask + rng.normal(0, 15, (3, *mask.shape)), 0, 255).astype(np.uint8)
        return image, mask


def learn_masks(net: LatentSegmenter, masks: Tensor, steps: int) -> None:
    """Trains the whole autoencoder, as a large foundation's has been."""
    vae: Any = net.autoencoder.requires_grad_(True)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=4e-3)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 4e-3 * (1 - step / steps)
        rows = masks[torch.randperm(len(masks))[:8]]
        wanted = picture(rows, net.palette)
        decoded = vae.decode(vae.encode(wanted).latent_dist.mean).sample
        optimizer.zero_grad()
        ((decoded - wanted).abs().mean() + cross_entropy(distances(decoded, net.palette), rows)).backward()
        optimizer.step()
    vae.requires_grad_(False)
    net.scale.copy_(1 / mask_autoencoder.encoded_std(net, masks))


class TestLatent(SegmenterTester):
    name = "latent"

    def test_overfits_four_phantoms(self) -> None:
        """Eight images, to a Dice above 0.98 in one step."""
        torch.manual_seed(0)
        net: Any = build("latent", 2, {**self.options, "objective": "x0"})
        learn_masks(net.net, Blocks(32, first_seed=50).stacked()[1], 200)
        images, masks = Blocks(8).stacked()
        assert overfitted(net, images, masks, 90) > 0.98


def overfitted(net: Any, images: Tensor, masks: Tensor, steps: int) -> float:
    """Dice of one step on what was trained on."""
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad])
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 4e-3 * min(1, step / 10) * (1 - step / steps)
        optimizer.zero_grad()
        sum(losses_of(net.train(), images, masks, torch.arange(8) + 100 * step).values()).backward()
        optimizer.step()
    with torch.no_grad():
        labels = net.eval()(images).argmax(dim=1)
    return float(2 * (labels * masks).sum() / (labels.sum() + masks.sum()))


class TestObjectives:
    def batch(self) -> tuple[Tensor, Tensor, Tensor]:
        images, masks = PhantomPairs(3).stacked()
        return images, masks, torch.tensor([4, 5, 6])

    def literal(self, net: LatentSegmenter, sampled: bool) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """z0, eps, z_t, the denoiser's output and t of the batch, row by row."""
        images, masks, seeds = self.batch()
        rows = []
        for image, mask, seed in zip(images[:, None], masks, seeds, strict=True):
            y = torch.where(mask == 1, 1.0, -1.0).expand(1, 3, -1, -1)
            posterior = net.autoencoder.encode(y).latent_dist
            z = posterior.mean
            if sampled:
                z = z + posterior.std * normal([int(seed)], z.shape[1:], "posterior")
            z0 = net.scale * z
            t = (1000 * uniform([int(seed)], "t")).long()
            eps = normal([int(seed)], z.shape[1:], "eps")
            z_t = net.abar[t].sqrt() * z0 + (1 - net.abar[t]).sqrt() * eps
            rows.append((z0, eps, z_t, net._denoiser(z_t, net.vision(image), t), t))
        return tuple(torch.cat(part) for part in zip(*rows, strict=True))  # type: ignore[return-value]

    @torch.no_grad()
    def test_paper_is_the_noise_and_the_direct_estimate(self, foundation: Path) -> None:
        net = inner(foundation, objective="paper", latent_weight=0.3)
        z0, eps, z_t, output, t = self.literal(net, sampled=True)
        found = net.losses(*self.batch())
        assert found.keys() == {"noise", "latent"}
        torch.testing.assert_close(found["noise"], (eps - output).abs().mean())
        abar = net.abar[t].view(-1, 1, 1, 1)
        direct = (z_t - (1 - abar).sqrt() * output) / abar.sqrt()
        torch.testing.assert_close(found["latent"], 0.3 * (z0 - direct).abs().mean())
        w = ((1 - abar) / abar).sqrt()  # |z0 - direct| = w_t |eps - e|
        torch.testing.assert_close((z0 - direct).abs(), w * (eps - output).abs(), rtol=1e-3, atol=1e-4)

    @torch.no_grad()
    def test_x0_is_the_latent_of_the_mode(self, foundation: Path) -> None:
        net = inner(foundation, objective="x0")
        z0, _, _, output, _ = self.literal(net, sampled=False)
        found = net.losses(*self.batch())
        assert found.keys() == {"latent"}
        torch.testing.assert_close(found["latent"], (z0 - output).abs().mean())

    @torch.no_grad()
    def test_pixel_losses_are_those_of_the_decoded_estimate(self, foundation: Path) -> None:
        net = inner(foundation, objective="x0-pixel", pixel_weight=0.5, last_share=0.0, recycle=False)
        output = self.literal(net, sampled=False)[3]
        decoded = net.autoencoder.decode(output / net.scale).sample
        # 16 / 12 (|D + 1|^2 - |D - 1|^2), summed over three channels
        z = 16 / 12 * 4 * decoded.sum(dim=1)
        mask = self.batch()[1]
        found = net.losses(*self.batch())
        bce = torch.nn.functional.binary_cross_entropy_with_logits(z, mask.float())
        torch.testing.assert_close(found["cross_entropy"], 0.5 * bce, rtol=1e-4, atol=1e-5)
        p = z.sigmoid()
        dice = 1 - (2 * (p * mask).sum(dim=(1, 2)) + 1) / (p.sum(dim=(1, 2)) + mask.sum(dim=(1, 2)) + 1)
        torch.testing.assert_close(found["dice"], 0.5 * dice.mean(), rtol=1e-4, atol=1e-5)
        assert found["latent"] == inner(foundation, objective="x0").losses(*self.batch())["latent"]

    @torch.no_grad()
    def test_a_share_of_the_rows_trains_where_a_prediction_starts(
        self, foundation: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        net, seen = inner(foundation, last_share=0.3, recycle=False), []
        monkeypatch.setattr(net, "_denoiser", lambda z, tau, t: seen.append(t) or z)
        images, masks, _ = self.batch()
        for first in range(0, 900, 3):
            net.losses(images[:, :, :4, :4], masks[:, :4, :4], torch.arange(first, first + 3))
        assert 0.25 < (torch.cat(seen) == T - 1).float().mean() < 0.35

    @torch.no_grad()
    def test_the_other_rows_see_the_direct_estimate_in_place_of_the_latent(self, foundation: Path) -> None:
        """Row by row: an estimate from pure noise at T - 1, made noisy again, and the true latent as the goal."""
        net = inner(foundation, objective="x0-pixel", last_share=0.5)
        images, masks = PhantomPairs(6).stacked()
        seeds, outputs, latents, kinds = torch.arange(6), [], [], []
        for image, mask, seed in zip(images[:, None], masks[:, None], seeds.tolist(), strict=True):
            z0, tau = net.encode_mask(mask), net.vision(image)
            last = bool(uniform([seed], "last") < 0.5)
            t = torch.tensor([999]) if last else (1000 * uniform([seed], "t")).long()
            z_T, eps = (normal([seed], z0.shape[1:], name) for name in ("z_T", "eps"))
            clean = z0 if last else net._denoiser(z_T, tau, torch.tensor([999]))
            z_t = net.abar[t].sqrt() * clean + (1 - net.abar[t]).sqrt() * eps
            outputs.append(net._denoiser(z_t, tau, t))
            latents.append(z0)
            kinds.append(last)
        assert len(set(kinds)) == 2
        wanted = (torch.cat(latents) - torch.cat(outputs)).abs().mean()
        torch.testing.assert_close(net.losses(images, masks, seeds)["latent"], wanted, rtol=1e-4, atol=1e-5)
        net.config = replace(net.config, recycle=False)
        assert abs(float(net.losses(images, masks, seeds)["latent"] - wanted)) > 1e-3

    def test_no_gradient_flows_through_the_first_estimate(
        self, foundation: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        net = inner(foundation, last_share=0.0)
        passes: list[Tensor] = []
        denoiser = net._denoiser
        monkeypatch.setattr(net, "_denoiser", lambda *words: passes.append(denoiser(*words)) or passes[-1])
        sum(net.losses(*self.batch()).values()).backward()  # type: ignore[union-attr]
        assert [made.requires_grad for made in passes] == [False, True]

    def test_what_was_published_has_neither(self) -> None:
        found = {name: resolve("latent", {"objective": name}) for name in ("paper", "x0", "x0-align", "x0-pixel")}
        assert {name: options["last_share"] for name, options in found.items()} == {
            "paper": 0.0, "x0": 0.0, "x0-align": 0.0, "x0-pixel": 0.5,
        }  # fmt: skip
        assert [name for name, options in found.items() if options["recycle"]] == ["x0-pixel"]

    @torch.no_grad()
    def test_timesteps_are_uniform_over_all(self, foundation: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        net, seen = inner(foundation, last_share=0.0, recycle=False), []
        monkeypatch.setattr(net, "_denoiser", lambda z, tau, t: seen.append(t) or z)
        images, masks, _ = self.batch()
        for first in range(0, 900, 3):
            net.losses(images[:, :, :4, :4], masks[:, :4, :4], torch.arange(first, first + 3))
        t = torch.cat(seen)
        assert t.min() >= 0
        assert t.max() <= T - 1
        assert (torch.histc(t.float(), 9, 0, T) - 100).abs().max() < 5 * 100**0.5

    def test_alignment_is_weighted_cosine_with_the_tokens_and_is_not_kept(
        self, foundation: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        from morphogen.metrics import lite0, weights

        torch.manual_seed(1)
        trunk = lite0.Lite0Features()
        monkeypatch.setattr(weights, "locate", lambda name: Path())
        monkeypatch.setattr(lite0, "lite0_encoder", lambda pretrained: trunk)
        wrapped = outer(foundation, objective="x0-align")
        net = wrapped.net
        images, masks, seeds = self.batch()
        features: list[Tensor] = []
        net.denoiser.down_blocks[0].register_forward_hook(lambda m, i, o: features.append(o[0]))
        found = net.losses(images, masks, seeds)
        (seen,) = features
        with torch.no_grad():
            side = 16 * seen.shape[-1]
            big = torch.nn.functional.interpolate(images, size=(side, side), mode="bicubic", antialias=True).clamp(
                -1, 1
            )
            tokens = trunk(((big / 2 + 0.5) * 255 - 127) / 128)[3]
        assert tokens.shape[-2:] == seen.shape[-2:]
        cosines = [
            torch.nn.functional.cosine_similarity(net.alignment.project(seen[b, :, y, x]), tokens[b, :, y, x], dim=0)
            for b in range(3) for y in range(seen.shape[2]) for x in range(seen.shape[3])
        ]  # fmt: skip
        torch.testing.assert_close(found["align"], -0.75 * torch.stack(cosines).mean(), rtol=1e-3, atol=1e-4)
        found["align"].backward()
        assert net.alignment.project[0].weight.grad.abs().sum() > 0
        assert net.denoiser.conv_in.weight.grad.abs().sum() > 0
        assert all(p.grad is None for p in trunk.parameters())
        plain = outer(foundation, objective="x0")
        assert wrapped.saved_state().keys() == plain.state_dict().keys()

    def test_tokens_of_a_dinov2_folder(self, foundation: Path, tmp_path: Path) -> None:
        from small_vision import small_dino

        small_dino(image_size=56).save_pretrained(tmp_path / "dino")
        net = inner(foundation, objective="x0-align", align=str(tmp_path / "dino"))
        images, masks, seeds = self.batch()
        assert net.losses(images, masks, seeds)["align"].isfinite()
        teacher = net.alignment._teacher[0]  # type: ignore[union-attr]
        tokens = teacher(images, (4, 4))
        assert tokens.shape == (3, 4, 4, 16)
        whole = teacher.net(teacher.prepared(images, (4, 4))).last_hidden_state
        assert torch.equal(tokens[:, 1, 2], whole[:, 1 + 4 + 2])


class TestPrediction:
    @pytest.mark.parametrize("objective", ["paper", "x0"])
    @torch.no_grad()
    def test_one_step_is_the_direct_estimate_at_the_last_timestep(self, foundation: Path, objective: str) -> None:
        net, (images, _) = inner(foundation, objective=objective), PhantomPairs(2).stacked()
        tau = net.encode_image(images)
        noise = normal([0], (4, 128, 128), "z_T")[:, :, :8, :8].expand(2, -1, -1, -1)
        output = net._denoiser(noise, tau, torch.tensor([999, 999]))
        abar = net.abar[999]
        z0 = (noise - (1 - abar).sqrt() * output) / abar.sqrt() if objective == "paper" else output
        assert torch.equal(net.denoise(tau, noise), z0)
        assert torch.equal(net(images), net.decode(z0))
        assert torch.equal(net.predict_probabilities(images).probabilities, net.decode(z0).softmax(dim=1))
        assert not net.predict_probabilities(images).std.any()

    @pytest.mark.parametrize("objective", ["paper", "x0"])
    @torch.no_grad()
    def test_several_steps_are_those_of_diffusers(self, foundation: Path, objective: str) -> None:
        from diffusers import DDIMScheduler

        net, (images, _) = inner(foundation, objective=objective), PhantomPairs(2).stacked()
        kind = "epsilon" if objective == "paper" else "sample"
        scheduler = DDIMScheduler(
            beta_start=0.0015, beta_end=0.0155, beta_schedule="scaled_linear", clip_sample=False,
            timestep_spacing="trailing", prediction_type=kind,
        )  # fmt: skip
        scheduler.set_timesteps(5)
        tau = net.encode_image(images)
        z = noise = net.start(tau)
        for t in scheduler.timesteps:
            z = scheduler.step(net._denoiser(z, tau, t.expand(2)), t, z).prev_sample
        torch.testing.assert_close(net.denoise(tau, noise, 5), z, rtol=1e-3, atol=1e-3)

    @torch.no_grad()
    def test_an_ensemble_is_the_mean_of_its_members(self, foundation: Path) -> None:
        images = PhantomPairs(2).stacked()[0]
        net = inner(foundation, 3, ensemble=3, seed=5)
        members = torch.stack([inner(foundation, 3, seed=5 + k)(images).softmax(dim=1) for k in range(3)])
        found = net.predict_probabilities(images)
        torch.testing.assert_close(found.probabilities, members.mean(dim=0))
        torch.testing.assert_close(net(images).softmax(dim=1), members.mean(dim=0))
        spread = members.double().numpy().std(axis=0).max(axis=1)
        np.testing.assert_allclose(found.std.numpy(), spread, atol=1e-5)
        p = members.double().mean(dim=0).numpy()
        entropy = -(p * np.log(np.maximum(p, 1e-30))).sum(axis=1) / np.log(3)
        np.testing.assert_allclose(found.entropy.numpy(), entropy, atol=1e-5)
        other = inner(foundation, 3)
        again = other.predict_probabilities(images, ensemble=3, seed=5)
        assert torch.equal(again.probabilities, found.probabilities)
        assert not torch.equal(other.predict_probabilities(images, seed=6).probabilities, other(images).softmax(dim=1))

    def test_the_largest_disagreement_and_entropy(self) -> None:
        apart = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).view(2, 1, 2, 1, 1)
        found = Prediction.of(apart)
        assert found.std.item() == pytest.approx(0.5)
        assert found.entropy.item() == pytest.approx(1.0)

    @torch.no_grad()
    def test_noise_repeats_on_large_latents(self, foundation: Path) -> None:
        net = inner(foundation)
        noise = net.start(torch.zeros(1, 4, 130, 260))
        assert torch.equal(noise[..., :2, :128], noise[..., 128:, 128:256])
        assert torch.equal(noise[..., :8, :8], net.start(torch.zeros(1, 4, 8, 8)))

    def test_settings_out_of_range(self, foundation: Path) -> None:
        net = inner(foundation)
        with pytest.raises(InputError, match="--steps 0: the segmenter latent takes 1 to 1000"):
            net.predict_probabilities(torch.zeros(1, 3, 32, 32), steps=0)
        with pytest.raises(InputError, match="--ensemble 99"):
            net.predict_probabilities(torch.zeros(1, 3, 32, 32), ensemble=99)
