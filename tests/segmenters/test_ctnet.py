"""CTNet: its modules and its contrast, each beside a literal version."""

from __future__ import annotations

import math
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from morphogen.errors import InputError
from morphogen.segmenters import build, published, resolve
from morphogen.segmenters.ctnet.contrast import contrast, pixel_contrast, sample
from morphogen.segmenters.ctnet.model import CTNet
from morphogen.segmenters.ctnet.modules import CollectionInformation, ProjectionHead, SelfMultiscaleInteraction
from morphogen.segmenters.pyramid import MIT, MixTransformer
from morphogen.segmenters.structure import structure_loss
from morphogen.segmenters.task import SegmenterConfig
from segmenters.base import SegmenterTester

_SEEDS = torch.arange(3)
"""Of the rows; CTNet draws nothing by them."""


class TestCTNet(SegmenterTester):
    name = "ctnet"
    options: ClassVar = {"size": "b0", "weights": "none"}
    resolution: ClassVar = 64  # its logits have a quarter of the side
    steps: ClassVar = 65

    def test_losses_are_means_over_rows(self) -> None:
        """The structure loss is. The contrast is between the images of a batch, as published, so it is not."""
        net, image, mask = self.net(3).eval(), torch.rand(3, 3, 64, 64) * 2 - 1, torch.randint(0, 3, (3, 64, 64))
        whole = net.losses(image, mask, _SEEDS)
        rows = [net.losses(image[i : i + 1], mask[i : i + 1], _SEEDS) for i in range(3)]
        assert whole.keys() == {"structure", "contrast"}
        mean = torch.stack([row["structure"] for row in rows]).mean()
        torch.testing.assert_close(whole["structure"], mean, rtol=1e-4, atol=1e-5)

    def test_the_losses_are_those_of_the_logits_and_of_the_deepest_level(self) -> None:
        net, image, mask = _randomised(self.net()), torch.rand(2, 3, 64, 64) * 2 - 1, torch.randint(0, 2, (2, 64, 64))
        image = image.double()
        torch.manual_seed(1)
        losses = net.losses(image, mask, _SEEDS)
        logits = net(image)
        torch.testing.assert_close(losses["structure"], structure_loss(logits[:, 1:], mask))
        deepest = net.net.reduce[3](net.net.encoder(image)[3])
        embedding = F.interpolate(net.net.project(deepest), scale_factor=4, mode="bilinear", align_corners=True)
        torch.manual_seed(1)
        torch.testing.assert_close(losses["contrast"], 0.1 * pixel_contrast(embedding, mask, logits.argmax(1)))

    @torch.no_grad()
    def test_logits_are_enlarged_by_pixel_centres(self) -> None:
        net, small = self.net().eval(), []
        net.net.predict.register_forward_hook(lambda _, inputs, z: small.append(z))
        found = net(torch.rand(1, 3, 64, 96) * 2 - 1)[:, 1]
        (z,) = small
        for axis, n in ((-2, 16), (-1, 24)):
            at = ((torch.arange(4 * n) + 0.5) / 4 - 0.5).clip(0, n - 1)
            weights = (1 - (at[:, None] - torch.arange(n)).abs()).clip(min=0)
            z = (z.movedim(axis, -1) @ weights.T).movedim(-1, axis)
        torch.testing.assert_close(found, z[:, 0])

    def test_the_published_size(self) -> None:
        with torch.device("meta"):
            encoder = MixTransformer(MIT["b3"])
            net = CTNet(encoder, MIT["b3"].channels, 2)
        assert sum(p.numel() for p in encoder.parameters()) == 44_072_128
        assert sum(p.numel() for p in net.parameters()) == 44_290_657  # so the authors' code counts it


