"""Uncertainty-aware mean teacher (Yu et al., MICCAI 2019, arXiv:1907.07034)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from morphogen.segmenters.diffcl.methods.base import MeanTeacher, Method, Parts, labelled_losses
from morphogen.segmenters.diffcl.ramp import sigmoid_ramp
from morphogen.training.rng import normal
from morphogen.training.task import Batch, Progress

PASSES = 8
"""Of the teacher, each with other noise and dropout."""
_NOISE, _MOST = 0.1, 0.2


class UAMT(Method):
    """The student follows its teacher where eight noisy passes of the teacher agree."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self.teacher = MeanTeacher(self.cs, self.config.teacher_decay)
        self.modules["teacher"] = self.teacher

    def loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        n, unlabelled = len(batch["image_l"]), batch["image_u"]
        self.teacher.follow(self.cs, progress.step)
        logits = self.cs(torch.cat([batch["image_l"], unlabelled]))
        losses = dict(labelled_losses(logits[:n], batch["label"]))
        if weight := self.weight(progress):
            target, entropy = self._teach(batch["guessed_u"], batch["seed"])
            ramp = sigmoid_ramp(progress.fraction, 1.0)  # over the whole training, as published
            sure = entropy < (0.75 + 0.25 * ramp) * math.log(self.parts.n_classes)
            losses["consistency"] = weight * consistency(logits[n:], target, sure)
            losses["log/sure"] = sure.float().mean()
        return losses

    @torch.no_grad()
    def _teach(self, image: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities (B, K, *S) of a noisy pass, and the entropy (B, *S) of the mean of `PASSES` others."""

        def look(stream: str) -> Tensor:
            noise = (_NOISE * normal(seeds, image.shape[1:], stream)).clamp(-_MOST, _MOST)
            logits: Tensor = self.teacher.net(image + noise.to(image.device))
            return logits.float().softmax(dim=1)

        mean = torch.stack([look(f"pass{i}") for i in range(PASSES)]).mean(dim=0)
        return look("target"), -(mean * (mean + 1e-6).log()).sum(dim=1)


def consistency(logits: Tensor, target: Tensor, sure: Tensor) -> Tensor:
    """Squared distance of probabilities, over the sure voxels of each row: sum / (K sum of them), mean of rows.

    Args:
        logits: (B, K, *S) of the student.
        target: (B, K, *S) probabilities.
        sure: (B, *S) bool.
    """
    squared = ((logits.float().softmax(dim=1) - target) ** 2 * sure[:, None]).flatten(1).sum(dim=1)
    return (squared / (logits.shape[1] * sure.flatten(1).sum(dim=1)).clamp(min=1)).mean()
