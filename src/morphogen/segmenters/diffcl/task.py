"""Training by few labelled and many unlabelled images or volumes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from morphogen.registry import load
from morphogen.segmenters.diffcl.methods import METHODS
from morphogen.segmenters.diffcl.methods.base import Method, Parts
from morphogen.segmenters.diffcl.nets import TwoNets
from morphogen.segmenters.diffcl.streams import Stream
from morphogen.segmenters.diffcl.validation import Validation
from morphogen.training.rng import seed_of
from morphogen.training.task import Batch, Draw, Phase


class SemiTask:
    """One method on two streams. An item is a labelled and an unlabelled image, so that every part of a batch has both.

    The longer stream is walked through, epoch by epoch; of the shorter one an item is drawn for each of its items.
    """

    def __init__(
        self,
        parts: Parts,
        labelled: Stream,
        unlabelled: Stream,
        validation: Validation,
        save: Callable[[Path, TwoNets], None],
    ) -> None:
        """Builds the networks, their random parts from the config's seed.

        Args:
            parts: What the method is made of.
            labelled: Labelled images.
            unlabelled: Others; empty for a method that takes none.
            validation: Chooses the weights that are kept; may be empty, then the last ones are.
            save: Writes the networks into a folder.
        """
        self.config = parts.config
        self.labelled, self.unlabelled, self.validation, self.write = labelled, unlabelled, validation, save
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(self.config.seed, "semi"))
            self.method: Method = load(METHODS[self.config.method])(parts)
        self.modules: nn.ModuleDict = self.method.modules
        ds: Any = dict(self.modules).get("ds")
        self.nets = TwoNets(self.method.cs, ds, parts.n_classes, self.config.signal_scale)
        self.streams = (labelled, unlabelled) if self.method.takes_unlabelled else (labelled,)

    def __len__(self) -> int:
        return max(map(len, self.streams)) if all(map(len, self.streams)) else 0

    def phases(self) -> Sequence[Phase]:
        """Those of the method."""
        return self.method.phases()

    def batch(self, draws: Sequence[Draw]) -> Batch:
        """``image_l`` (B, C, *S), ``label`` (B, *S), ``seed`` (B,), and ``image_u`` and ``guessed_u`` where taken."""
        labelled = [self.labelled.draw(*self._item(self.labelled, draw, "labelled")) for draw in draws]
        batch: Batch = {
            "image_l": torch.stack([image for image, _ in labelled]),
            "label": torch.stack([label for _, label in labelled if label is not None]),
            "seed": torch.tensor([draw.seed for draw in draws]),
        }
        if self.method.takes_unlabelled:
            views = [self.unlabelled.views(*self._item(self.unlabelled, draw, "unlabelled")) for draw in draws]
            batch["image_u"], batch["guessed_u"] = (torch.stack(some) for some in zip(*views, strict=True))
        return batch

    def _item(self, stream: Stream, draw: Draw, name: str) -> tuple[int, int]:
        """Which item of a stream, and its seed."""
        seed = seed_of(draw.seed, name)
        return draw.index if len(stream) == len(self) else seed_of(seed, "item") % len(stream), seed

    def to(self, device: Any) -> None:
        """Nothing lies outside `modules`."""

    def validate(self, step: int) -> Mapping[str, float]:
        """See `Validation.scores`."""
        return self.validation.scores(self.nets, self.config)

    def preview(self, step: int, folder: Path) -> None:
        """Up to four validation images with outlines."""
        self.validation.preview(self.nets, self.config, folder / f"step-{step:06d}.png")

    def save(self, folder: Path) -> None:
        """The networks that predict."""
        self.write(folder, self.nets)
