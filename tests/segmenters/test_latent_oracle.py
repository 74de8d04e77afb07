"""Whether the mask autoencoder of `tiny` holds phantom masks and real ones, once its decoder has learned to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion

from morphogen.data.pairs import Pairs
from morphogen.data.readers import read_dataset
from morphogen.data.split import grouped_folds, take_validation
from morphogen.segmenters import build, resolve
from morphogen.segmenters.latent import mask_autoencoder
from morphogen.segmenters.latent.mask_autoencoder import WANTED, Masks, oracle_dice, prepare
from morphogen.segmenters.latent.model import LatentSegmenter
from morphogen.segmenters.task import SegmenterConfig
from segmenters.base import PhantomPairs

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> LatentSegmenter:
    """Its decoder has seen phantoms alone."""
    torch.manual_seed(0)
    net: Any = build("latent", 2, resolve("latent", {"foundation": "tiny"}))
    prepare(net, [PhantomPairs(96, 64)], SegmenterConfig(), tmp_path_factory.mktemp("run"))
    inner: LatentSegmenter = net.net
    return inner


def test_phantoms_that_it_has_not_seen(prepared: LatentSegmenter) -> None:
    masks = PhantomPairs(48, 64, first_seed=700).stacked()[1]
    assert np.mean(oracle_dice(prepared, masks)) >= WANTED


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["polyps/cvc_clinicdb", "skin/isic2017"])
def test_real_masks(name: str, real_data: Path, tmp_path: Path) -> None:
    """Learned from the training part of a fold, measured on its validation part."""
    data = read_dataset(real_data / name).annotated
    train, held_out = take_validation(data, grouped_folds(data, 5)[0].train_ids)
    torch.manual_seed(0)
    net: Any = build("latent", 2, resolve("latent", {"foundation": "tiny"}))
    prepare(net, [Pairs(data.select(train[::2]), 64)], SegmenterConfig(), tmp_path)
    assert np.mean(oracle_dice(net.net, Masks([Pairs(data.select(held_out), 64)]).first(100))) >= WANTED


class Nested(PhantomPairs):
    """The inner part of every lesion is a class of its own."""

    def _pair(self, seed: int, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
        image, mask = super()._pair(seed, 2)
        return image, (mask + binary_erosion(mask, iterations=3)).astype(np.uint8)


def test_classes_are_held_by_their_colours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After one turn of at most four; colours that no image had take more to learn than black and white."""
    monkeypatch.setattr(mask_autoencoder, "_TURNS", 1)
    torch.manual_seed(0)
    net: Any = build("latent", 3, resolve("latent", {"foundation": "tiny"}))
    prepare(net, [Nested(96, 64, n_classes=3)], SegmenterConfig(), tmp_path)
    masks = Nested(48, 64, first_seed=700, n_classes=3).stacked()[1]
    assert np.mean(oracle_dice(net.net, masks)) >= 0.96
