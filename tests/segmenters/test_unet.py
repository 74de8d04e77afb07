"""The U-Net and its encoders."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from morphogen.errors import InputError
from morphogen.metrics import lite0, vgg16
from morphogen.metrics.weights import available
from morphogen.segmenters import build, resolve
from segmenters.base import SegmenterTester


class TestLite0UNet(SegmenterTester):
    name = "unet"
    options: ClassVar = {"encoder": "lite0"}


class TestScratchUNet(SegmenterTester):
    name = "unet"
    options: ClassVar = {"encoder": "scratch"}


class TestVgg16:
    """Five times the cost of the others, so it does not run the shared tests."""

    @torch.no_grad()
    def test_shapes_and_feature_levels(self) -> None:
        net = build("unet", 3, {"encoder": "vgg16"}, pretrained=False)
        assert net(torch.zeros(1, 3, 20, 36)).shape == (1, 3, 20, 36)
        levels = vgg16.Vgg16Features()(torch.zeros(1, 3, 32, 32))
        assert [(f.shape[1], f.shape[2]) for f in levels] == list(zip(vgg16.CHANNELS, (32, 16, 8, 4, 2), strict=True))

    @torch.no_grad()
    def test_flax_kernels_compute_a_correlation_in_our_layout(self) -> None:
        rng = np.random.default_rng(0)
        trunk = vgg16.Vgg16Features()
        shapes = [conv.weight.shape for conv in trunk.convs]
        layers = {
            f"Conv_{i}": {
                "kernel": rng.normal(size=(3, 3, inputs, outputs)).astype(np.float32),
                "bias": rng.normal(size=outputs).astype(np.float32),
            }
            for i, (outputs, inputs, _, _) in enumerate(shapes)
        }
        trunk.load_state_dict(vgg16.state_dict_from_flax({"VGG16_0": layers}), strict=True)
        x = rng.normal(size=(5, 5, 3)).astype(np.float32)
        kernel, bias = layers["Conv_0"]["kernel"], layers["Conv_0"]["bias"]
        middle = np.einsum("yxi,yxio->o", x[1:4, 1:4], kernel) + bias
        ours = trunk.convs[0](torch.from_numpy(x).permute(2, 0, 1)[None])[0, :, 2, 2]
        np.testing.assert_allclose(ours.numpy(), middle, rtol=1e-4, atol=1e-4)

    @pytest.mark.skipif(not available("vgg16"), reason="the weights of VGG16 are not installed")
    @torch.no_grad()
    def test_published_weights_load_and_agree_with_a_literal_first_layer(self) -> None:
        from morphogen.metrics.weights import load_member

        trunk = vgg16.vgg16_encoder(pretrained=True)
        layer = load_member("vgg16")["VGG16_0"]["Conv_0"]
        x = torch.rand(1, 3, 16, 16)
        middle = np.einsum("iyx,yxio->o", x[0, :, 7:10, 7:10].numpy(), np.asarray(layer["kernel"])) + layer["bias"]
        np.testing.assert_allclose(trunk.convs[0](x)[0, :, 8, 8].numpy(), middle, rtol=1e-4, atol=1e-5)


def _opened_transformers_efficientnet() -> nn.Module:
    """transformers' EfficientNet-B0 as a Lite0: ReLU6, and its squeeze-and-excitation gates held open (factor 1)."""
    from transformers import EfficientNetConfig, EfficientNetModel

    config = EfficientNetConfig(
        width_coefficient=1.0, depth_coefficient=1.0, hidden_act="relu6", hidden_dim=1280, batch_norm_eps=1e-3
    )
    model = EfficientNetModel(config).eval()
    for name, parameter in model.named_parameters():
        if ".squeeze_excite." in name:
            nn.init.constant_(parameter, 100.0 if name.endswith("expand.bias") else 0.0)
    return model


