"""What `data convert --to nnunet` writes passes nnU-Net's own integrity check.

nnU-Net wants packages that do not live beside ours, so it has an environment of its own: `make test-nnunet` makes it,
names its Python in MORPHOGEN_NNUNET and runs these tests.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from morphogen.cli import main
from morphogen.data.phantoms import phantom_dataset

pytestmark = pytest.mark.nnunet

CHECK = (
    "import sys; from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity as check; "
    "check(sys.argv[1], 1)"
)
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def python() -> str:
    path = os.environ.get("MORPHOGEN_NNUNET")
    if not path:
        pytest.skip("MORPHOGEN_NNUNET is unset: no Python with nnunetv2; `make test-nnunet` makes one")
    return path


def verified(python: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        **{f"nnUNet_{name}": str(folder.parent) for name in ("raw", "preprocessed", "results")},
    }
    command = [python, "-c", CHECK, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def colour(root: Path) -> None:
    phantom_dataset(root, "mucosa", 5, 48)


def grey_with_three_classes(root: Path) -> None:
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    (root / "classes.txt").write_text("background\nlesion\nvessel\n")
    for i in range(4):
        Image.fromarray(RNG.integers(0, 256, (40, 56), dtype=np.uint8)).save(root / "images" / f"p{i}.png")
        Image.fromarray(RNG.integers(0, 3, (40, 56), dtype=np.uint8)).save(root / "masks" / f"p{i}.png")


def volumes(root: Path) -> None:
    affine = np.diag([0.7, 0.7, 3.0, 1.0])
    for i in range(3):
        shape = (20, 24, 6 + i)
        pair = {
            "images": RNG.normal(100, 20, shape).astype(np.int16),
            "masks": (RNG.random(shape) > 0.9).astype(np.uint8),
        }
        for folder, array in pair.items():
            (root / folder).mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(array, affine), root / folder / f"c{i}.nii.gz")


@pytest.mark.parametrize("source", [colour, grey_with_three_classes, volumes])
def test_the_integrity_check_passes(python: str, source: object, tmp_path: Path) -> None:
    source(tmp_path / "in")  # type: ignore[operator]
    out = tmp_path / "Dataset001_Test"
    assert main(["data", "convert", str(tmp_path / "in"), "--to", "nnunet", "--out", str(out)]) == 0
    done = verified(python, out)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "verify_dataset_integrity Done" in done.stdout


def test_the_check_can_fail(python: str, tmp_path: Path) -> None:
    colour(tmp_path / "in")
    out = tmp_path / "Dataset001_Test"
    assert main(["data", "convert", str(tmp_path / "in"), "--to", "nnunet", "--out", str(out)]) == 0
    label = next((out / "labelsTr").iterdir())
    Image.fromarray(np.array(Image.open(label)) * 255).save(label)
    assert verified(python, out).returncode != 0
