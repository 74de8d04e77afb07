"""SANet: its encoder, its modules and its loss, each beside a literal version."""

from __future__ import annotations

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
from morphogen.segmenters.binary import with_background
from morphogen.segmenters.sanet.correction import corrected
from morphogen.segmenters.sanet.losses import dice_loss
from morphogen.segmenters.sanet.model import SANet, shallow_attention
from morphogen.segmenters.sanet.res2net import Bottle2neck, Res2Net, _stage
from morphogen.segmenters.task import SegmenterConfig
from segmenters.base import SegmenterTester

SMALL = {"size": "14", "weights": "none"}


class TestSANet(SegmenterTester):
    name = "sanet"
    options: ClassVar = SMALL
    steps: ClassVar = 55

    def test_correction_is_for_use_alone(self) -> None:
        net, image = self.net().eval(), torch.rand(1, 3, 64, 64) * 2 - 1
        with torch.no_grad():
            net.net.predict.bias.sub_(net.net.logits(image).median())  # so that both signs occur
            z = net.net.logits(image)
            assert torch.equal(net(image), with_background(corrected(z)))
            assert not torch.allclose(net(image), with_background(z))
            torch.testing.assert_close(net.net.losses(image, torch.zeros(1, 64, 64).long())["dice"], torch.tensor(1.0))
        net.train()
        assert torch.equal(net(image).isfinite(), torch.ones(1, 2, 64, 64, dtype=torch.bool))
        torch.testing.assert_close(net(image), with_background(net.net.logits(image)))

    def test_for_two_classes_the_losses_are_the_published_ones(self) -> None:
        net, image, mask = self.net().train(), torch.rand(2, 3, 64, 64) * 2 - 1, torch.randint(0, 2, (2, 64, 64))
        losses, z = net.net.losses(image, mask), net.net.logits(image)[:, 0]
        torch.testing.assert_close(losses["cross_entropy"], F.binary_cross_entropy_with_logits(z, mask.float()))
        p, rows = z.sigmoid().double().detach().numpy(), mask.numpy()
        dice = [1 - 2 * sum(p[i][rows[i] == 1]) / (p[i].sum() + (rows[i] == 1).sum() + 1) for i in range(2)]
        assert losses["dice"].item() == pytest.approx(np.mean(dice), rel=1e-5)


def test_dice_of_several_classes() -> None:
    rng = np.random.default_rng(0)
    logits, mask = rng.normal(size=(2, 4, 5, 6)), rng.integers(0, 3, (2, 5, 6))  # class 3 occurs nowhere
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = [
        1 - 2 * sum(p[i, k][mask[i] == k]) / (p[i, k].sum() + (mask[i] == k).sum() + 1)
        for i in range(2)
        for k in (1, 2, 3)
    ]
    assert expected[2] == 1
    loss = dice_loss(torch.from_numpy(logits), torch.from_numpy(mask))
    assert float(loss) == pytest.approx(np.mean(expected), rel=1e-5)


class TestCorrection:
    def test_against_the_rule_by_assignment(self) -> None:
        z = torch.randn(3, 1, 9, 11) + torch.tensor([-1.0, 0.2, 1.0]).view(3, 1, 1, 1)
        z[:, :, ::4] = 0  # of neither side
        for row, found in zip(z.clone(), corrected(z), strict=True):
            positive, negative = row > 0, row < 0
            row[positive] /= positive.sum() / 99
            row[negative] /= negative.sum() / 99
            torch.testing.assert_close(found, row)

    @pytest.mark.parametrize("sign", [1, -1])
    def test_an_image_of_one_side_alone_stays_as_it_is(self, sign: int) -> None:
        z = sign * (torch.rand(1, 1, 4, 4) + 0.1)
        torch.testing.assert_close(corrected(z), z)

    def test_no_label_changes(self) -> None:
        z = torch.randn(2, 4, 16, 16) - 1
        again = corrected(z)
        assert torch.equal(with_background(z).argmax(1), with_background(again).argmax(1))
        assert (again.abs() >= z.abs()).all()