class TestLite0:
    def test_parameter_counts(self) -> None:
        assert sum(p.numel() for p in lite0.Lite0().parameters()) == 4_652_008
        assert sum(p.numel() for p in lite0.Lite0Features().parameters()) == 2_958_848

    def test_no_squeeze_and_excitation_and_the_batch_norm_of_the_port(self) -> None:
        model = lite0.Lite0()
        norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        assert len(norms) == 49
        assert {norm.eps for norm in norms} == {1e-3}
        assert not [name for name in model.state_dict() if "_se_" in name]

    @torch.no_grad()
    def test_same_padding_is_that_of_tensorflow(self) -> None:
        for kernel, stride, size in ((3, 1, 7), (5, 1, 8), (3, 2, 8), (5, 2, 12)):
            ours = lite0.SameConv2d(2, 3, kernel, stride)
            x = torch.randn(1, 2, size, size)
            # TensorFlow: output ceil(size / stride), the smaller half of the padding first
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            before, after = total // 2, total - total // 2
            padded = nn.functional.pad(x, (before, after, before, after))
            torch.testing.assert_close(ours(x), nn.functional.conv2d(padded, ours.weight, stride=stride))

    @torch.no_grad()
    def test_every_feature_level_agrees_with_transformers(self) -> None:
        """The same random weights in an independent graph."""
        torch.manual_seed(0)
        theirs = _opened_transformers_efficientnet()
        ours = lite0.Lite0().eval()
        for module in ours.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
                nn.init.normal_(module.bias, 0, 0.5)
        source = [v for k, v in ours.state_dict().items() if not k.startswith("_fc")]
        target = [v for k, v in theirs.state_dict().items() if ".squeeze_excite." not in k]
        for into, value in zip(target, source, strict=True):
            into.copy_(value)
        x = torch.randn(2, 3, 64, 96)
        out = theirs(x, output_hidden_states=True)
        taps = [out.hidden_states[i + 1] for i in (0, 2, 4, 10, 15)]
        for level, reference in zip(ours.features(x), taps, strict=True):
            torch.testing.assert_close(level, reference, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(ours.embed(x), out.pooler_output, rtol=1e-3, atol=1e-4)

    @pytest.mark.skipif(not available("lite0"), reason="the weights of EfficientNet-Lite0 are not installed")
    @torch.no_grad()
    def test_published_weights_name_photographs(self) -> None:
        """A cat (ImageNet 281, 282, 285: tabby, tiger cat, Egyptian cat) and an espresso (967), from scikit-image."""
        from PIL import Image
        from skimage import data

        model = lite0.pretrained_lite0()
        for photo, names in ((data.chelsea(), {281, 282, 285}), (data.coffee(), {967})):
            side = min(photo.shape[:2])
            top, left = (photo.shape[0] - side) // 2, (photo.shape[1] - side) // 2
            square = Image.fromarray(photo[top : top + side, left : left + side]).resize((224, 224))
            x = torch.from_numpy(np.array(square)).permute(2, 0, 1)[None] / 255
            mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (lite0.MEAN, lite0.STD))
            x = (x - mean) / std
            assert int(model(x).argmax()) in names
            assert all(0.05 < (level > 0).float().mean() < 0.95 for level in model.features(x))  # neither dead nor full


class TestTable:
    def test_auto_is_resolved_once_and_stays(self) -> None:
        resolved = resolve("unet", {})
        assert resolved["encoder"] == ("lite0" if available("lite0") else "scratch")
        assert resolve("unet", resolved) == resolved

    def test_auto_without_weights_is_scratch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("morphogen.metrics.weights.available", lambda name: False)
        assert resolve("unet", {})["encoder"] == "scratch"

    def test_unknown_names_are_one_line(self) -> None:
        with pytest.raises(InputError, match="no such segmenter; known are unet"):
            resolve("u-net", {})
        with pytest.raises(InputError, match="has no encoder 'resnet'"):
            resolve("unet", {"encoder": "resnet"})
