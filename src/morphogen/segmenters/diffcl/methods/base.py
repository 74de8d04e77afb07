"""What all methods share: the networks' makers, the labelled loss, phases; and the supervised baseline."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from morphogen.segmenters.diffcl.config import SemiConfig
from morphogen.segmenters.diffcl.ramp import sigmoid_ramp
from morphogen.segmenters.diffcl.vnet import VNet
from morphogen.segmenters.losses import cross_entropy, soft_dice_loss
from morphogen.training.supervised import parameter_groups
from morphogen.training.task import Batch, Phase, Progress


@dataclass(frozen=True)
class Parts:
    """What a method is made of.

    Attributes:
        config: How to train; its ``lr`` is stated.
        n_classes: K, background included.
        student: Makes a network (B, C, *S) -> (B, K, *S) logits, which predicts in the end.
        denoiser: Makes the diffusion network.
        example: (1, C, *S), an image of the size that the networks train on.
    """

    config: SemiConfig
    n_classes: int
    student: Callable[[], nn.Module]
    denoiser: Callable[[], VNet]
    example: Tensor


class Method:
    """Base of all: the student ``cs``, and one phase that trains it."""

    takes_unlabelled = True

    def __init__(self, parts: Parts) -> None:
        self.parts, self.config = parts, parts.config
        self.cs = parts.student()
        self.modules = nn.ModuleDict({"cs": self.cs})

    def phases(self) -> Sequence[Phase]:
        """What is trained, and by which loss."""
        return [self.phase("cs", self.cs, self.loss)]

    def loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        """Losses of the student by name, means over rows."""
        raise NotImplementedError

    def phase(self, name: str, net: nn.Module, loss: Callable[[Batch, Progress], Mapping[str, Tensor]]) -> Phase:
        """A phase over all parameters of `net`."""
        config = self.config
        assert config.lr is not None
        return Phase(
            name,
            [p for p in net.parameters() if p.requires_grad],
            loss,
            lr=config.lr,
            schedule=config.lr_scheduler,
            warmup=config.warmup,
            groups=parameter_groups(net, config, norm_decay=True),
        )

    def weight(self, progress: Progress, later: float = 0.0) -> float:
        """mu times the ramp-up; 0 until unlabelled data has a say, and for a part `later` of the steps after that."""
        start = self.config.start + later
        if progress.fraction < start:
            return 0.0
        return self.config.weight * sigmoid_ramp(progress.fraction - start, self.config.ramp)


class Supervised(Method):
    """The labelled patches alone."""

    takes_unlabelled = False

    def loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        return labelled_losses(self.cs(batch["image_l"]), batch["label"])


def labelled_losses(logits: Tensor, label: Tensor) -> dict[str, Tensor]:
    """(CE + soft Dice) / 2, as UA-MT has it."""
    return {"cross_entropy": cross_entropy(logits, label) / 2, "dice": soft_dice_loss(logits, label) / 2}


def pseudo_loss(logits: Tensor, pseudo: Tensor, with_dice: bool) -> Tensor:
    """Cross-entropy, and soft Dice where asked for, on pseudo-labels (B, *S); -1 does not count."""
    where = pseudo >= 0
    taken = pseudo.clamp(min=0)
    loss = cross_entropy(logits, taken, where)
    return loss + soft_dice_loss(logits, taken, where) if with_dice else loss


def confident(probabilities: Tensor, least: float) -> Tensor:
    """Hard labels of (B, K, *S) probabilities: (B, *S) int64, -1 where the largest is below `least`."""
    top, labels = probabilities.max(dim=1)
    return labels if least == 0 else labels.masked_fill(top < least, -1)


def guess(net: nn.Module, batch: Batch, logits: Tensor) -> Tensor:
    """(B, K, *S) probabilities of the unlabelled images, without gradient.

    Args:
        net: Which network guesses.
        batch: Their two views.
        logits: What it said of those that are learned; taken where both views are one.
    """
    if torch.equal(batch["guessed_u"], batch["image_u"]):
        return logits.detach().float().softmax(dim=1)
    with evaluating(net):
        probabilities: Tensor = net(batch["guessed_u"]).float().softmax(dim=1)
    return probabilities


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """No gradient, and the statistics and dropout of evaluation."""
    training = net.training
    net.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        net.train(training)


class MeanTeacher(nn.Module):
    """A moving average of a student (Tarvainen and Valpola 2017, arXiv:1703.01780), its buffers with it."""

    updates: Tensor
    followed: Tensor

    def __init__(self, student: nn.Module, decay: float) -> None:
        super().__init__()
        self.net = copy.deepcopy(student).requires_grad_(False)
        self.decay = decay
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))
        self.register_buffer("followed", torch.full((), -1))

    @torch.no_grad()
    def follow(self, student: nn.Module, step: int) -> None:
        """teacher <- a teacher + (1 - a) student, a = min(1 - 1 / (updates + 1), decay): at first it is the student.

        Once a step, in however many parts that is computed.
        """
        if int(self.followed) == step:
            return
        self.followed.fill_(step)
        decay = min(1 - 1 / (int(self.updates) + 1), self.decay)
        for mine, theirs in zip(self.net.parameters(), student.parameters(), strict=True):
            mine.lerp_(theirs, 1 - decay)
        for its, now in zip(self.net.buffers(), student.buffers(), strict=True):
            its.copy_(now)
        self.updates += 1
