"""Whether the mask autoencoder of `tiny` holds phantom masks and real ones, once its decoder has learned to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from morphogen.data.pairs import Pairs
from morphogen.data.readers import read_dataset
from morphogen.data.split import grouped_folds
from morphogen.segmenters import build, resolve
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
    """Learned from some of the subjects, measured on others."""
    data = read_dataset(real_data / name).annotated
    fold = grouped_folds(data, 5)[0]
    torch.manual_seed(0)
    net: Any = build("latent", 2, resolve("latent", {"foundation": "tiny"}))
    prepare(net, [Pairs(data.select(fold.train_ids[::3]), 64)], SegmenterConfig(), tmp_path)
    held_out = Pairs(data.select(fold.test_ids), 64)
    assert np.mean(oracle_dice(net.net, Masks([held_out]).first(100))) >= WANTED


def test_classes_are_held_by_their_colours(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net: Any = build("latent", 4, resolve("latent", {"foundation": "tiny"}))
    prepare(net, [PhantomPairs(96, 64, n_classes=4)], SegmenterConfig(), tmp_path)
    masks = PhantomPairs(48, 64, first_seed=700, n_classes=4).stacked()[1]
    found = oracle_dice(net.net, masks)
    assert len(found) == 3
    assert np.mean(found) >= 0.97
