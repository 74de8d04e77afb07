"""The segmentation loss against literal versions."""

from __future__ import annotations

import math

import pytest
import torch

from morphogen.segmenters.losses import cross_entropy, soft_dice_loss


@pytest.fixture(params=[2, 4])
def case(request: pytest.FixtureRequest) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(request.param)
    return torch.randn(3, request.param, 5, 6), torch.randint(0, request.param, (3, 5, 6))


def test_cross_entropy_is_the_mean_negative_log_probability(case: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, mask = case
    total = 0.0
    for b in range(3):
        for y in range(5):
            for x in range(6):
                scores = [math.exp(v) for v in logits[b, :, y, x].tolist()]
                total -= math.log(scores[int(mask[b, y, x])] / sum(scores))
    assert cross_entropy(logits, mask).item() == pytest.approx(total / 90, rel=1e-5)


def test_soft_dice_is_the_literal_formula_over_foreground_classes(case: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, mask = case
    probability = logits.softmax(dim=1)
    losses = []
    for b in range(3):
        for k in range(1, logits.shape[1]):
            p, g = probability[b, k].flatten().tolist(), (mask[b] == k).flatten().tolist()
            both = sum(pi for pi, gi in zip(p, g, strict=True) if gi)
            losses.append(1 - (2 * both + 1) / (sum(p) + sum(g) + 1))
    assert soft_dice_loss(logits, mask).item() == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_perfect_and_empty() -> None:
    mask = torch.zeros(1, 8, 8, dtype=torch.long)
    mask[0, 2:5, 2:5] = 1
    sure = torch.stack([1.0 - mask, mask.float()], dim=1) * 200 - 100
    assert soft_dice_loss(sure, mask) < 1e-4
    assert cross_entropy(sure, mask) < 1e-4
    assert soft_dice_loss(-sure, mask) > 0.9
    empty = torch.zeros_like(mask)
    assert soft_dice_loss(torch.stack([1.0 - empty, empty.float()], dim=1) * 200 - 100, empty) < 1e-4


def test_a_batch_is_the_mean_of_its_rows() -> None:
    """What makes accumulation and several processes equal to one large batch."""
    logits, mask = torch.randn(4, 3, 6, 6), torch.randint(0, 3, (4, 6, 6))
    for loss in (cross_entropy, soft_dice_loss):
        rows = torch.stack([loss(logits[i : i + 1], mask[i : i + 1]) for i in range(4)])
        torch.testing.assert_close(loss(logits, mask), rows.mean())
