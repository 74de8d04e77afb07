"""Optimisers and schedules against the update rules, written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from morphogen.training.optim import SCHEDULES, PhaseOptimizer, learning_rate
from morphogen.training.task import Group, Phase, Progress

STEPS = 6


def gradients(parameter: nn.Parameter) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [rng.normal(size=tuple(parameter.shape)).astype(np.float32) for _ in range(STEPS)]


def test_sgd_is_nesterovs_with_an_l2_penalty() -> None:
    weight = nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
    phase = Phase("p", [weight], lambda *_: {}, lr=0.1, weight_decay=0.01, betas=(0.9, 0.0))
    optimizer = PhaseOptimizer(phase, "sgd")
    x, velocity = weight.detach().double().numpy().copy(), np.zeros(3)
    for k, gradient in enumerate(gradients(weight)):
        weight.grad = torch.from_numpy(gradient)
        optimizer.step(Progress(k, STEPS), 0.0)
        g = gradient + 0.01 * x
        velocity = 0.9 * velocity + g
        x = x - 0.1 * (g + 0.9 * velocity)
    np.testing.assert_allclose(weight.detach().numpy(), x, rtol=1e-5)


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_a_stopped_optimiser_goes_on_with_the_same_bits_group_by_group(kind: str) -> None:
    def make() -> tuple[list[nn.Parameter], PhaseOptimizer]:
        torch.manual_seed(0)
        net = [nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.randn(3)), nn.Parameter(torch.randn(2, 2))]
        groups = [Group([net[2]], lr_scale=0.1, weight_decay=0.0), Group([net[0], net[1]], weight_decay=0.1)]
        return net, PhaseOptimizer(Phase("p", net, lambda *_: {}, lr=0.1, groups=groups), kind)

    def step(net: list[nn.Parameter], optimizer: PhaseOptimizer, k: int) -> None:
        for parameter in net:
            parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(k))
        optimizer.step(Progress(k, STEPS), 0.0)

    whole, cut, again = make(), make(), make()
    for k in range(STEPS):
        step(*whole, k)
    for k in range(3):
        step(*cut, k)
    for ours, theirs in zip(again[0], cut[0], strict=True):
        ours.data.copy_(theirs.data)
    again[1].load(cut[1].state())
    for k in range(3, STEPS):
        step(*again, k)
    assert all(torch.equal(a, b) for a, b in zip(whole[0], again[0], strict=True))


def test_groups_have_their_own_rate_and_decay() -> None:
    """At a gradient of zero AdamW moves a weight by its decay alone: x (1 - lr decay)."""
    fast, slow, free = (nn.Parameter(torch.ones(1)) for _ in range(3))
    groups = [Group([fast], 1.0, 0.5), Group([slow], 0.1, 0.5), Group([free], 1.0, 0.0)]
    optimizer = PhaseOptimizer(Phase("p", [fast, slow, free], lambda *_: {}, lr=0.1, groups=groups))
    for parameter in (fast, slow, free):
        parameter.grad = torch.zeros(1)
    optimizer.step(Progress(0, 1), 0.0)
    assert [p.item() for p in (fast, slow, free)] == pytest.approx([0.95, 0.995, 1.0])


def test_elements_of_the_gradient_are_cut_before_its_norm() -> None:
    weight = nn.Parameter(torch.zeros(3))
    optimizer = PhaseOptimizer(Phase("p", [weight], lambda *_: {}, lr=1.0, weight_decay=0, max_grad_value=0.5), "sgd")
    weight.grad = torch.tensor([3.0, -0.2, -7.0])
    assert float(optimizer.step(Progress(0, 1), 0.0)) == pytest.approx(np.sqrt(0.5**2 + 0.2**2 + 0.5**2))
    # Nesterov's first step: 1 + momentum times the gradient
    assert weight.detach().tolist() == pytest.approx([-0.95, 0.38, 0.95])


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [1, 1, 1, 1]),
        ("cosine", [1, (2 + 2**0.5) / 4, 0.5, (2 - 2**0.5) / 4]),
        ("linear", [1, 0.75, 0.5, 0.25]),
        ("poly", [1, 0.75**0.9, 0.5**0.9, 0.25**0.9]),
        ("halving", [1, 1, 0.5, 0.25]),
    ],
)
def test_schedules(schedule: str, expected: list[float]) -> None:
    assert schedule in SCHEDULES
    phase = Phase("p", [], lambda *_: {}, lr=2.0, schedule=schedule)
    assert [learning_rate(phase, Progress(k, 4)) / 2 for k in range(4)] == pytest.approx(expected)
    warmed = Phase("p", [], lambda *_: {}, lr=2.0, schedule=schedule, warmup=2)
    assert [learning_rate(warmed, Progress(k, 6)) / 2 for k in range(6)] == pytest.approx([0.5, 1, *expected])
