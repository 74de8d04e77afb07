"""What every segmenter must do, once for all of them: inherit `SegmenterTester` and name the segmenter."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from morphogen.data.phantoms import phantom
from morphogen.data.records import Dataset
from morphogen.segmenters import build, entry, published, resolve
from morphogen.segmenters.losses import losses_of
from morphogen.segmenters.predictor import load_segmenter, save_segmenter
from morphogen.segmenters.task import SegmenterConfig
from morphogen.training.net_files import to_input

SEEDS = torch.arange(4)
"""Of the rows of a batch."""


class PhantomPairs:
    """Phantoms in memory, with the interface of `Pairs`; `n_classes` > 2 splits the lesion by columns."""

    def __init__(self, n: int, resolution: int = 32, first_seed: int = 0, n_classes: int = 2) -> None:
        self.resolution = resolution
        names = ("background", *(f"part{k}" for k in range(1, n_classes)))
        self.dataset = Dataset(f"phantoms{first_seed}-{n}", Path("phantoms"), (), classes=names)
        self.pairs = [self._pair(seed, n_classes) for seed in range(first_seed, first_seed + n)]

    def _pair(self, seed: int, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
        image, mask = phantom("mucosa", seed, self.resolution)
        parts = 1 + np.arange(self.resolution) * (n_classes - 1) // self.resolution
        return np.ascontiguousarray(image.transpose(2, 0, 1)), (mask * parts).astype(np.uint8)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self.pairs[index]

    def stacked(self) -> tuple[Tensor, Tensor]:
        """Images (N, 3, R, R) in [-1, 1] and masks (N, R, R) int64."""
        images, masks = zip(*self.pairs, strict=True)
        return to_input(np.stack(images)), torch.from_numpy(np.stack(masks)).long()


class SegmenterTester:
    """Inherit, set `name` (and `options`), and the class's tests run on that segmenter.

    Networks are built with random weights, so that nothing needs to be installed.
    """

    name: ClassVar[str]
    options: ClassVar[Mapping[str, Any]] = {}
    steps: ClassVar[int] = 35
    lr: ClassVar[float] = 3e-3
    resolution: ClassVar[int] = 32
    """Of the phantoms that are overfitted."""

    def net(self, n_classes: int = 2) -> nn.Module:
        """The segmenter, from a fixed seed."""
        torch.manual_seed(0)
        return build(self.name, n_classes, self.options, pretrained=False)

    @pytest.mark.parametrize("n_classes", [2, 5])
    def test_logits_of_every_class_and_a_gradient_for_every_parameter(self, n_classes: int) -> None:
        net, image = self.net(n_classes).train(), torch.rand(2, 3, 64, 64) * 2 - 1
        assert net(image).shape == (2, n_classes, 64, 64)
        losses = losses_of(net, image, torch.randint(0, n_classes, (2, 64, 64)), SEEDS[:2])
        assert all(loss.ndim == 0 and loss.isfinite() for loss in losses.values())
        sum(losses.values()).backward()
        trained = [(name, p) for name, p in net.named_parameters() if p.requires_grad]
        silent = [name for name, p in trained if p.grad is None or not p.grad.isfinite().all()]
        assert not silent

    def test_losses_are_means_over_rows(self) -> None:
        """So that the parts of an accumulated batch, and of several processes, add up."""
        net, image, mask = self.net(3).eval(), torch.rand(3, 3, 64, 64) * 2 - 1, torch.randint(0, 3, (3, 64, 64))
        whole = losses_of(net, image, mask, SEEDS[:3])
        rows = [losses_of(net, image[i : i + 1], mask[i : i + 1], SEEDS[i : i + 1]) for i in range(3)]
        for name, loss in whole.items():
            torch.testing.assert_close(loss, torch.stack([row[name] for row in rows]).mean(), rtol=1e-4, atol=1e-5)

    def test_losses_at_a_size_that_does_not_divide(self) -> None:
        net = self.net().train()
        losses = losses_of(net, torch.rand(2, 3, 50, 70) * 2 - 1, torch.randint(0, 2, (2, 50, 70)), SEEDS[:2])
        assert all(loss.isfinite() for loss in losses.values())

    def test_half_precision_gives_nearly_the_same(self) -> None:
        net, image, mask = self.net().eval(), torch.rand(2, 3, 64, 64) * 2 - 1, torch.randint(0, 2, (2, 64, 64))
        with torch.autocast("cpu", torch.bfloat16):
            half = losses_of(net, image, mask, SEEDS[:2])
        for name, loss in losses_of(net, image, mask, SEEDS[:2]).items():
            torch.testing.assert_close(half[name].float(), loss, rtol=0.1, atol=0.05)

    @pytest.mark.parametrize("size", [(1, 1), (33, 65), (50, 20), (96, 64)])
    @torch.no_grad()
    def test_any_image_size(self, size: tuple[int, int]) -> None:
        logits = self.net().eval()(torch.rand(2, 3, *size) * 2 - 1)
        assert logits.shape == (2, 2, *size)
        assert logits.isfinite().all()

    @torch.no_grad()
    def test_a_row_does_not_depend_on_the_others_in_evaluation(self) -> None:
        net, x = self.net().eval(), torch.rand(3, 3, 64, 64) * 2 - 1
        torch.testing.assert_close(net(x)[1:2], net(x[1:2]), rtol=1e-4, atol=1e-5)

    def test_overfits_four_phantoms(self) -> None:
        images, masks = PhantomPairs(4, self.resolution).stacked()
        net = self.net().train()
        optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=self.lr)
        for step in range(self.steps):
            optimizer.zero_grad()
            sum(losses_of(net, images, masks, SEEDS[:4] + 100 * step).values()).backward()
            optimizer.step()
        labels = net(images).argmax(dim=1)
        both = (labels * masks).sum()
        assert 2 * both / (labels.sum() + masks.sum()) > 0.9

    @torch.no_grad()
    def test_round_trip_through_files_gives_the_same_logits(self, tmp_path: Path) -> None:
        net = self.net(3)
        net.train()(torch.rand(4, 3, 64, 64) * 2 - 1)  # moves running statistics, which must be saved too
        net.eval()
        architecture = resolve(self.name, self.options)
        save_segmenter(tmp_path, net, self.name, architecture, ("background", "a", "b"), 64)
        again = load_segmenter(tmp_path)
        x = torch.rand(2, 3, 64, 64) * 2 - 1
        assert torch.equal(again.net(x), net(x))
        assert again.classes == ("background", "a", "b")

    def test_published_recipe_is_a_way_to_train(self) -> None:
        if not entry(self.name).recipe:
            pytest.skip("no recipe was published")
        few, many = (published(self.name, n) for n in (100, 1000))
        side = few.pop("resolution")
        assert side % 32 == 0
        config = SegmenterConfig(**few)
        assert config.max_train_steps <= many["max_train_steps"]
        assert config.loop().max_grad_norm == config.max_grad_norm

    @torch.no_grad()
    def test_exported_graph_computes_the_same(self) -> None:
        net, x = self.net().eval(), torch.rand(2, 3, 64, 64) * 2 - 1
        exported = torch.export.export(net, (x,)).module()
        torch.testing.assert_close(exported(x), net(x), rtol=1e-4, atol=1e-5)
