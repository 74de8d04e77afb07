"""Small volumes in files, as the benchmarks and as clinics store them."""

from __future__ import annotations

from pathlib import Path

import h5py
import nibabel
import numpy as np

SHAPE = (12, 10, 8)


def blob(shape: tuple[int, ...] = SHAPE, value: int = 1) -> np.ndarray:
    """A label: a ball in the middle of a volume, uint8."""
    at = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    return ((at**2).sum(0) < 0.5).astype(np.uint8) * np.uint8(value)


def grey(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """An image: noise, float32."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def put_h5(path: Path, **arrays: np.ndarray) -> Path:
    """An HDF5 file of these arrays; without any, of an image and its label."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, values in (arrays or {"image": grey(), "label": blob()}).items():
            file.create_dataset(name, data=values, compression="gzip")
    return path


def put_nifti(path: Path, values: np.ndarray, affine: np.ndarray | None = None) -> Path:
    """A NIfTI file, by default of 1 x 1 x 2 mm voxels that run to RAS."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1.0, 1, 2, 1]) if affine is None else affine), path)
    return path


def put_list(path: Path, *names: str) -> Path:
    """A list, a name a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names))
    return path


def listed(root: Path, train: tuple[str, ...] = ("c", "a", "b"), test: tuple[str, ...] = ("t",)) -> Path:
    """A folder of left atria: train.list, test.list, ID/mri_norm2.h5."""
    for name in (*train, *test):
        put_h5(root / name / "mri_norm2.h5")
    put_list(root / "train.list", *train)
    put_list(root / "test.list", *test)
    return root
