"""The two streams of a batch: patches of volumes, or whole pictures, labelled and unlabelled ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from morphogen.data.augment import affine_maps, warp_pairs
from morphogen.data.pairs import Pairs
from morphogen.data.volumes.patches import draw_patch, strong
from morphogen.data.volumes.sources import VolumeSource
from morphogen.segmenters.task import PairSource
from morphogen.training.net_files import to_input
from morphogen.training.rng import numpy_rng


class Stream(Protocol):
    """Images of one kind, in which nothing but the seed is random."""

    def __len__(self) -> int: ...

    def draw(self, index: int, seed: int) -> tuple[Tensor, Tensor | None]:
        """Image (C, *S) float32 and label (*S) int64, None of an unlabelled one."""
        ...

    def views(self, index: int, seed: int) -> tuple[Tensor, Tensor]:
        """An image as a network learns it, and as its label is guessed: the same place, perhaps less changed."""
        ...


class VolumePatches:
    """A random patch of each volume, augmented as `morphogen.data.volumes.patches.augment` says."""

    def __init__(self, source: VolumeSource, patch: Sequence[int], augmentation: str, foreground: float = 0.0) -> None:
        """Reads nothing yet.

        Args:
            source: The volumes.
            patch: Sides of a patch.
            augmentation: ``none``, ``turns`` or ``strong``.
            foreground: Part of the patches of labelled volumes that are centred on foreground.
        """
        self.source, self.patch = source, tuple(patch)
        self.augmentation, self.foreground = augmentation, foreground

    def __len__(self) -> int:
        return len(self.source)

    def draw(self, index: int, seed: int) -> tuple[Tensor, Tensor | None]:
        volume, rng = self.source[index], numpy_rng(seed, "patch")
        image, label = draw_patch(volume.image, volume.label, self.patch, rng, self.augmentation, self.foreground)
        return torch.from_numpy(image), None if label is None else torch.from_numpy(label).long()

    def views(self, index: int, seed: int) -> tuple[Tensor, Tensor]:
        if self.augmentation != "strong":
            image = self.draw(index, seed)[0]
            return image, image
        rng = numpy_rng(seed, "patch")
        turned = draw_patch(self.source[index].image, None, self.patch, rng, "turns")[0]
        return torch.from_numpy(strong(turned, rng)), torch.from_numpy(turned)


class Pictures:
    """Whole pictures at working resolution, perhaps turned and warped; several sources are joined end to end."""

    def __init__(self, sources: Sequence[PairSource], geometric: bool, labelled: bool) -> None:
        self.items = [(source, i) for source in sources for i in range(len(source))]
        self.geometric, self.labelled = geometric, labelled

    def __len__(self) -> int:
        return len(self.items)

    def draw(self, index: int, seed: int) -> tuple[Tensor, Tensor | None]:
        source, i = self.items[index]
        if self.labelled:
            image, mask = source[i]
        else:
            assert isinstance(source, Pairs)  # of unlabelled images nothing else is made
            image = source.image(i)
            mask = np.zeros(image.shape[1:], np.uint8)
        images, masks = to_input(image[None]), torch.from_numpy(mask[None]).long()
        if self.geometric:
            images, masks = warp_pairs(images, masks, affine_maps([seed]))
        return images[0], masks[0] if self.labelled else None

    def views(self, index: int, seed: int) -> tuple[Tensor, Tensor]:
        image = self.draw(index, seed)[0]
        return image, image
