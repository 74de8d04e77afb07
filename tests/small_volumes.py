"""Volumes with a bright box in them, and segmenters of volumes that were trained for two steps."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from morphogen.data.volumes.preparation import Preparation
from morphogen.data.volumes.readers import read_volumes
from morphogen.segmenters.diffcl.config import SemiConfig
from morphogen.segmenters.diffcl.volumes import Few, PatchConfig, train_volumes

PATCH = (32, 16, 16)
SHAPE = (22, 18, 17)


def made_volume(shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(X, Y, Z) float32 noise in which a box is brighter, and the box as uint8 labels."""
    label = np.zeros(shape, np.uint8)
    label[tuple(slice(n // 4, n // 4 + max(1, n // 2)) for n in shape)] = 1
    image = label + np.random.default_rng(seed).normal(0, 0.3, shape)
    return image.astype(np.float32), label


def write_nifti(path: Path, values: np.ndarray, affine: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine), path)


def write_h5(path: Path, image: np.ndarray, label: np.ndarray | None = None) -> None:
    import h5py

    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["image"] = image
        if label is not None:
            file["label"] = label


def volume_folder(
    root: Path,
    labelled: Iterable[str] = ("a", "b"),
    unlabelled: Iterable[str] = ("c",),
    affine: np.ndarray | None = None,
) -> Path:
    """images/ and masks/ of NIfTI files."""
    for seed, name in enumerate([*labelled, *unlabelled]):
        image, label = made_volume(seed=seed)
        write_nifti(root / "images" / f"{name}.nii.gz", image, affine)
        if name in labelled:
            write_nifti(root / "masks" / f"{name}.nii.gz", label, affine)
    return root


def tiny_run(folder: Path, method: str = "diff-cl", preparation: Preparation | None = None) -> Path:
    """Run folder of a segmenter with two channels at its first level."""
    data = read_volumes(volume_folder(folder / "data"))
    few = Few.of(data, data.where(lambda record: False), preparation or Preparation())
    words: dict[str, Any] = {
        **{"method": method, "operator": "none", "filters": 2, "max_train_steps": 2, "train_batch_size": 2},
        "denoiser_norm": "batch",  # two values normalised by themselves are signs, and rounding turns them
    }
    return train_volumes(few, SemiConfig(**words), PatchConfig(patch=PATCH), folder / method)
