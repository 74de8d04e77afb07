"""Cross pseudo-supervision: two networks of one shape and other weights (Chen et al., CVPR 2021, arXiv:2106.01226)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from morphogen.segmenters.diffcl.methods.base import Method, Parts, confident, guess, labelled_losses, pseudo_loss
from morphogen.training.task import Batch, Phase, Progress

_CONVS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class CPS(Method):
    """Each learns the other's hard labels of the unlabelled patches; the first one predicts."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self.second = parts.student()
        _set_apart(self.cs, self.second)
        self.modules["second"] = self.second

    def phases(self) -> Sequence[Phase]:
        """One phase: pseudo-labels are detached, so that each network follows its own loss."""
        return [self.phase("cs", nn.ModuleList([self.cs, self.second]), self.loss)]

    def loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        n = len(batch["image_l"])
        image = torch.cat([batch["image_l"], batch["image_u"]])
        first, second = self.cs(image), self.second(image)
        losses = dict(labelled_losses(first[:n], batch["label"]))
        losses |= {f"{name}_2": loss for name, loss in labelled_losses(second[:n], batch["label"]).items()}
        if weight := self.weight(progress):
            least, dice = self.config.confidence, self.config.pseudo_dice
            pairs = ((self.cs, first), (self.second, second))
            labels = [confident(guess(net, batch, logits[n:]), least) for net, logits in pairs]
            losses["pseudo"] = weight * pseudo_loss(first[n:], labels[1], dice)
            losses["pseudo_2"] = weight * pseudo_loss(second[n:], labels[0], dice)
            losses["log/agreement"] = ((labels[0] == labels[1]) & (labels[0] >= 0)).float().mean()
        return losses


def _set_apart(first: nn.Module, second: nn.Module) -> None:
    """Draw the second network's random weights in another way, too (as SSL4MIS does); pretrained ones stay."""
    for one, other in zip(first.modules(), second.modules(), strict=True):
        if isinstance(other, _CONVS) and not torch.equal(one.weight, other.weight):  # type: ignore[arg-type]
            nn.init.xavier_normal_(other.weight)
