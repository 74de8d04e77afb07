"""Bidirectional copy-paste (Bai et al., CVPR 2023, arXiv:2305.00673)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from morphogen.segmenters.diffcl.components import largest_component
from morphogen.segmenters.diffcl.methods.base import MeanTeacher, Method, Parts, evaluating
from morphogen.segmenters.losses import cross_entropy, soft_dice_loss
from morphogen.training.rng import numpy_rng
from morphogen.training.task import Batch, Progress

_SIDE = 2 / 3
"""Of the box that is pasted, as a part of each side of the patch."""


class BCP(Method):
    """A box of one patch is pasted into another, labelled into unlabelled and the other way round.

    Before unlabelled data has a say, labelled patches are pasted into each other. Then a mean teacher labels the
    unlabelled ones (the largest part of each class alone, as published for the left atrium).
    """

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self.teacher = MeanTeacher(self.cs, self.config.teacher_decay)
        self.modules["teacher"] = self.teacher

    def loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        image, label, seeds = batch["image_l"], batch["label"], batch["seed"]
        outside = boxes_left_out(seeds, label.shape[1:]).to(image.device)
        other, its_label = image.roll(1, dims=0), label.roll(1, dims=0)
        if not self.weight(progress):
            mixed, target = paste(image, other, outside), torch.where(outside, label, its_label)
            logits = self.cs(mixed)
            return {"cross_entropy": cross_entropy(logits, target) / 2, "dice": soft_dice_loss(logits, target) / 2}
        self.teacher.follow(self.cs, progress.step)
        unlabelled = batch["image_u"]
        with evaluating(self.teacher):
            pseudo = self.teacher.net(batch["guessed_u"]).argmax(dim=1)
        pseudo = torch.from_numpy(np.stack([largest_component(p) for p in pseudo.cpu().numpy()])).to(label.device)
        inwards = self.cs(paste(image, unlabelled, outside))  # labelled around, unlabelled within the box
        outwards = self.cs(paste(unlabelled, other, outside))
        mu = self.config.weight  # as published without a ramp: the teacher has learned before
        parts = (
            _mixed_loss(inwards, label, outside, 1.0) + _mixed_loss(inwards, pseudo, ~outside, mu),
            _mixed_loss(outwards, pseudo, outside, mu) + _mixed_loss(outwards, its_label, ~outside, 1.0),
        )
        return {"inwards": parts[0], "outwards": parts[1]}


def boxes_left_out(seeds: Tensor, shape: Sequence[int]) -> Tensor:
    """(B, *shape) bool, False in a box of two thirds of each side, placed at random by the seed of the row."""
    masks = torch.ones(len(seeds), *shape, dtype=torch.bool)
    for mask, seed in zip(masks, seeds.tolist(), strict=True):
        rng = numpy_rng(seed, "box")
        sides = [max(1, int(side * _SIDE)) for side in shape]
        starts = [int(rng.integers(0, whole - side + 1)) for whole, side in zip(shape, sides, strict=True)]
        mask[tuple(slice(a, a + side) for a, side in zip(starts, sides, strict=True))] = False
    return masks


def paste(around: Tensor, within: Tensor, outside: Tensor) -> Tensor:
    """(B, C, *S): `around` where (B, *S) `outside`, else `within`."""
    return torch.where(outside[:, None], around, within)


def _mixed_loss(logits: Tensor, label: Tensor, where: Tensor, weight: float) -> Tensor:
    """(CE + soft Dice) / 2 of the voxels of one origin."""
    return weight * (cross_entropy(logits, label, where) + soft_dice_loss(logits, label, where)) / 2
