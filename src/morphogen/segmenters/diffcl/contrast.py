"""Contrastive label propagation: a memory of what each class looks like, and a pull of unlabelled voxels towards it.

After the idea of Diff-CL (Guo et al. 2025, arXiv:2503.09408): unlabelled voxels that are most like the labelled data's
semantics of a class are taken as that class, those that are least like it as not that class. The paper's equations
could not be read; the form is ours, the memory after CAML (Gao et al., MICCAI 2023, arXiv:2307.16256):

    M_c: the last `size` projected features of labelled voxels of class c that the network got right
    P_c = mean M_c / |mean M_c|                      s_jc = z_j . P_c for unlabelled voxels j
    Omega+_c: the share rho of largest s_.c among the voxels whose pseudo-label is c
    Omega-_c: the share rho of smallest s_.c among all voxels
    L = mean_c mean_{j in Omega+_c} -log( e^{s_jc / tau} / (e^{s_jc / tau} + sum_{n in Omega-_c} e^{s_nc / tau}
                                                           + sum_{c' != c} e^{s_jc' / tau}) )
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH = 64
"""Of the projected features."""


class Projector(nn.Module):
    """(N, C) features -> (N, 64) of length 1: two linear layers, batch normalisation and ReLU between (as SS-Net's)."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(inputs, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            return F.normalize(self.layers(features.float()), dim=1)


class MemoryBank(nn.Module):
    """The last features of every class, first in, first out; buffers, so that a checkpoint holds them."""

    features: Tensor
    filled: Tensor
    position: Tensor

    def __init__(self, n_classes: int, size: int) -> None:
        """Makes an empty memory of `size` features for each of `n_classes` classes."""
        super().__init__()
        self.register_buffer("features", torch.zeros(n_classes, size, WIDTH))
        self.register_buffer("filled", torch.zeros(n_classes, dtype=torch.long))
        self.register_buffer("position", torch.zeros(n_classes, dtype=torch.long))

    @torch.no_grad()
    def push(self, features: Tensor, classes: Tensor) -> None:
        """Remember (N, 64) features of (N,) classes, in their order; of more than the memory's size, the last ones."""
        size = self.features.shape[1]
        for c in classes.unique().tolist():
            new = features[classes == c][-size:]
            places = (self.position[c] + torch.arange(len(new), device=new.device)) % size
            self.features[c, places] = new.float()
            self.position[c] = (self.position[c] + len(new)) % size
            self.filled[c] = (self.filled[c] + len(new)).clamp(max=size)

    def prototypes(self) -> Tensor:
        """(K, 64): the mean direction of each class; zeros where nothing is remembered."""
        sums = self.features.sum(dim=1)  # what is not filled is zero
        return F.normalize(sums, dim=1)

    @property
    def known(self) -> Tensor:
        """(K,) bool: classes of which anything is remembered."""
        return self.filled > 0


def draw(candidates: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Up to `most` of the true places of a flat bool tensor, at random: (M,) int64 indices, ascending."""
    places = candidates.nonzero().squeeze(1)
    if len(places) <= most:
        return places
    chosen = torch.randperm(len(places), generator=generator)[:most].sort().values
    return places[chosen.to(places.device)]


def propagation_loss(
    features: Tensor, pseudo: Tensor, prototypes: Tensor, known: Sequence[bool] | Tensor, share: float, tau: float
) -> Tensor:
    """L of the module's docstring, in float32; 0 where no class has prototype and voxels.

    Args:
        features: (N, 64) unlabelled voxels, of length 1.
        pseudo: (N,) class ids, -1 where there is none to be trusted.
        prototypes: (K, 64), of length 1.
        known: (K,) which of them are.
        share: rho, the part of voxels on either end.
        tau: Temperature.
    """
    with torch.autocast(features.device.type, enabled=False):  # half precision would choose among ties
        scores = features.float() @ prototypes.float().T / tau
    present = torch.as_tensor(known, device=scores.device)
    scores = scores.masked_fill(~present, -torch.inf)
    low = max(1, round(share * len(features)))
    losses = []
    for c in present.nonzero().squeeze(1).tolist():
        own = scores[:, c]
        members = own[pseudo == c]
        if not len(members):
            continue
        high = max(1, round(share * len(members)))
        chosen = (pseudo == c).nonzero().squeeze(1)[members.topk(high).indices]
        least = own.topk(low, largest=False).values.logsumexp(dim=0)
        others = torch.cat([scores[chosen], least.expand(high, 1)], dim=1)
        losses.append((others.logsumexp(dim=1) - own[chosen]).mean())
    return torch.stack(losses).mean() if losses else features.sum() * 0