def _bilinear(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(..., h, w) -> (..., *size), corners on corners."""

    def weights(inputs: int, outputs: int) -> np.ndarray:
        at = np.linspace(0, inputs - 1, outputs)
        return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(inputs)))

    return weights(x.shape[-2], size[0]) @ x @ weights(x.shape[-1], size[1]).T


def test_shallow_attention_against_a_literal_version() -> None:
    f3, f4, f5 = (torch.rand(2, 3, *size) for size in ((12, 10), (6, 5), (3, 3)))
    found = shallow_attention(f3, f4, f5).numpy()
    fine, middle, deep = f3.numpy(), _bilinear(f4.numpy(), (12, 10)), _bilinear(f5.numpy(), (12, 10))
    expected = np.concatenate([deep, middle * deep, fine * middle * deep], axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def _randomised(module: nn.Module) -> nn.Module:
    """In evaluation, with running statistics and affine parts that are not those of a new net."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, 0, 0.1)
            nn.init.uniform_(part.running_var, 0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.3)
    return module.eval()


def _step(state: dict[str, Tensor], conv: str, norm: str, x: Tensor, stride: int = 1) -> Tensor:
    """Convolution by unfolding, then batch norm by its formula, in float64."""
    weight, b, side = state[f"{conv}.weight"], len(x), state[f"{conv}.weight"].shape[-1]
    columns = F.unfold(x, side, padding=side // 2, stride=stride)
    size = [-(-length // stride) for length in x.shape[-2:]]
    y = (weight.flatten(1) @ columns).view(b, len(weight), *size)
    mean, var, gain, shift = (
        state[f"{norm}.{key}"].view(-1, 1, 1) for key in ("running_mean", "running_var", "weight", "bias")
    )
    return (y - mean) / (var + 1e-5).sqrt() * gain + shift


@pytest.mark.parametrize("stride", [1, 2])
@torch.no_grad()
def test_a_block_that_opens_a_stage_against_its_formula(stride: int) -> None:
    torch.manual_seed(0)
    (block,) = _randomised(_stage(8, 64, 1, stride)).double()
    state, x = block.state_dict(), torch.randn(2, 8, 7, 9).double()
    groups = _step(state, "conv1", "bn1", x).relu().split(26, dim=1)
    ys = [_step(state, f"convs.{i}", f"bns.{i}", groups[i], stride).relu() for i in range(3)]
    # the zeros around the image count among the nine
    ys.append(F.unfold(groups[3], 3, padding=1, stride=stride).view(2, 26, 9, -1).mean(2).view(ys[0].shape))
    small = x if stride == 1 else _half_means(x)
    y = _step(state, "conv3", "bn3", torch.cat(ys, 1)) + _step(state, "downsample.1", "downsample.2", small)
    torch.testing.assert_close(block(x), y.relu())


def _half_means(x: Tensor) -> Tensor:
    """Means of 2 x 2; of what is there where a row or column is odd."""
    rows, columns = ([slice(i, i + 2) for i in range(0, side, 2)] for side in x.shape[-2:])
    return torch.stack([torch.stack([x[..., r, c].mean((-2, -1)) for c in columns], -1) for r in rows], -2)


@torch.no_grad()
def test_a_later_block_is_a_cascade() -> None:
    torch.manual_seed(0)
    block = _randomised(Bottle2neck(256, 64, 1, None)).double()
    state, x = block.state_dict(), torch.randn(2, 256, 5, 6).double()
    x1, x2, x3, x4 = _step(state, "conv1", "bn1", x).relu().split(26, dim=1)
    y1 = _step(state, "convs.0", "bns.0", x1).relu()
    y2 = _step(state, "convs.1", "bns.1", x2 + y1).relu()
    y3 = _step(state, "convs.2", "bns.2", x3 + y2).relu()
    y = _step(state, "conv3", "bn3", torch.cat([y1, y2, y3, x4], 1)) + x
    torch.testing.assert_close(block(x), y.relu())


def _published_layout(blocks: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of timm's res2net50d (``blocks = (3, 4, 6, 3)``), its classifier included."""

    def norm(name: str, channels: int) -> dict[str, tuple[int, ...]]:
        kinds = ("weight", "bias", "running_mean", "running_var")
        return {**{f"{name}.{kind}": (channels,) for kind in kinds}, f"{name}.num_batches_tracked": ()}

    shapes: dict[str, tuple[int, ...]] = {"conv1.0.weight": (32, 3, 3, 3), **norm("conv1.1", 32)}
    shapes |= {"conv1.3.weight": (32, 32, 3, 3), **norm("conv1.4", 32), "conv1.6.weight": (64, 32, 3, 3)}
    shapes |= norm("bn1", 64)
    inputs = 64
    for stage, (n, width, outputs) in enumerate(zip(blocks, (26, 52, 104, 208), (256, 512, 1024, 2048), strict=True)):
        for i in range(n):
            name = f"layer{stage + 1}.{i}"
            shapes |= {f"{name}.conv1.weight": (4 * width, inputs, 1, 1), **norm(f"{name}.bn1", 4 * width)}
            for j in range(3):
                shapes |= {f"{name}.convs.{j}.weight": (width, width, 3, 3), **norm(f"{name}.bns.{j}", width)}
            shapes |= {f"{name}.conv3.weight": (outputs, 4 * width, 1, 1), **norm(f"{name}.bn3", outputs)}
            if i == 0:
                shapes |= {f"{name}.downsample.1.weight": (outputs, inputs, 1, 1)}
                shapes |= norm(f"{name}.downsample.2", outputs)
            inputs = outputs
    return {**shapes, "fc.weight": (1000, 2048), "fc.bias": (1000,)}


class TestPublishedWeights:
    def test_layout_and_parameter_counts(self) -> None:
        with torch.device("meta"):
            encoder = Res2Net()
            net = SANet(encoder, 2)
        layout = _published_layout((3, 4, 6, 3))
        assert {key: tuple(value.shape) for key, value in encoder.state_dict().items()} == {
            key: shape for key, shape in layout.items() if not key.startswith("fc.")
        }
        assert sum(p.numel() for p in encoder.parameters()) == 23_669_352
        assert sum(p.numel() for p in net.parameters()) == 23_899_497  # so the authors' code counts it

    def test_every_tensor_of_a_checkpoint_finds_its_place(self, tmp_path: Path) -> None:
        file = tmp_path / "model.safetensors"
        layout = _published_layout((1, 1, 1, 1))
        state = {key: torch.rand(shape) if shape else torch.tensor(7) for key, shape in layout.items()}
        save_file(state, file)
        encoder = build("sanet", 2, {"size": "14", "weights": str(tmp_path)}).net.encoder
        assert all(torch.equal(value, state[key]) for key, value in encoder.state_dict().items())
        save_file({key: value for key, value in state.items() if "num_batches" not in key}, file)
        build("sanet", 2, {"size": "14", "weights": str(file)})
        del state["layer2.0.convs.1.weight"]
        save_file(state, file)
        with pytest.raises(
            InputError, match=r"model.safetensors: is not this encoder \(it lacks layer2.0.convs.1.weight"
        ):
            build("sanet", 2, {"size": "14", "weights": str(file)})

    def test_without_the_hub_the_error_names_the_way_out(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        with pytest.raises(InputError, match=r"timm/res2net50d.in1k@.*weights=none"):
            build("sanet", 2)

    def test_options(self) -> None:
        resolved = resolve("sanet", {})
        assert resolved == {"size": "50", "weights": "timm/res2net50d.in1k@e940e287c899660a0c2a187122a0d6de2b0af6c3"}
        assert resolve("sanet", resolved) == resolved
        with pytest.raises(InputError, match="has no size '101'"):
            resolve("sanet", {"size": "101"})
        with pytest.raises(InputError, match="size 14 has no published weights; add weights=none"):
            resolve("sanet", {"size": "14"})


def test_the_published_recipe_is_one_that_training_takes() -> None:
    recipe = published("sanet", 1450)
    assert recipe.pop("resolution") == 352
    config = SegmenterConfig(**recipe)
    assert config.max_train_steps == 128 * 23
    sides = [round(scale * 352 / 32) * 32 for scale in config.scales]
    assert {side: sides.count(side) for side in sides} == {256: 1, 288: 2, 320: 3, 352: 4}
