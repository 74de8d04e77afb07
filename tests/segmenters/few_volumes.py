"""Small volumes with a bright ball, some of them without a label, for what learns from few of them."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from morphogen.data.records import Dataset, Record
from morphogen.data.volumes.preparation import Preparation
from morphogen.segmenters.diffcl.volumes import Few

SHAPE = (22, 20, 18)


def write_ball(path: Path, seed: int, shape: tuple[int, int, int] = SHAPE) -> None:
    """An h5 file whose ball is brighter than its noise."""
    rng = np.random.default_rng(seed)
    centre = np.array(shape) / 2 + rng.uniform(-2, 2, 3)
    apart = np.linalg.norm(np.indices(shape) - centre[:, None, None, None], axis=0)
    label = (apart < rng.uniform(4, 7)).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["image"] = (2.0 * label + rng.normal(0, 0.5, shape)).astype(np.float32)
        file["label"] = label


def ball_records(folder: Path, n: int, labelled: int) -> tuple[Record, ...]:
    """Records of `n` balls, the first ones labelled."""
    found = []
    for i in range(n):
        path = folder / f"ball{i:02d}.h5"
        if not path.exists():
            write_ball(path, i)
        found.append(
            Record(f"ball{i:02d}", path, path if i < labelled else None, subject=f"ball{i:02d}", split="train")
        )
    return tuple(found)


def few(folder: Path, labelled: int = 2, unlabelled: int = 3, validation: int = 1) -> Few:
    """Volumes to learn from."""
    records = ball_records(folder, labelled + unlabelled + validation, labelled + unlabelled + validation)
    classes, rule = ("background", "ball"), {0: 0, 1: 1}
    train = [Record(r.id, r.image, r.mask if i < labelled else None) for i, r in enumerate(records[:-validation])]
    preparation = Preparation(normalise="zscore")
    data = Dataset("balls", folder, tuple(train), classes, rule)
    return Few.of(data, Dataset("val", folder, records[len(train) :], classes, rule), preparation)
