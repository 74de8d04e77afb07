"""Polyp-PVT: its size, its three modules and its loss."""

from __future__ import annotations

from math import ceil, floor
from typing import ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter
from torch import Tensor, nn

from morphogen.errors import InputError
from morphogen.segmenters import build, resolve
from morphogen.segmenters.losses import losses_of
from morphogen.segmenters.polyp_pvt.model import PolypPVT
from morphogen.segmenters.polyp_pvt.modules import CamouflageIdentification, CascadedFusion, SimilarityAggregation
from morphogen.segmenters.polyp_pvt.recipe import published
from morphogen.segmenters.task import SegmenterConfig
from segmenters.base import SegmenterTester

SMALL = {"size": "b0", "weights": "none"}
Array = NDArray[np.float64]


class TestPolypPVT(SegmenterTester):
    name = "polyp-pvt"
    options: ClassVar = SMALL
    resolution, lr, steps = 96, 5e-4, 32  # its logits have a stride of 8 px


class TestPublished:
    def test_parameters(self) -> None:
        with torch.device("meta"):
            net = PolypPVT("b2", 2, "none")
        assert sum(p.numel() for p in net.parameters()) == 25_107_604
        assert sum(p.numel() for p in net.encoder.parameters()) + 513_000 == 25_362_856  # PVTv2-B2 as a classifier

    def test_the_recipe_is_one_that_training_takes(self) -> None:
        options = published(1450)
        assert options.pop("resolution") == 352
        config = SegmenterConfig(**options)
        assert config.max_train_steps == 100 * 91 * 3
        assert [round(352 * scale / 32) * 32 for scale in config.scales] == [256, 352, 448]


def random_module(module: nn.Module) -> nn.Module:
    """In evaluation and float64, its statistics and affine parts no longer 0 and 1."""
    torch.manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.2)
            part.running_var.uniform_(0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.2)
    return module.double().eval()


