"""The table of classifiers, and what every one of them must do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from morphogen.classifiers import CLASSIFIERS, build, named, option_names, read_options, refuse_size, resolve
from morphogen.classifiers.vision import VisionConfig, _encoder
from morphogen.errors import InputError

PUBLISHED = {"lite0": 4_652_008, "resnet50": 25_557_032, "vit-b16": 86_567_656, "convnext": 28_589_128}
"""Parameters with the 1000 classes of ImageNet."""
LIGHT = ("small", "lite0")


def net(name: str, n_classes: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return build(name, n_classes, pretrained=False)


@pytest.mark.parametrize("name", PUBLISHED)
def test_as_many_parameters_as_published(name: str) -> None:
    with torch.device("meta"):
        found = sum(p.numel() for p in build(name, 1000, pretrained=False).parameters())
    assert found == PUBLISHED[name]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_shapes_without_content(name: str) -> None:
    with torch.device("meta"):
        made = build(name, 7, pretrained=False).eval()
        side = 2 * max(16, CLASSIFIERS[name].multiple)
        assert made(torch.empty(2, 3, side, side)).shape == (2, 7)


@pytest.mark.parametrize("name", LIGHT)
def test_logits_and_a_gradient_for_every_parameter(name: str) -> None:
    made = net(name, 5).train()
    logits = made(torch.rand(2, 3, 64, 64) * 2 - 1)
    assert logits.shape == (2, 5)
    nn.functional.cross_entropy(logits, torch.tensor([0, 4])).backward()
    assert not [n for n, p in made.named_parameters() if p.grad is None or not p.grad.isfinite().all()]


@pytest.mark.parametrize("name", LIGHT)
@torch.no_grad()
def test_a_row_does_not_depend_on_the_others_in_evaluation(name: str) -> None:
    made, image = net(name).eval(), torch.rand(3, 3, 64, 64) * 2 - 1
    torch.testing.assert_close(made(image)[1:2], made(image[1:2]), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_lite0_sees_the_image_as_its_weights_expect_it() -> None:
    """The embedding is that of `Lite0` on 8-bit values less 127, over 128."""
    made = net("lite0").eval()
    bytes_ = torch.randint(0, 256, (2, 3, 32, 32)).float()
    expected = made.head(made.encoder.embed((bytes_ - 127) / 128))
    torch.testing.assert_close(made(bytes_ / 127.5 - 1), expected, rtol=1e-4, atol=1e-5)


def test_lite0_starts_from_imagenet_where_it_is_installed() -> None:
    from morphogen.metrics.lite0 import pretrained_lite0
    from morphogen.metrics.weights import available

    if not available("lite0"):
        pytest.skip("the weights of lite0 are not installed")
    ours, theirs = build("lite0", 3).encoder.state_dict(), pretrained_lite0().state_dict()
    assert theirs.keys() - ours.keys() == {"_fc.weight", "_fc.bias"}
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())
    assert all(p.requires_grad for p in build("lite0", 3).parameters())


class TestPublishedWeights:
    """On architectures of the same kind, small enough for a test."""

    def small(self, kind: str) -> tuple[type, type, object]:
        import transformers as t

        if kind == "vit":
            config = t.ViTConfig(
                hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=20, image_size=32
            )
            return t.ViTForImageClassification, t.ViTModel, config
        sizes = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 2, 1]}
        if kind == "convnext":
            return t.ConvNextForImageClassification, t.ConvNextModel, t.ConvNextConfig(**sizes)
        return t.ResNetForImageClassification, t.ResNetModel, t.ResNetConfig(embedding_size=8, **sizes)

    @pytest.mark.parametrize("kind", ["resnet", "vit", "convnext"])
    def test_every_tensor_is_loaded(self, kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        whole, model, config = self.small(kind)
        saved = whole(config)
        saved.save_pretrained(tmp_path)
        capfd.readouterr()
        options = {"add_pooling_layer": False} if kind == "vit" else {}
        ours = _encoder(model, config, VisionConfig(weights=str(tmp_path)), True, **options)
        theirs = getattr(saved, kind).state_dict()
        assert ours.state_dict().keys() == theirs.keys()
        assert all(torch.equal(value, theirs[key]) for key, value in ours.state_dict().items())
        assert capfd.readouterr() == ("", "")

    def test_another_architecture_is_one_line(self, tmp_path: Path) -> None:
        _, model, config = self.small("resnet")
        whole, _, other = self.small("convnext")
        whole(other).save_pretrained(tmp_path)
        with pytest.raises(InputError, match="does not hold the weights of ResNetModel"):
            _encoder(model, config, VisionConfig(weights=str(tmp_path)), True)
        config.embedding_size = 16  # type: ignore[attr-defined]
        whole, _, narrow = self.small("resnet")
        whole(narrow).save_pretrained(tmp_path)
        with pytest.raises(InputError, match="does not hold the weights of ResNetModel"):
            _encoder(model, config, VisionConfig(weights=str(tmp_path)), True)

    def test_a_damaged_file_is_one_line(self, tmp_path: Path) -> None:
        whole, model, config = self.small("resnet")
        whole(config).save_pretrained(tmp_path)
        (tmp_path / "model.safetensors").write_bytes(b"nothing")
        with pytest.raises(InputError, match="does not hold the weights"):
            _encoder(model, config, VisionConfig(weights=str(tmp_path)), True)


class TestWords:
    def test_name_and_options(self) -> None:
        assert named("small+width=24") == ("small", {"width": 24})
        assert resolve("small", {}) == {"width": 16}
        assert resolve("resnet50", {}) == {"weights": "none"}
        assert option_names("lite0") == ["weights"]

    def test_an_unknown_name(self) -> None:
        with pytest.raises(InputError, match="no such classifier; known are small, lite0"):
            named("smal")

    @pytest.mark.parametrize(
        ("name", "options", "said"),
        [
            ("small", {"width": 0}, "width 0: must be positive"),
            ("lite0", {"weights": "coco"}, "choose one of imagenet, none"),
            ("resnet50", {"weights": ""}, "give none, a folder or a hub id"),
        ],
    )
    def test_wrong_options(self, name: str, options: dict[str, object], said: str) -> None:
        with pytest.raises(InputError, match=said):
            resolve(name, options)

    def test_weights_that_are_nowhere(self) -> None:
        with pytest.raises(InputError, match=r"nowhere: holds no config\.json; give weights=FOLDER"):
            build("resnet50", 2, read_options("resnet50", ["weights=nowhere"]))

    def test_sizes_that_do_not_divide(self) -> None:
        refuse_size("small", 50)
        refuse_size("lite0", 64)
        with pytest.raises(InputError, match="--resolution 50: lite0 takes multiples of 32 px; take 64"):
            refuse_size("lite0", 50)
