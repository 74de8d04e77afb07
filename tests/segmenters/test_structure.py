"""The structure loss against a literal statement of the published one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from morphogen.segmenters.binary import with_background
from morphogen.segmenters.structure import structure_loss


def literal(z: np.ndarray, mask: np.ndarray) -> float:
    """PraNet's loss of a sigmoid map, pixel by pixel, in float64: the mean over images."""
    total = 0.0
    for logits, truth in zip(z[:, 0].astype(float), (mask == 1).astype(float), strict=True):
        height, width = truth.shape
        weights = both = union = entropy = 0.0
        for y in range(height):
            for x in range(width):
                window = truth[max(0, y - 15) : y + 16, max(0, x - 15) : x + 16]
                w = 1 + 5 * abs(window.sum() / 31**2 - truth[y, x])
                p = 1 / (1 + math.exp(-logits[y, x]))
                t = truth[y, x]
                entropy += w * -(t * math.log(p) + (1 - t) * math.log(1 - p))
                weights += w
                both += w * p * t
                union += w * (p + t)
        total += entropy / weights + 1 - (both + 1) / (union - both + 1)
    return total / len(z)


@pytest.mark.parametrize("size", [(40, 35), (8, 8)])
def test_two_classes_are_the_published_loss(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    z, mask = rng.normal(size=(3, 1, *size)) * 2, np.zeros((3, *size), dtype=np.int64)
    mask[0, 2:6, 3:7] = 1
    mask[1] = 1
    ours = structure_loss(torch.from_numpy(z), torch.from_numpy(mask))
    assert float(ours) == pytest.approx(literal(z, mask), rel=1e-5)


def test_several_classes_share_the_cross_entropy_and_have_an_iou_each() -> None:
    """Class by class in float64; the cross-entropy has the weight of the class whose outline is nearest."""
    rng = np.random.default_rng(1)
    z, mask = rng.normal(size=(2, 3, 12, 14)), rng.integers(0, 4, (2, 12, 14)) * (np.arange(14) > 4)
    mask[1] = 0
    expected = 0.0
    for logits, labels in zip(z, mask, strict=True):
        p = np.exp(np.concatenate([np.zeros((1, 12, 14)), logits]))
        p /= p.sum(axis=0)
        truth = np.stack([labels == k for k in range(4)]).astype(float)
        w = np.zeros((4, 12, 14))
        for k, y, x in np.ndindex(w.shape):
            w[k, y, x] = 1 + 5 * abs(
                truth[k, max(0, y - 15) : y + 16, max(0, x - 15) : x + 16].sum() / 961 - truth[k, y, x]
            )
        largest = w[1:].max(axis=0)
        expected -= (largest * np.log((p * truth).sum(axis=0))).sum() / largest.sum() / 2
        for k in (1, 2, 3):
            both, total = (w[k] * p[k] * truth[k]).sum(), (w[k] * (p[k] + truth[k])).sum()
            expected += (1 - (both + 1) / (total - both + 1)) / 6
    ours = structure_loss(torch.from_numpy(z), torch.from_numpy(mask))
    assert float(ours) == pytest.approx(expected, rel=1e-5)


def test_the_order_of_foreground_classes_is_of_no_consequence() -> None:
    torch.manual_seed(0)
    z, mask = torch.randn(2, 3, 20, 20), torch.randint(0, 4, (2, 20, 20))
    turned = torch.tensor([0, 3, 1, 2])[mask]
    torch.testing.assert_close(structure_loss(z, mask), structure_loss(z[:, [1, 2, 0]], turned))


def test_a_batch_may_be_split_anywhere() -> None:
    torch.manual_seed(0)
    z, mask = torch.randn(3, 2, 20, 20), torch.randint(0, 3, (3, 20, 20))
    parts = [structure_loss(z[i : i + 1], mask[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(structure_loss(z, mask), torch.stack(parts).mean())


def test_right_and_certain_costs_nothing() -> None:
    mask = torch.randint(0, 3, (1, 16, 16))
    z = 60.0 * torch.stack([(mask == k).float() - 0.5 for k in (1, 2)], dim=1)
    assert float(structure_loss(z, mask)) < 1e-3
    assert float(structure_loss(-z, mask)) > 5


def test_softmax_beside_a_background_of_zero_is_the_sigmoid() -> None:
    z = torch.randn(2, 1, 4, 4)
    torch.testing.assert_close(with_background(z).softmax(dim=1)[:, 1:], z.sigmoid())