def conv_norm(module: nn.Sequential, x: Array) -> Array:
    """A 3 x 3 convolution with zeros around, pixel by pixel, and the normalisation by its formula."""
    conv, norm = module
    w = conv.weight.detach().numpy()
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    out = np.empty((len(w), *x.shape[1:]))
    for y, column in np.ndindex(x.shape[1:]):
        out[:, y, column] = np.einsum("ockl,ckl->o", w, padded[:, y : y + 3, column : column + 3])
    mean, variance, gain, bias = (
        v.detach().numpy()[:, None, None] for v in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return (out - mean) / np.sqrt(variance + norm.eps) * gain + bias


def twice(x: Array) -> Array:
    """Linear interpolation along either axis, the first and last pixel staying where they are."""
    for axis in (1, 2):
        n = x.shape[axis]
        at = np.linspace(0, n - 1, 2 * n)
        x = np.apply_along_axis(lambda line, at=at, n=n: np.interp(at, np.arange(n), line), axis, x)
    return x


class TestModules:
    @torch.no_grad()
    def test_cascaded_fusion(self) -> None:
        cfm = random_module(CascadedFusion())
        fourth, third, second = (torch.randn(1, 32, 2 * s, 3 * s, dtype=torch.float64) for s in (1, 2, 4))
        x4, x3, x2 = (x[0].numpy() for x in (fourth, third, second))
        y3 = conv_norm(cfm.fourth_gates_third, twice(x4)) * x3
        y2 = conv_norm(cfm.fourth_gates_second, twice(twice(x4))) * conv_norm(cfm.third_gates_second, twice(x3)) * x2
        y3 = conv_norm(cfm.third_joined, np.concatenate([y3, conv_norm(cfm.fourth_joins, twice(x4))]))
        y2 = conv_norm(cfm.second_joined, np.concatenate([y2, conv_norm(cfm.third_joins, twice(y3))]))
        np.testing.assert_allclose(cfm(fourth, third, second)[0], conv_norm(cfm.out, y2), rtol=1e-9, atol=1e-9)

    @torch.no_grad()
    def test_camouflage_identification(self) -> None:
        cim = random_module(CamouflageIdentification(32))
        image = torch.randn(1, 32, 5, 6, dtype=torch.float64)
        x = image[0].numpy()
        down, up = (conv.weight.numpy()[:, :, 0, 0] for conv in (cim.squeeze, cim.excite))
        seen = sum(up @ np.maximum(down @ pooled, 0) for pooled in (x.mean(axis=(1, 2)), x.max(axis=(1, 2))))
        x = x / (1 + np.exp(-seen))[:, None, None]
        maps = np.pad(np.stack([x.mean(axis=0), x.max(axis=0)]), ((0, 0), (3, 3), (3, 3)))
        kernel, out = cim.places.weight[0].numpy(), np.empty_like(x)
        for y, column in np.ndindex(5, 6):
            score = (kernel * maps[:, y : y + 7, column : column + 7]).sum()
            out[:, y, column] = x[:, y, column] / (1 + np.exp(-score))
        np.testing.assert_allclose(cim(image)[0], out, rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize("size", [(7, 9), (4, 4)])
    @torch.no_grad()
    def test_similarity_aggregation(self, size: tuple[int, int]) -> None:
        sam = random_module(SimilarityAggregation())
        fused, details = torch.randn(2, 1, 32, *size, dtype=torch.float64)
        np.testing.assert_allclose(sam(fused, details)[0], literal_sam(sam, fused, details), rtol=1e-9, atol=1e-9)


def literal_sam(sam: nn.Module, fused: Tensor, details: Tensor) -> Array:
    """Pixel by pixel and node by node."""
    x, t = fused[0].numpy(), details[0].numpy()
    height, width = x.shape[1:]
    weight = np.exp(t[1]) / np.exp(t).sum(axis=0)
    state, projected = (
        np.einsum("oc,chw->ohw", conv.weight.numpy()[:, :, 0, 0], x) + conv.bias.numpy()[:, None, None]
        for conv in (sam.state, sam.project)
    )
    anchors = []
    for row, column in np.ndindex(4, 4):  # the inner bins of six by six
        rows = slice(floor((row + 1) * height / 6), ceil((row + 2) * height / 6))
        columns = slice(floor((column + 1) * width / 6), ceil((column + 2) * width / 6))
        anchors.append((projected * weight)[:, rows, columns].mean(axis=(1, 2)))
    share = np.empty((16, height, width))
    for y, column in np.ndindex(height, width):
        scores = np.exp([anchor @ projected[:, y, column] for anchor in anchors])
        share[:, y, column] = scores / scores.sum()
    nodes = np.stack([(state * share[n]).sum(axis=(1, 2)) for n in range(16)])
    mixed = sam.graph.nodes.weight.numpy() @ nodes + sam.graph.nodes.bias.numpy()[:, None] - nodes
    mixed = np.maximum(mixed @ sam.graph.states.weight.numpy()[:, :, 0].T, 0)
    back = sum(mixed[n][:, None, None] * share[n] for n in range(16))
    return x + np.einsum("oc,chw->ohw", sam.extend.weight.numpy()[:, :, 0, 0], back)


def literal_structure_loss(z: Array, truth: Array) -> float:
    """The weighted cross-entropy and IoU of PraNet, of one map, in float64."""
    weight = 1 + 5 * np.abs(uniform_filter(truth, 31, mode="constant") - truth)
    p = 1 / (1 + np.exp(-z))
    entropy = -(weight * (truth * np.log(p) + (1 - truth) * np.log(1 - p))).sum() / weight.sum()
    both = (weight * p * truth).sum()
    return entropy + 1 - (both + 1) / ((weight * (p + truth)).sum() - both + 1)


def interpolated(x: Array, axis: int, at: Array) -> Array:
    """The values of x at these places along an axis, in a straight line between its pixels."""
    weights = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(x.shape[axis])))
    return np.moveaxis(np.moveaxis(x, axis, -1) @ weights.T, -1, axis)


