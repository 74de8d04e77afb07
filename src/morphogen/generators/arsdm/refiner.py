"""ArSDM's refinement: a frozen segmenter has to find the mask in the painted image (Du et al., MICCAI 2023).

Published is a PraNet of weights made elsewhere. Here the segmenter learns from the generator's own training pairs, and
stays in the run's folder, so that a run that is continued goes on with the same one. It must not judge what it refined.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from morphogen.data.pairs import Pairs
from morphogen.generators.arsdm.config import ArSDMConfig
from morphogen.segmenters import build, named
from morphogen.segmenters.any_size import refuse_size
from morphogen.segmenters.losses import losses_of
from morphogen.segmenters.predictor import load_segmenter
from morphogen.segmenters.task import SegmenterConfig, train_segmenter

FOLDER = "segmenter"
"""In the run's folder."""


def check(config: ArSDMConfig, classes: int, resolution: int) -> None:
    """Refuse a segmenter that cannot be trained, before anything is written.

    Raises:
        InputError: Unknown option or value, weights that are not there, or a resolution that it cannot work at.
    """
    if said := words(config):
        name, options = named(said)
        refuse_size(build(name, classes, options), resolution)


def trained(pairs: Pairs, config: ArSDMConfig, out: Path) -> nn.Module | None:
    """The segmenter, trained on `pairs` in ``out/segmenter``, or None where nothing is to be refined.

    Raises:
        InputError: It cannot be built, or the folder holds another one.
    """
    if (said := words(config)) is None:
        return None
    name, options = named(said)
    settings = SegmenterConfig(
        architecture=options, max_train_steps=config.segmenter_steps, train_batch_size=config.train_batch_size,
        mixed_precision=config.mixed_precision, seed=config.seed,
    )  # fmt: skip
    nobody = Pairs(pairs.dataset.select([]), pairs.resolution)  # no pair is left to validate on: the last weights stay
    net = load_segmenter(train_segmenter(name, pairs, nobody, settings, out / FOLDER)).net
    return net.requires_grad_(False)


def words(config: ArSDMConfig) -> str | None:
    """The segmenter as ``name+option=value``; None where nothing is to be refined."""
    return config.segmenter.replace(",", "+") if config.w_r else None


def refinement_loss(segmenter: nn.Module, image: Tensor, mask: Tensor, seeds: Tensor) -> Tensor:
    """The segmenter's own losses of the image that it was given, summed; the mean over rows.

    Args:
        segmenter: Frozen, in evaluation.
        image: (B, 3, H, W) in [-1, 1], with a gradient.
        mask: (B, H, W) int64 label ids.
        seeds: (B,) int64.
    """
    return torch.stack(list(losses_of(segmenter, image, mask, seeds).values())).sum()