def _randomised(module: nn.Module) -> nn.Module:
    """In float64 and in evaluation, with running statistics and affine parts that are not those of a new net."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, 0, 0.1)
            nn.init.uniform_(part.running_var, 0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.3)
    return module.double().eval()


def _norm(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    mean, var, gain, shift = (
        state[f"{name}.{key}"].view(-1, 1, 1) for key in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (var + 1e-5).sqrt() * gain + shift


def _conv(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    """By unfolding."""
    weight, bias = state[f"{name}.weight"], state.get(f"{name}.bias", torch.zeros(1))
    columns = F.unfold(x, weight.shape[-1], padding=weight.shape[-1] // 2)
    return (weight.flatten(1) @ columns).view(len(x), len(weight), *x.shape[-2:]) + bias.view(-1, 1, 1)


def _doubled(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    """The transposed convolution (kernel 4, stride 2, padding 1): every pixel adds its patch to the output."""
    weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    b, _, h, w = x.shape
    y = torch.zeros(b, weight.shape[1], 2 * h + 2, 2 * w + 2, dtype=x.dtype)
    for i in range(h):
        for j in range(w):
            y[..., 2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += torch.einsum("bi,ioyx->boyx", x[..., i, j], weight)
    return y[..., 1:-1, 1:-1] + bias.view(-1, 1, 1)


def _bilinear(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Centres of pixels on centres, the border repeated."""

    def weights(inputs: int, outputs: int) -> Tensor:
        at = ((np.arange(outputs) + 0.5) * inputs / outputs - 0.5).clip(0, inputs - 1)
        return torch.from_numpy(np.maximum(0, 1 - np.abs(at[:, None] - np.arange(inputs))))

    return weights(x.shape[-2], size[0]) @ x @ weights(x.shape[-1], size[1]).T


def _mean2(x: Tensor) -> Tensor:
    h, w = x.shape[-2] // 2 * 2, x.shape[-1] // 2 * 2
    return (x[..., :h:2, :w:2] + x[..., 1:h:2, :w:2] + x[..., :h:2, 1:w:2] + x[..., 1:h:2, 1:w:2]) / 4


@torch.no_grad()
def test_smim_against_a_literal_version() -> None:
    torch.manual_seed(0)
    module = _randomised(SelfMultiscaleInteraction(6))
    state, x = module.state_dict(), torch.randn(2, 6, 7, 10).double()

    def conv(name: str, y: Tensor) -> Tensor:
        return _conv(state, f"convs.{name}", y)

    def rectified(name: str, y: Tensor) -> Tensor:
        return _norm(state, f"norms.{name}", y).relu()

    h1, l1 = rectified("h0", conv("hh0", x)), rectified("l0", conv("hl0", _mean2(x)))
    h2 = rectified("h1", conv("hh1", h1) + conv("lh1", _bilinear(l1, (7, 10))))
    l2 = rectified("l1", conv("ll1", l1) + conv("hl1", _mean2(h1)))
    expected = x + rectified("h2", conv("hh2", h2) + conv("lh2", _bilinear(l2, (7, 10))))
    torch.testing.assert_close(module(x), expected)


@torch.no_grad()
def test_cim_against_a_literal_version() -> None:
    torch.manual_seed(0)
    module = _randomised(CollectionInformation(5))
    state = module.state_dict()

    def up(y: Tensor) -> Tensor:
        return _norm(state, "up.1.1", _conv(state, "up.1.0", _doubled(state, "up.0", y)))

    high, middle, low = (torch.randn(2, 5, 2 * k, 3 * k).double() for k in (1, 2, 4))
    m = up(high) * middle + middle
    fine = up(middle) * low + low
    torch.testing.assert_close(module(high, middle, low), up(m) * fine + fine)


@torch.no_grad()
def test_projection_against_a_literal_version() -> None:
    torch.manual_seed(0)
    module = _randomised(ProjectionHead(4))
    state, x = module.state_dict(), torch.randn(2, 4, 2, 1).double()
    y = x
    for i in (0, 3, 6):
        y = _norm(state, f"project.{i + 1}", _doubled(state, f"project.{i}", y)).relu()
    y = _conv(state, "project.9", y)
    assert y.shape == (2, 4, 16, 8)
    torch.testing.assert_close(module(x), y / y.square().sum(1, keepdim=True).sqrt())