class TestNetwork:
    def test_both_predictions_are_trained(self) -> None:
        torch.manual_seed(0)
        net, image = build("polyp-pvt", 2, SMALL, pretrained=False).eval(), torch.rand(2, 3, 64, 32) * 2 - 1
        mask = torch.zeros(2, 64, 32, dtype=torch.long)
        mask[0, 5:30, 4:20] = 1
        maps = [z.detach().double().numpy()[:, 0] for z in net.net.predictions(image)]
        truth = mask.numpy().astype(float)
        losses = losses_of(net, image, mask, torch.arange(len(image)))
        for loss, z in zip((losses["cfm"], losses["sam"]), maps, strict=True):
            wanted = np.mean([literal_structure_loss(*pair) for pair in zip(z, truth, strict=True)])
            assert float(loss.detach()) == pytest.approx(wanted, rel=1e-5)
        assert len(losses) == 2

    @torch.no_grad()
    def test_the_answer_is_the_sigmoid_of_their_sum(self) -> None:
        torch.manual_seed(0)
        net, image = build("polyp-pvt", 2, SMALL, pretrained=False).eval(), torch.rand(1, 3, 64, 32) * 2 - 1
        first, second = net.net.predictions(image)
        assert first.shape == second.shape == (1, 1, 64, 32)
        torch.testing.assert_close(net(image).softmax(dim=1)[:, 1:], (first + second).sigmoid())

    @torch.no_grad()
    def test_details_are_halved_corners_on_corners_and_answers_enlarged_by_pixel_centres(self) -> None:
        torch.manual_seed(0)
        net, image = random_module(build("polyp-pvt", 2, SMALL, pretrained=False).net), torch.rand(1, 3, 96, 64) * 2 - 1
        finest, *coarse = net.encoder(image)
        second, third, fourth = (narrow(level) for narrow, level in zip(net.narrow, coarse, strict=True))
        fused, details = net.cfm(fourth, third, second), net.narrow_cim(net.cim(finest)).numpy()
        for axis, n in ((-2, 12), (-1, 8)):
            details = interpolated(details, axis, np.linspace(0, 2 * n - 1, n))
        given: list[Tensor] = []
        net.sam.register_forward_pre_hook(lambda _, inputs: given.extend(inputs))
        predictions, joined = net.predictions(image), net.sam(fused, torch.from_numpy(details).float())
        np.testing.assert_allclose(given[1].numpy(), details, rtol=1e-4, atol=1e-5)
        for z, found in zip((net.out_cfm(fused), net.out_sam(joined)), predictions, strict=True):
            wanted = z.numpy()
            for axis, n in ((-2, 12), (-1, 8)):
                wanted = interpolated(wanted, axis, ((np.arange(8 * n) + 0.5) / 8 - 0.5).clip(0, n - 1))
            np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-4, atol=1e-4)

    @torch.no_grad()
    def test_the_finest_level_reaches_the_second_prediction_alone(self) -> None:
        torch.manual_seed(0)
        net = build("polyp-pvt", 2, SMALL, pretrained=False).net.eval()
        image = torch.rand(1, 3, 64, 64) * 2 - 1
        before = net.predictions(image)
        net.narrow_cim[1].bias += torch.linspace(-3, 3, 32)
        after = net.predictions(image)
        assert torch.equal(before[0], after[0])
        assert not torch.allclose(before[1], after[1])


class TestOptions:
    def test_the_published_encoder_is_named_by_its_pinned_id(self) -> None:
        resolved = resolve("polyp-pvt", {})
        assert resolved["size"] == "b2"
        assert resolved["weights"].startswith("OpenGVLab/pvt_v2_b2@e7872344")
        assert resolve("polyp-pvt", resolved) == resolved
        assert resolve("polyp-pvt", SMALL) == SMALL

    @pytest.mark.parametrize(("options", "fault"), [({"size": "b1"}, "no size 'b1'"), ({"weights": ""}, "weights ''")])
    def test_others_are_refused_in_a_line(self, options: dict[str, str], fault: str) -> None:
        with pytest.raises(InputError, match=fault):
            resolve("polyp-pvt", options)
