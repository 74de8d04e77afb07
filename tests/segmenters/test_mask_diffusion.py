"""Diffusion over one-hot masks, against its equations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from morphogen.segmenters.diffcl.diffusion import (
    T,
    alphas_bar,
    ddim,
    draw_t,
    noised,
    signal,
    signal_of_logits,
    timesteps,
)

LABELS = torch.tensor([[[0, 1, 2], [2, 2, 0]]])


def test_the_schedule_has_the_published_values() -> None:
    found = alphas_bar()[[0, 250, 500, 750, 999]].tolist()
    assert found == pytest.approx([0.9999, 0.5214, 0.0778, 0.0033, 4.0e-5], rel=0.02)


def test_the_signal_is_two_onehot_minus_one_times_its_scale() -> None:
    made = signal(LABELS, 3, 0.5)
    assert made.shape == (1, 3, 2, 3)
    for c in range(3):
        assert torch.equal(made[0, c], torch.where(LABELS[0] == c, 0.5, -0.5))
    sure = signal_of_logits(100 * made, 0.5)
    assert torch.allclose(sure, made)


def test_noised_masks_have_the_mean_and_deviation_of_the_forward_process() -> None:
    x_0 = signal(torch.zeros(1, 64, 64, 32, dtype=torch.long), 2, 0.3)
    eps = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(0))
    for t in (0, 300, 999):
        abar = float(np.prod(1 - np.linspace(1e-4, 0.02, 1000)[: t + 1]))
        x_t = noised(x_0, torch.tensor([t]), eps)
        assert x_t[0, 0].mean().item() == pytest.approx(0.3 * abar**0.5, abs=0.01)
        assert x_t[0, 0].std().item() == pytest.approx((1 - abar) ** 0.5, rel=0.01)


def test_time_steps_are_spaced_evenly_from_the_last_to_the_first() -> None:
    assert timesteps(10) == [999, 888, 777, 666, 555, 444, 333, 222, 111, 0]
    assert timesteps(1) == [999]
    assert timesteps(2) == [999, 0]
    assert timesteps(T) == list(reversed(range(T)))


@pytest.mark.parametrize("late", [0.0, 1.0, 3.0])
def test_time_steps_are_drawn_with_the_stated_density(late: float) -> None:
    t = draw_t(torch.arange(4000), late, "t").double()
    assert t.min() >= 0
    assert t.max() < T
    for cut in (250, 500, 900):  # P(t < cut) = (cut / T)^(1 + late)
        assert (t < cut).double().mean().item() == pytest.approx((cut / T) ** (1 + late), abs=0.025)
    assert torch.equal(draw_t(torch.tensor([7]), late, "t"), draw_t(torch.tensor([3, 7]), late, "t")[1:])


@pytest.mark.parametrize("steps", [1, 2, 10])
def test_an_oracle_is_returned_exactly(steps: int) -> None:
    x_0 = signal(LABELS, 3, 0.5)
    made = ddim(lambda x_t, t: 1000 * x_0, torch.randn(1, 3, 2, 3), steps, 0.5)
    assert torch.equal(made, torch.nn.functional.one_hot(LABELS, 3).movedim(-1, 1).float())


def test_ddim_is_its_recursion_written_out() -> None:
    torch.manual_seed(0)
    weight = torch.randn(3, 3, dtype=torch.float64)

    def logits_of(x: np.ndarray, t: int) -> np.ndarray:
        return np.einsum("kc,cn->kn", weight.numpy(), x) * (0.5 + t / 1000)

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        return torch.einsum("kc,bcn->bkn", weight, x_t.double()) * (0.5 + t.double() / 1000)[:, None, None]

    x_T = torch.randn(1, 3, 5)
    abar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    x, times = x_T[0].double().numpy(), [999, 666, 333, 0]
    for i, t in enumerate(times):
        e = np.exp(logits_of(x, t))
        p = e / e.sum(axis=0)
        if i + 1 < len(times):
            x_0 = 0.4 * (2 * p - 1)
            eps = (x / np.sqrt(abar[t]) - x_0) / np.sqrt(1 / abar[t] - 1)
            following = abar[times[i + 1]]
            x = np.sqrt(following) * x_0 + np.sqrt(1 - following) * eps
    assert np.allclose(ddim(denoise, x_T, 4, 0.4)[0].numpy(), p, atol=1e-5)