class TestContrast:
    def test_against_the_definition(self) -> None:
        rng = np.random.default_rng(0)
        x, labels = rng.normal(size=(14, 5)), [0, 1, 2, 0, 1, 2, 0, 1, 0, 1, 0, 0, 2, 0]
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        s = x @ x.T / 0.1
        rows = []
        for i, own in enumerate(labels):
            apart = sum(math.exp(s[i, k]) for k, label in enumerate(labels) if label != own)
            together = [j for j, label in enumerate(labels) if label == own and j != i]
            rows.append(
                -sum(math.log(math.exp(s[i, j]) / (math.exp(s[i, j]) + apart)) for j in together) / len(together)
            )
        found = contrast(torch.from_numpy(x), torch.tensor(labels))
        assert float(found) == pytest.approx(0.1 / 0.07 * np.mean(rows), rel=1e-9)

    def test_perfect_classes_have_the_closed_form_and_are_contrasted_across_images(self) -> None:
        """Orthogonal classes: s = 10 within, 0 across; 3 images x 2 classes x 100 pixels, so 300 of the other class."""
        mask = (torch.arange(20) < 9).long().expand(3, 20, 20)
        embedding = F.one_hot(mask, 2).movedim(-1, 1).float()
        expected = 0.1 / 0.07 * math.log(1 + 300 * math.exp(-10))
        assert float(pixel_contrast(embedding, mask, mask)) == pytest.approx(expected, rel=1e-4)

    def test_the_pixels_are_shared_among_many_classes(self) -> None:
        """8 images x 2 classes: 1024 / 16 = 64 pixels each, 512 of the other class."""
        mask = (torch.arange(20) < 9).long().expand(8, 20, 20)
        embedding = F.one_hot(mask, 2).movedim(-1, 1).float()
        expected = 0.1 / 0.07 * math.log(1 + 512 * math.exp(-10))
        assert float(pixel_contrast(embedding, mask, mask)) == pytest.approx(expected, rel=1e-4)

    @pytest.mark.parametrize("columns", [0, 5])
    def test_a_class_of_a_hundred_pixels_is_left_out(self, columns: int) -> None:
        mask = (torch.arange(20) < columns).long().expand(1, 20, 20)
        embedding = torch.randn(1, 4, 20, 20, requires_grad=True)
        loss = pixel_contrast(embedding, mask, mask)
        loss.backward()
        assert loss.item() == 0
        assert embedding.grad is not None
        assert embedding.grad.isfinite().all()

    def test_nothing_large_enough_is_zero_and_keeps_the_graph(self) -> None:
        embedding = torch.randn(2, 4, 8, 8, requires_grad=True)
        loss = pixel_contrast(embedding, torch.zeros(2, 8, 8).long(), torch.zeros(2, 8, 8).long())
        loss.backward()
        assert loss.item() == 0
        assert embedding.grad is not None

    @pytest.mark.parametrize(
        ("hard", "easy", "expected"),
        [
            (60, 60, (20, 20)),
            (60, 5, (35, 5)),
            (5, 60, (5, 35)),
            (0, 60, (0, 40)),
            (60, 0, (40, 0)),
            (20, 20, (20, 20)),
        ],
    )
    def test_half_of_the_sample_is_wrong_where_it_can_be(self, hard: int, easy: int, expected: tuple[int, int]) -> None:
        place = torch.randperm(150)
        of_class, right = torch.zeros(150, dtype=torch.bool), torch.zeros(150, dtype=torch.bool)
        of_class[place[: hard + easy]] = True
        right[place[hard:]] = True  # also outside of the class
        found = sample(of_class, right, 40)
        assert len(found.unique()) == 40
        assert of_class[found].all()
        assert (int((~right[found]).sum()), int(right[found].sum())) == expected

    def test_every_pixel_can_be_drawn(self) -> None:
        of_class, right = torch.ones(30, dtype=torch.bool), torch.arange(30) < 15
        drawn = torch.cat([sample(of_class, right, 6) for _ in range(100)])
        assert len(drawn.unique()) == 30


class TestPublishedWeights:
    def test_the_encoder_takes_a_checkpoint_of_mit(self, tmp_path: Path) -> None:
        """Of which layouts, is tested with the encoder."""
        torch.manual_seed(0)
        state = MixTransformer(MIT["b0"]).state_dict()
        save_file({**state, "classifier.weight": torch.zeros(1000, 256)}, tmp_path / "model.safetensors")
        encoder = build("ctnet", 2, {"size": "b0", "weights": str(tmp_path)}).net.encoder
        assert all(torch.equal(value, state[key]) for key, value in encoder.state_dict().items())
        with pytest.raises(InputError, match="is not this encoder"):
            build("ctnet", 2, {"size": "b1", "weights": str(tmp_path)})

    def test_options(self) -> None:
        resolved = resolve("ctnet", {})
        assert resolved == {"size": "b3", "weights": MIT["b3"].weights}
        assert resolve("ctnet", resolved) == resolved
        with pytest.raises(InputError, match="ctnet: has no size 'b6'"):
            resolve("ctnet", {"size": "b6"})


def test_the_published_recipe_is_one_that_training_takes() -> None:
    recipe = published("ctnet", 1450)
    assert recipe.pop("resolution") == 352
    config = SegmenterConfig(**recipe)
    assert config.max_train_steps == 31 * 91 * 3
    assert config.scales == (0.75, 1.0, 1.25)
