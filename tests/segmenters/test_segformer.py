"""SegFormer: its size, its decoder and its loss."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from morphogen.errors import InputError
from morphogen.segmenters import build, resolve
from morphogen.segmenters.losses import losses_of
from morphogen.segmenters.segformer.model import SegFormer
from morphogen.segmenters.segformer.recipe import published
from morphogen.segmenters.task import SegmenterConfig
from segmenters.base import SegmenterTester

SMALL = {"size": "b0", "weights": "none"}


class TestSegFormer(SegmenterTester):
    name = "segformer"
    options: ClassVar = SMALL
    lr, steps = 1e-3, 80


class TestPublished:
    @pytest.mark.parametrize(
        ("size", "count", "millions"),
        [
            ("b0", 3_752_694, 3.8),
            ("b1", 13_715_798, 13.7),
            ("b2", 27_461_974, 27.5),
            ("b3", 47_337_814, 47.3),
            ("b4", 64_108_374, 64.1),
            ("b5", 84_708_694, 84.7),
        ],
    )
    def test_parameters_with_the_150_classes_of_ade20k(self, size: str, count: int, millions: float) -> None:
        with torch.device("meta"):
            net = SegFormer(size, 150, "none")
        assert sum(p.numel() for p in net.parameters()) == count
        assert round(count / 1e6, 1) == millions

    def test_the_recipe_is_one_that_training_takes(self) -> None:
        options = published(1450)
        assert options == published(3)
        assert options.pop("resolution") == 512
        config = SegmenterConfig(**options)
        assert config.lr is not None
        assert config.lr * config.encoder_lr_scale == pytest.approx(6e-5)


class TestNetwork:
    @torch.no_grad()
    def test_the_whole_agrees_with_transformers(self) -> None:
        """The same weights in transformers' model; its epsilon and its normalisation are set to the authors'."""
        from transformers import SegformerConfig, SegformerForSemanticSegmentation

        torch.manual_seed(0)
        ours = build("segformer", 3, SMALL, pretrained=False).net.eval()
        theirs = SegformerForSemanticSegmentation(SegformerConfig(num_labels=3)).eval()
        state = ours.state_dict()
        theirs.segformer.load_state_dict({k.removeprefix("encoder."): v for k, v in state.items() if "encoder" in k})
        theirs.decode_head.load_state_dict({k.removeprefix("head."): v for k, v in state.items() if "head." in k})
        for name, module in theirs.segformer.named_modules():
            if isinstance(module, nn.LayerNorm) and "patch" not in name and "reduction" not in name:
                module.eps = 1e-6
        image = torch.rand(2, 3, 64, 96) * 2 - 1
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        coarse = theirs(((image + 1) / 2 - mean) / std).logits
        assert coarse.shape == (2, 3, 16, 24)
        wanted = nn.functional.interpolate(coarse, size=(64, 96), mode="bilinear")
        torch.testing.assert_close(ours(image), wanted, rtol=1e-4, atol=1e-5)

    def test_whole_channels_are_dropped_in_training_alone(self) -> None:
        head = build("segformer", 2, SMALL, pretrained=False).net.head
        dropped = head.dropout.train()(torch.ones(8, 256, 3, 3))
        assert dropped.flatten(2).std(dim=2).max() == 0
        assert 0.05 < (dropped[:, :, 0, 0] == 0).float().mean() < 0.15
        assert torch.equal(head.dropout.eval()(torch.ones(1, 256, 3, 3)), torch.ones(1, 256, 3, 3))


def test_the_loss_is_the_cross_entropy_of_every_pixel() -> None:
    torch.manual_seed(0)
    net, image = build("segformer", 3, SMALL, pretrained=False).eval(), torch.rand(2, 3, 32, 64) * 2 - 1
    mask = torch.randint(0, 3, (2, 32, 64))
    logits = net(image).detach().double().numpy()
    total = 0.0
    for row, y, x in np.ndindex(2, 32, 64):
        scores = logits[row, :, y, x]
        total += np.log(np.exp(scores).sum()) - scores[mask[row, y, x]]
    losses = losses_of(net, image, mask, torch.arange(len(image)))
    assert list(losses) == ["cross_entropy"]
    assert float(losses["cross_entropy"].detach()) == pytest.approx(total / mask.numel(), rel=1e-5)


class TestOptions:
    def test_the_published_encoder_is_named_by_its_pinned_id(self) -> None:
        resolved = resolve("segformer", {})
        assert resolved["size"] == "b2"
        assert resolved["weights"].startswith("nvidia/mit-b2@d15ed1f9")
        assert resolve("segformer", resolved) == resolved
        assert resolve("segformer", SMALL) == SMALL

    @pytest.mark.parametrize(("options", "fault"), [({"size": "b6"}, "no size 'b6'"), ({"weights": ""}, "weights ''")])
    def test_others_are_refused_in_a_line(self, options: dict[str, str], fault: str) -> None:
        with pytest.raises(InputError, match=fault):
            resolve("segformer", options)
