"""Diff-CL (Guo et al. 2025, arXiv:2503.09408): a diffusion network and a convolutional one teach each other.

    L^d = L^d_s + mu1 L^d_p        L^c = L^c_s + mu2 (L^c_p + eta L_cl)

s: (CE + soft Dice) / 2 on labelled patches. p: cross-entropy on the other network's hard labels of unlabelled ones. cl:
contrastive label propagation, on the convolutional network alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from morphogen.segmenters.diffcl import diffusion
from morphogen.segmenters.diffcl.contrast import MemoryBank, Projector, draw, propagation_loss
from morphogen.segmenters.diffcl.last_features import LastFeatures
from morphogen.segmenters.diffcl.methods.base import (
    Method,
    Parts,
    confident,
    evaluating,
    guess,
    labelled_losses,
    pseudo_loss,
)
from morphogen.training.processes import rows_of_all
from morphogen.training.rng import torch_rng
from morphogen.training.task import Batch, Phase, Progress

_STEPS_REMEMBERED = 8
"""Steps at least whose features the memory holds."""


class DiffCL(Method):
    """Phase ``cs`` leaves the pseudo-labels of its network in the batch, where phase ``ds`` finds them."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self.ds = parts.denoiser()
        self.modules["ds"] = self.ds
        self.seen = LastFeatures(self.cs, parts.example)
        self.multiple = int(getattr(self.cs, "multiple", 1))  # of sides, to which some networks pad
        self.contrasts = self.config.eta > 0
        if self.contrasts:
            self.projector = Projector(self.seen.channels)
            self.bank = MemoryBank(parts.n_classes, self.config.bank)
            self.modules.update({"projector": self.projector, "bank": self.bank})

    def phases(self) -> Sequence[Phase]:
        """The convolutional network with its projector, then the diffusion network."""
        trained = nn.ModuleList([self.cs, *([self.projector] if self.contrasts else [])])
        return [self.phase("cs", trained, self.loss), self.phase("ds", self.ds, self.diffusion_loss)]

    def loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        """L^c."""
        n, unlabelled, seeds = len(batch["image_l"]), batch["image_u"], batch["seed"]
        logits, features = self.seen(torch.cat([batch["image_l"], unlabelled]))
        losses = dict(labelled_losses(logits[:n], batch["label"]))
        batch["pseudo_c"] = confident(guess(self.cs, batch, logits[n:]), self.config.confidence)
        if self.contrasts:
            self._remember(features[:n].detach(), logits[:n].detach(), batch["label"], seeds)
        if weight := self.weight(progress, self.config.patience):
            sampled = self.sample(batch["guessed_u"], seeds, self.config.pseudo_steps, "pseudo")
            taught = confident(sampled, self.config.confidence)
            losses["pseudo"] = weight * pseudo_loss(logits[n:], taught, self.config.pseudo_dice)
            agreed = taught.masked_fill(taught != batch["pseudo_c"], -1)
            losses["log/agreement"] = (agreed >= 0).float().mean()
            if self.contrasts:
                losses["contrast"] = weight * self.config.eta * self._contrast(features[n:], agreed, seeds)
        return losses

    def diffusion_loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        """L^d; labelled and unlabelled patches pass the network together."""
        image, label, seeds = batch["image_l"], batch["label"], batch["seed"]
        n, weight = len(image), self.weight(progress)
        x_t, t = self._noised(label, seeds, "labelled")
        if weight:
            # where nothing is trusted the signal still needs some class; the loss leaves these voxels out
            more, its_t = self._noised(batch["pseudo_c"].clamp(min=0), seeds, "unlabelled")
            image, x_t, t = torch.cat([image, batch["image_u"]]), torch.cat([x_t, more]), torch.cat([t, its_t])
        logits = self.ds(torch.cat([image, x_t], dim=1), t)
        losses = dict(labelled_losses(logits[:n], label))
        if weight:
            losses["pseudo"] = weight * pseudo_loss(logits[n:], batch["pseudo_c"], self.config.pseudo_dice)
        return losses

    def sample(self, image: Tensor, seeds: Tensor, steps: int, stream: str) -> Tensor:
        """(B, K, *S) probabilities of the diffusion network, from the noise of the rows' seeds."""
        x_T = diffusion.noise(seeds, (self.parts.n_classes, *image.shape[2:]), stream, image.device)
        with evaluating(self.ds):
            return denoised(self.ds, image, x_T, steps, self.config.signal_scale)

    def _noised(self, labels: Tensor, seeds: Tensor, stream: str) -> tuple[Tensor, Tensor]:
        """x_t (B, K, *S) and t (B,) of label maps (B, *S)."""
        device = labels.device
        x_0 = diffusion.signal(labels, self.parts.n_classes, self.config.signal_scale)
        t = diffusion.draw_t(seeds, self.config.late, stream).to(device)
        return diffusion.noised(x_0, t, diffusion.noise(seeds, x_0.shape[1:], f"eps {stream}", device)), t

    @torch.no_grad()
    def _remember(self, features: Tensor, logits: Tensor, label: Tensor, seeds: Tensor) -> None:
        """Keep features of labelled voxels that the network got right, evenly of all classes."""
        label, right = (on_grid(one, features, self.multiple) for one in (label, logits.argmax(dim=1)))
        flat, classes = features.movedim(1, -1).flatten(0, -2), label.flatten()
        rng = torch_rng(int(seeds[0]), "bank")
        most = max(1, self.config.bank // _STEPS_REMEMBERED)
        kept = [draw((classes == c) & (right.flatten() == c), most, rng) for c in range(self.parts.n_classes)]
        chosen = torch.cat(kept)
        with evaluating(self.projector):
            # every process remembers the same, so that any of them can write the checkpoint
            self.bank.push(rows_of_all(self.projector(flat[chosen])), rows_of_all(classes[chosen]))

    def _contrast(self, features: Tensor, agreed: Tensor, seeds: Tensor) -> Tensor:
        """L_cl of unlabelled features (B, C, *S'), of as many voxels that the sets reach their largest size."""
        flat = features.movedim(1, -1).flatten(0, -2)
        pseudo = on_grid(agreed, features, self.multiple).flatten()
        most = round(self.config.voxels / self.config.rho)
        chosen = draw(pseudo != OUTSIDE, most, torch_rng(int(seeds[0]), "contrast"))
        return propagation_loss(
            self.projector(flat[chosen]),
            pseudo[chosen],
            self.bank.prototypes(),
            self.bank.known,
            self.config.rho,
            self.config.tau,
        )


def denoised(ds: nn.Module, image: Tensor, x_T: Tensor, steps: int, scale: float) -> Tensor:
    """(B, K, *S) probabilities by DDIM from (B, K, *S) noise, for (B, C, *S) images."""
    return diffusion.ddim(lambda x_t, t: ds(torch.cat([image, x_t], dim=1), t), x_T, steps, scale)


OUTSIDE = -2
"""Label of what a network has padded."""


def on_grid(labels: Tensor, features: Tensor, multiple: int = 1) -> Tensor:
    """(B, *S) labels on the grid of features (B, C, *S'), by nearest voxel.

    Args:
        labels: They.
        features: Of a network that has padded the ends of S up to multiples of `multiple`.
        multiple: The padding has the label `OUTSIDE`.
    """
    size = features.shape[2:]
    missing = [n for side in reversed(labels.shape[1:]) for n in (0, -side % multiple)]
    labels = F.pad(labels, missing, value=OUTSIDE)
    if labels.shape[1:] == size:
        return labels
    return F.interpolate(labels[:, None].double(), size=size, mode="nearest-exact")[:, 0].long()
