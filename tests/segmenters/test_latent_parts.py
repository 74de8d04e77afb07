"""Schedule, label embedding, networks and mask autoencoder of the latent segmenter."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, UNet2DModel
from diffusers.models.attention_processor import Attention

from morphogen.errors import InputError
from morphogen.segmenters import build, read_options, resolve
from morphogen.segmenters.any_size import refuse_size
from morphogen.segmenters.latent.config import LatentConfig, T
from morphogen.segmenters.latent.labels import colours, distances, logits, picture
from morphogen.segmenters.latent.networks import make_autoencoder, make_denoiser, widened
from morphogen.segmenters.latent.schedule import alphas_cumprod, visited
from morphogen.segmenters.latent.vision import LITE0_CHANNELS, Lite0Vision
from small_foundations import small_foundation, small_tiny, small_unet


class TestSchedule:
    def test_the_published_numbers(self) -> None:
        abar = alphas_cumprod()
        assert abar[999].item() == pytest.approx(6.7e-4, rel=5e-3)
        w = ((1 - abar) / abar).sqrt()
        assert w[999].item() == pytest.approx(38.7, abs=0.05)
        assert w.mean().item() == pytest.approx(6.1, abs=0.05)
        assert w.median().item() == pytest.approx(2.4, abs=0.05)

    def test_is_the_scaled_linear_one_of_diffusers(self) -> None:
        other = DDIMScheduler(beta_start=0.0015, beta_end=0.0155, beta_schedule="scaled_linear")
        torch.testing.assert_close(alphas_cumprod().float(), other.alphas_cumprod, rtol=1e-4, atol=1e-8)

    @pytest.mark.parametrize("steps", [1, 2, 7, 50, T])
    def test_timesteps_fall_evenly_from_the_last(self, steps: int) -> None:
        times = visited(steps)
        assert times[0] == T - 1
        assert len(times) == steps
        assert times[-1] >= 0
        gaps = [a - b for a, b in pairwise(times)]
        assert all(gap in (T // steps, -(-T // steps)) for gap in gaps)


class TestLabels:
    def test_two_classes_are_black_and_white(self) -> None:
        assert colours(2).tolist() == [[-1, -1, -1], [1, 1, 1]]

    @pytest.mark.parametrize("n_classes", [3, 5, 8, 9, 27, 100, 256])
    def test_colours_are_as_far_apart_as_their_grid(self, n_classes: int) -> None:
        palette = colours(n_classes)
        assert palette.shape == (n_classes, 3)
        assert palette.abs().max() <= 1
        side = next(n for n in range(2, 9) if n**3 >= n_classes)
        assert torch.pdist(palette).min() >= 2 / (side - 1) - 1e-5

    def test_too_many_classes_are_one_line(self) -> None:
        with pytest.raises(InputError, match="257 classes; it has colours for 2 to 256"):
            colours(257)

    def test_two_classes_are_read_as_published(self) -> None:
        decoded = 3 * torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) - 1.5
        y = ((decoded + 1) / 2).clip(0, 1).mean(dim=1)
        found = logits(decoded, colours(2))
        torch.testing.assert_close(found.softmax(dim=1)[:, 1], y.clip(1e-6, 1 - 1e-6))
        assert torch.equal(found.argmax(dim=1) == 1, y > 0.5)
        even = logits(torch.zeros(1, 3, 2, 2), colours(2))
        assert not even.argmax(dim=1).any()
        assert logits(torch.full((1, 3, 2, 2), 9.0), colours(2)).isfinite().all()

    @pytest.mark.parametrize("n_classes", [3, 7, 256])
    def test_a_picture_is_read_back_with_noise_below_half_the_distance(self, n_classes: int) -> None:
        palette = colours(n_classes)
        mask = torch.randint(0, n_classes, (2, 16, 16))
        step = torch.nn.functional.normalize(torch.randn(2, 3, 16, 16), dim=1) * 0.49 * torch.pdist(palette).min()
        assert torch.equal(logits(picture(mask, palette) + step.clamp(-1, 1), palette).argmax(dim=1), mask)

    def test_logits_differ_by_scaled_squared_distances(self) -> None:
        palette, decoded = colours(6), torch.rand(1, 3, 4, 4) * 2 - 1
        squared = (decoded[:, None] - palette[None, :, :, None, None]).square().sum(dim=2)
        scale = 16 / torch.pdist(palette).min().square()
        torch.testing.assert_close(
            logits(decoded, palette).softmax(dim=1), (-scale * squared).softmax(dim=1), rtol=1e-4, atol=1e-6
        )
        assert torch.equal(distances(decoded, colours(2)).argmax(dim=1) == 1, decoded.sum(dim=1) > 0)


class TestNetworks:
    def test_widened_input_ignores_what_is_new(self) -> None:
        conv = torch.nn.Conv2d(4, 8, 3, padding=1)
        wide, z = widened(conv, 4), torch.randn(2, 4, 8, 8)
        assert torch.equal(wide(torch.cat([z, torch.zeros_like(z)], dim=1)), wide(torch.cat([z, 9 * z], dim=1)))
        torch.testing.assert_close(wide(torch.cat([z, z], dim=1)), conv(z))

    def test_published_sizes_on_no_memory(self) -> None:
        """LDM's U-Net of LSUN churches and KL-f8, from their configs."""
        kl_f8 = {
            "block_out_channels": [128, 256, 512, 512], "down_block_types": ["DownEncoderBlock2D"] * 4,
            "up_block_types": ["UpDecoderBlock2D"] * 4, "layers_per_block": 2, "latent_channels": 4,
        }  # fmt: skip
        row = resolve("latent", {"denoiser": "churches"})["networks"]["denoiser"]
        with torch.device("meta"):
            autoencoder = make_autoencoder({"autoencoder": kl_f8}, None)
            net = make_denoiser({"denoiser": row}, None, 4, 0.2)
        assert sum(p.numel() for p in autoencoder.parameters()) == 83_653_863
        count = sum(p.numel() for p in net.parameters())
        assert count == 294_973_828  # published: 294 M, of which four input channels fewer (6,912 weights)
        attentions = [m for m in net.modules() if isinstance(m, Attention)]
        assert {m.heads for m in attentions} == {8}
        assert len(attentions) == 4 * 2 + 1 + 4 * 3
        assert all(m.scale == pytest.approx((m.inner_dim / 8) ** -0.5) for m in attentions)
        assert net.conv_in.in_channels == 8
        assert net.conv_out.out_channels == 4
        assert not any("downsamplers.0.conv.weight" in name for name, _ in net.named_parameters())

    def test_eight_heads_attend_as_eight_heads(self) -> None:
        """The heads that are set after the net is built are those that it computes with."""
        shape = {
            "class": "UNet2DModel", "heads": 2,
            "config": {
                "sample_size": 4, "in_channels": 4, "out_channels": 4, "block_out_channels": [8, 16],
                "down_block_types": ["AttnDownBlock2D"] * 2, "up_block_types": ["AttnUpBlock2D"] * 2,
                "layers_per_block": 1, "attention_head_dim": 4, "norm_num_groups": 4,
            },
        }  # fmt: skip
        net = make_denoiser({"denoiser": shape}, None, 4, 0.0)
        attention: Any = net.down_blocks[1].attentions[0]
        x = torch.randn(1, 16, 2, 2)
        h = attention.group_norm(x.flatten(2)).transpose(1, 2)
        q, k, v = (
            layer(h).unflatten(2, (2, 8)).transpose(1, 2) for layer in (attention.to_q, attention.to_k, attention.to_v)
        )
        mixed = ((q @ k.transpose(2, 3)) / 8**0.5).softmax(dim=-1) @ v
        out = attention.to_out[0](mixed.transpose(1, 2).flatten(2)).transpose(1, 2).unflatten(2, (2, 2))
        torch.testing.assert_close(attention(x), out + x, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("kind", ["sd", "sdxl"])
    @torch.no_grad()
    def test_the_layouts_of_large_foundations(self, kind: str, tmp_path: Path) -> None:
        made = small_foundation(kind, tmp_path)
        made.save(tmp_path / "f")
        net = build("latent", 2, resolve("latent", {"foundation": str(tmp_path / "f"), "vision": "autoencoder"})).eval()
        z = torch.randn(2, 4, 8, 8)
        t = torch.tensor([3, 900])
        told = made.conditioning(["", ""])
        plain = made.unet(z, t, encoder_hidden_states=told.states, added_cond_kwargs=told.added).sample
        for tau in (torch.zeros_like(z), torch.randn_like(z)):  # before training the image has no say
            torch.testing.assert_close(net.net._denoiser(z, tau, t), plain, rtol=1e-4, atol=1e-5)
        again = build(
            "latent",
            2,
            resolve("latent", {"foundation": str(tmp_path / "f"), "vision": "autoencoder"}),
            pretrained=False,
        )
        again.load_state_dict(net.state_dict())

    @torch.no_grad()
    def test_an_unconditional_denoiser_of_a_folder(self, tmp_path: Path) -> None:
        small_tiny().save(tmp_path / "f")
        unet = UNet2DModel(
            sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8, 16), layers_per_block=1,
            down_block_types=("AttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "AttnUpBlock2D"),
            norm_num_groups=4, attention_head_dim=4,
        )  # fmt: skip
        unet.save_pretrained(tmp_path / "u")
        options = {"foundation": str(tmp_path / "f"), "denoiser": str(tmp_path / "u"), "vision": "autoencoder"}
        found = resolve("latent", options)
        assert found["dropout"] == 0.2
        net = build("latent", 3, found).eval()
        z = torch.randn(1, 4, 8, 8)
        torch.testing.assert_close(net.net._denoiser(z, z, torch.tensor([9])), unet.eval()(z, 9).sample)
        assert net(torch.rand(1, 3, 32, 32)).shape == (1, 3, 32, 32)
        assert net.net.denoiser.down_blocks[0].resnets[0].dropout.p == 0.2


class TestBadInput:
    @pytest.mark.parametrize(
        ("words", "said"),
        [
            ("objective=v", "latent: has no objective 'v'; choose one of paper, x0, x0-align, x0-pixel"),
            ("latent_weight=-1", "latent_weight=-1.0: must be 0 or more"),
            ("pixel_weight=nan", "pixel_weight=nan: must be 0 or more"),
            ("dropout=1.5", "dropout=1.5: must lie in 0 to 1"),
            ("seed=-1", "seed=-1: must be 0 or more"),
            ("steps=0", "--steps 0: the segmenter latent takes 1 to 1000"),
            ("steps=1001", "--steps 1001: the segmenter latent takes 1 to 1000"),
            ("ensemble=65", "--ensemble 65: the segmenter latent takes 1 to 64"),
            ("denoiser=no-such", "denoiser=no-such: no such denoiser"),
            ("foundation=no-such", "no-such: no such foundation"),
            ("objective=x0-align+align=no-such", "align=no-such: no such encoder"),
            ("networks=x", "there is no option 'networks'"),
        ],
    )
    def test_options(self, words: str, said: str) -> None:
        with pytest.raises(InputError, match=said):
            resolve("latent", read_options("latent", words.split("+")))

    def test_networks_that_do_not_fit(self, tmp_path: Path) -> None:
        small_tiny().save(tmp_path / "f")
        inpainting = small_tiny()
        inpainting.unet = small_unet("sd", 9)
        inpainting.save(tmp_path / "g")
        foundation = {"foundation": str(tmp_path / "f")}
        with pytest.raises(InputError, match="its U-Net takes 9 channels and gives 4, where the latents of"):
            resolve("latent", {"foundation": str(tmp_path / "g")})
        with pytest.raises(InputError, match="its U-Net takes 9 channels and gives 4, where the latents of"):
            resolve("latent", {**foundation, "denoiser": str(tmp_path / "g")})
        with pytest.raises(InputError, match="holds a AutoencoderKL, not a U-Net"):
            resolve("latent", {**foundation, "denoiser": str(tmp_path / "f" / "vae")})

    def test_more_classes_than_colours(self) -> None:
        with pytest.raises(InputError, match="257 classes"):
            build("latent", 257, {"foundation": "tiny"})


def test_options_are_words_and_resolve_to_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_tiny().save(tmp_path / "here" / "f")
    monkeypatch.chdir(tmp_path)
    found = resolve("latent", read_options("latent", ["objective=paper", "foundation=here/f", "latent_weight=0.5"]))
    assert found["foundation"] == str(tmp_path / "here" / "f")
    assert found["dropout"] == 0.0
    assert found["networks"]["prompt"] == {"states": [1, 64, 16]}
    monkeypatch.chdir("/")
    assert resolve("latent", found) == found
    assert LatentConfig(**found).networks["denoiser"]["class"] == "UNet2DConditionModel"


class TestLite0Vision:
    def test_every_level_lies_where_it_was_in_the_image(self) -> None:
        """Pooled or interpolated to the grid, brought to one width, summed; against torch's own adaptive pooling."""
        torch.manual_seed(0)
        vision = Lite0Vision(4, pretrained=False).eval()
        image = torch.rand(2, 3, 64, 96) * 2 - 1
        levels = vision.encoder((image * 127.5 + 127.5 - 127) / 128)  # as the weights were trained
        total = torch.zeros(2, 64, 16, 24)
        for lateral, level in zip(vision.laterals, levels, strict=True):
            brought = lateral(level)
            finer = level.shape[-1] >= 24
            total += (
                torch.nn.functional.adaptive_avg_pool2d(brought, (16, 24))
                if finer
                else torch.nn.functional.interpolate(brought, size=(16, 24), mode="bilinear")
            )
        wanted = vision.to_latent(torch.nn.functional.silu(vision.norm(total)))
        found = vision(image)
        assert found.shape == (2, LITE0_CHANNELS, 16, 24)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)

    def test_the_segmenter_reads_it_and_at_first_does_not_heed_it(self, tmp_path: Path) -> None:
        small_tiny().save(tmp_path)
        options = {"foundation": str(tmp_path), "vision": "lite0"}
        net: Any = build("latent", 2, resolve("latent", options), pretrained=False)
        assert net.multiple == 32
        line = r"--resolution 72: is not a multiple of 32, as .* \(8\) and the vision encoder lite0 \(32\) ask; take 64"
        with pytest.raises(InputError, match=line):
            refuse_size(net, 72)
        assert net.net.denoiser.conv_in.in_channels == 4 + LITE0_CHANNELS
        noise, dark, bright = torch.randn(1, 4, 8, 8), torch.full((1, 3, 32, 32), -1.0), torch.ones(1, 3, 32, 32)
        net.eval()
        taus = [net.net.encode_image(image) for image in (dark, bright)]
        assert not torch.equal(*taus)
        assert torch.equal(*(net.net.denoise(tau, noise) for tau in taus))

    @pytest.mark.parametrize(
        ("objective", "installed", "vision"),
        [("x0-pixel", True, "lite0"), ("x0-pixel", False, "autoencoder"), ("paper", True, "autoencoder")],
    )
    def test_auto_keeps_the_published_vision_with_what_was_published(
        self, objective: str, installed: bool, vision: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from morphogen.metrics import weights

        monkeypatch.setattr(weights, "available", lambda name: installed)
        assert resolve("latent", {"objective": objective})["vision"] == vision

    def test_no_other_vision(self) -> None:
        with pytest.raises(InputError, match="has no vision 'clip'; choose one of auto, autoencoder, lite0"):
            LatentConfig(vision="clip")  # type: ignore[arg-type]
