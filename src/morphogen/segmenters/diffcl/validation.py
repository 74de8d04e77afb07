"""How a method is doing on the validation part: Dice of its networks, and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from morphogen.data.volumes.patches import pad, unpad
from morphogen.metrics.overlap import class_counts, dice_from_counts
from morphogen.segmenters.diffcl.config import SemiConfig
from morphogen.segmenters.diffcl.nets import TwoNets, Which
from morphogen.segmenters.diffcl.preview import write_preview

_AT_ONCE = 16
"""Pictures that pass a network together; volumes pass one by one, in windows."""


@dataclass(frozen=True)
class Validation:
    """Labelled images (C, *S) float32 that nothing trains on, and their label maps (*S).

    Attributes:
        images: They.
        labels: Their label maps.
        patch: Window in which a network sees them.
    """

    images: Sequence[Tensor]
    labels: Sequence[NDArray[np.uint8]]
    patch: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.images)

    def scores(self, nets: TwoNets, config: SemiConfig) -> Mapping[str, float]:
        """Mean Dice over images and foreground classes, at working resolution.

        ``score`` is that of the network that predicts. Where there is a diffusion network, ``ds_dice`` is its own in as
        many steps as its pseudo-labels take, and ``one_shot_dice`` in one, at t = T - 1, where x_t is noise: what it
        reads from the image.
        """
        if not len(self):
            return {}
        found = {"score": self._dice(nets, config.validate_by, config.pseudo_steps)}
        found[f"{config.validate_by}_dice"] = found["score"]
        if nets.ds is not None:
            found["one_shot_dice"] = self._dice(nets, "ds", 1)
            several = config.pseudo_steps > 1
            found["ds_dice"] = self._dice(nets, "ds", config.pseudo_steps) if several else found["one_shot_dice"]
        return found

    def _dice(self, nets: TwoNets, which: Which, steps: int) -> float:
        scores = []
        for label, labels in zip(self.labels, self.predicted(nets, which, steps), strict=True):
            counts = class_counts(labels, label, nets.n_classes)
            scores.append(dice_from_counts(counts[1:]).mean())
        return float(np.mean(scores))

    def predicted(self, nets: TwoNets, which: Which, steps: int, first: int | None = None) -> list[NDArray[np.int64]]:
        """Label maps of the first images, or of all."""
        device = next(nets.parameters()).device
        images, made = list(self.images[:first]), []
        size = _AT_ONCE if all(image.shape[1:] == self.patch for image in images) else 1
        for start in range(0, len(images), size):
            # padded as patches are in training, where a volume is smaller than a window
            padded = [pad(image.numpy(), None, self.patch) for image in images[start : start + size]]
            batch = torch.from_numpy(np.stack([image for image, _, _ in padded])).to(device)
            probabilities = nets.probabilities(batch, self.patch, which, steps, overlap=0.25)
            labels = probabilities.argmax(dim=1).cpu().numpy()
            made += [unpad(one, margins) for one, (_, _, margins) in zip(labels, padded, strict=True)]
        return made

    def preview(self, nets: TwoNets, config: SemiConfig, path: Path, most: int = 4) -> None:
        """One PNG of the first images, see `write_preview`."""
        if len(self):
            made = self.predicted(nets, config.validate_by, config.pseudo_steps, most)
            write_preview(path, [image.numpy() for image in self.images[:most]], self.labels[:most], made)
