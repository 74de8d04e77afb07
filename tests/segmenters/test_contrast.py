"""Contrastive label propagation, against loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from morphogen.segmenters.diffcl.contrast import WIDTH, MemoryBank, Projector, draw, propagation_loss


def unit(n: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(seed)), dim=1)


def literal(z: torch.Tensor, pseudo: list[int], prototypes: torch.Tensor, known: list[bool], rho: float, tau: float):
    """The docstring's formula, one voxel at a time."""
    losses = []
    for c in range(len(prototypes)):
        if not known[c] or c not in pseudo:
            continue
        s = [[float(z[j] @ prototypes[k]) for k in range(len(prototypes))] for j in range(len(z))]
        members = sorted((j for j in range(len(z)) if pseudo[j] == c), key=lambda j: -s[j][c])
        high = members[: max(1, round(rho * len(members)))]
        low = sorted(range(len(z)), key=lambda j: s[j][c])[: max(1, round(rho * len(z)))]
        terms = []
        for j in high:
            top = math.exp(s[j][c] / tau)
            others = sum(math.exp(s[n][c] / tau) for n in low)
            others += sum(math.exp(s[j][k] / tau) for k in range(len(prototypes)) if k != c and known[k])
            terms.append(-math.log(top / (top + others)))
        losses.append(sum(terms) / len(terms))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("known", [[True, True, True], [True, False, True]])
def test_the_loss_is_its_formula(known: list[bool]) -> None:
    z, prototypes = unit(40, 0).double(), unit(3, 1).double()
    pseudo = [(-1, 0, 1, 2)[i % 4] for i in range(40)]
    found = propagation_loss(z, torch.tensor(pseudo), prototypes, known, 0.2, 0.5)
    assert found.item() == pytest.approx(literal(z, pseudo, prototypes, known, 0.2, 0.5), rel=1e-5)


def test_voxels_are_drawn_to_their_class_and_the_least_like_pushed_away() -> None:
    prototypes = unit(2, 1)
    z = unit(50, 0).requires_grad_()
    pseudo = torch.tensor([0, 1] * 25)
    before = z.detach() @ prototypes.T
    propagation_loss(z, pseudo, prototypes, [True, True], 0.1, 0.1).backward()
    after = F.normalize(z.detach() - 0.01 * z.grad, dim=1) @ prototypes.T
    members = [j for j in range(50) if pseudo[j] == 0]
    best = max(members, key=lambda j: before[j, 0])
    assert after[best, 0] > before[best, 0]
    worst = int(before[:, 0].argmin())
    assert after[worst, 0] < before[worst, 0]


def test_half_precision_changes_nothing() -> None:
    z, prototypes = unit(40, 0), unit(3, 1)
    pseudo = torch.tensor([i % 3 for i in range(40)])
    plain = propagation_loss(z, pseudo, prototypes, [True] * 3, 0.2, 0.1)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(propagation_loss(z, pseudo, prototypes, [True] * 3, 0.2, 0.1), plain)


def test_nothing_known_or_nothing_trusted_costs_nothing() -> None:
    z = unit(10, 0).requires_grad_()
    for pseudo, known in ((torch.zeros(10), [False, False]), (-torch.ones(10), [True, True])):
        loss = propagation_loss(z, pseudo.long(), unit(2, 1), known, 0.1, 0.1)
        loss.backward()
        assert loss.item() == 0


def test_the_memory_forgets_the_oldest_first_and_class_by_class() -> None:
    bank, z = MemoryBank(3, 4), unit(9, 0)
    for i in range(6):
        bank.push(z[i : i + 1], torch.tensor([1]))
    assert bank.known.tolist() == [False, True, False]
    kept = {tuple(row.tolist()) for row in bank.features[1]}
    assert kept == {tuple(row.tolist()) for row in z[2:6]}
    bank.push(z, torch.tensor([2] * 9))  # more than it holds: the last ones
    assert {tuple(row.tolist()) for row in bank.features[2]} == {tuple(row.tolist()) for row in z[5:]}
    assert torch.allclose(bank.prototypes()[2], F.normalize(z[5:].mean(dim=0), dim=0), atol=1e-6)
    assert bank.prototypes()[0].abs().sum() == 0


def test_the_memory_is_in_the_state_dict() -> None:
    bank = MemoryBank(2, 4)
    bank.push(unit(3, 0), torch.tensor([0, 1, 1]))
    again = MemoryBank(2, 4)
    again.load_state_dict(bank.state_dict())
    assert torch.equal(again.features, bank.features)
    assert again.filled.tolist() == [1, 2]
    assert again.position.tolist() == [1, 2]


def test_projections_have_length_one_and_a_gradient() -> None:
    projector = Projector(5)
    made = projector(torch.randn(12, 5, requires_grad=True))
    assert torch.allclose(made.norm(dim=1), torch.ones(12), atol=1e-5)
    made[:, 0].sum().backward()
    assert all(p.grad is not None for p in projector.parameters())


def test_drawn_places_are_of_the_candidates_and_no_more_than_asked() -> None:
    candidates = torch.arange(100) % 3 == 0
    rng = torch.Generator().manual_seed(0)
    found = draw(candidates, 10, rng)
    assert len(found.unique()) == 10
    assert candidates[found].all()
    assert torch.equal(draw(candidates, 1000, rng), candidates.nonzero().squeeze(1))
