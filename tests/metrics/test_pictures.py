"""Images of a folder as pictures of one size."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from morphogen.data.images import load_rgb
from morphogen.errors import InputError
from morphogen.metrics.pictures import find_pictures, picture


def test_slices_of_a_volume_share_its_window(tmp_path: Path) -> None:
    """As in training: a dark slice stays dark, so that it is compared with what was learned from it."""
    volume = np.random.default_rng(0).uniform(0, 1000, (8, 8, 2)) * [0.01, 1.0]
    (tmp_path / "images").mkdir()
    nibabel.save(nibabel.Nifti1Image(volume.astype(np.float32), np.eye(4)), tmp_path / "images" / "v.nii.gz")
    dark, bright = find_pictures(tmp_path)
    assert picture(dark).max() < 10
    assert picture(bright).max() == 255
    np.testing.assert_array_equal(picture(bright), load_rgb(bright))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    pixels = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    pixels[2, 3] = value
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match=r"a\.tif: holds NaN or infinite values; replace"):
        picture(find_pictures(tmp_path)[0])
