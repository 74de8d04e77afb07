"""The public benchmarks of semi-supervised segmentation: how their prepared files lie, and the published protocols.

Their lists have the usual names (`lists.NAMES`). We read the files that their authors prepared; what they did is said
here, since none of it can be undone:

- ``la2018``: z-score of the whole volume, then cropped in X and Y to the label's box with random margins of 10 to 20
  voxels (at least 112), all 88 slices kept. The label was used for the crop, also of test volumes. Windows of the
  test at strides of 18, 18 and 4 voxels.
- ``pancreas-a``: 1 mm voxels, window -125 to 275 HU scaled to [0, 1], cropped in X and Y to the label's box + 25
  voxels. Strides of 16.
- ``pancreas-b``: all axes resampled by the in-plane voxel size (so X and Y are 1 mm, Z is only near it), clipped to
  -125 to 275 HU, min-max, cropped along all axes to the label's box + 25 voxels, at least 96. Patients 25 and 70,
  withdrawn from Pancreas-CT as duplicates, are missing in these lists, and are among the 82 of ``pancreas-a``. Figures
  of the two are not comparable. Strides of 16, 16 and 4.
- ``brats2019``: FLAIR alone, cropped to the brain, clipped at 99.9 % of its distribution, z-score of the voxels above
  0; the published task is the whole tumour. Axes as the files have them. Strides of 64.
- ``acdc``: end-diastole and end-systole of each patient, [0, 1], slices along the first axis of the file and put last
  here. The published protocol is of 2D slices, resized to 256 x 256: there is none for volumes, and the patch is our
  own. Volumes have 6 to 18 slices, so most are padded along Z.

A prediction takes the strides of a protocol from ``predict --stride``: they cost many more windows than half overlaps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from morphogen.data.volumes.preparation import Preparation
from morphogen.errors import InputError

_AS_PREPARED = Preparation(normalise="none", reorient=False)


@dataclass(frozen=True)
class VolumePreset:
    """One benchmark.

    Attributes:
        name: Key in `PRESETS`.
        source: Where files and lists come from; the remedy where one is missing.
        patterns: Where the file of an id may lie in the folder; the first that is there is taken.
        classes: Class names by label id, background first.
        mask_values: Raw value -> label id.
        patch: Voxels of a training patch and of the sliding window.
        augmentation: As of `patches.augment`.
        axes: Which axis of the file becomes X, Y and Z (`Record.axes`).
        subject: Regular expression for the patient in an id; without one every id is a patient.
        spacing: Voxel size of the files in mm, as published; the files themselves state none.
        preparation: What is still to be done to the prepared files: nothing.
    """

    name: str
    source: str
    patterns: tuple[str, ...]
    classes: tuple[str, ...]
    mask_values: Mapping[int, int]
    patch: tuple[int, int, int]
    augmentation: str
    axes: tuple[int, int, int] | None = None
    subject: str | None = None
    spacing: tuple[float, float, float] | None = None
    preparation: Preparation = _AS_PREPARED


_BINARY = {0: 0, 1: 1}

PRESETS: dict[str, VolumePreset] = {
    preset.name: preset
    for preset in (
        VolumePreset(
            name="la2018",
            source="2018 left atrium challenge as of github.com/yulequan/UA-MT; 80 training and 20 test volumes",
            patterns=("{id}/mri_norm2.h5", "2018LA_Seg_Training Set/{id}/mri_norm2.h5"),
            classes=("background", "left atrium"),
            mask_values=_BINARY,
            patch=(112, 112, 80),
            augmentation="turns",
            spacing=(0.625, 0.625, 0.625),  # cardiacatlas.org/atriaseg2018-challenge/atria-seg-data
        ),
        VolumePreset(
            name="brats2019",
            source="BraTS 2019 FLAIR as of github.com/HiLab-git/SSL4MIS; 250 training, 25 validation, 60 test volumes",
            patterns=("data/{id}.h5", "{id}.h5"),
            classes=("background", "whole tumour"),
            mask_values={0: 0, 1: 1, 2: 1, 3: 1, 4: 1},  # necrosis, oedema, (unused), enhancing tumour
            patch=(96, 96, 96),
            augmentation="turns",
            spacing=(1.0, 1.0, 1.0),  # med.upenn.edu/cbica/brats2020/data.html: interpolated to 1 mm
        ),
        VolumePreset(
            name="pancreas-a",
            source="NIH Pancreas-CT as of github.com/ycwu1997/MC-Net; 62 training and 20 test volumes",
            patterns=("Pancreas_h5/{id}_norm.h5", "{id}_norm.h5"),
            classes=("background", "pancreas"),
            mask_values=_BINARY,
            patch=(96, 96, 96),
            augmentation="none",
            spacing=(1.0, 1.0, 1.0),  # the target spacing printed by its Pre-processing.ipynb
        ),
        VolumePreset(
            name="pancreas-b",
            source="NIH Pancreas-CT as of github.com/koncle/CoraNet and DeepMed-Lab-ECNU/BCP; 62 training, 18 test",
            patterns=("{id}.h5",),
            classes=("background", "pancreas"),
            mask_values=_BINARY,
            patch=(96, 96, 96),
            augmentation="none",
        ),
        VolumePreset(
            name="acdc",
            source="ACDC as of github.com/HiLab-git/SSL4MIS; 140 training, 20 validation and 40 test volumes",
            patterns=("data/{id}.h5", "{id}.h5"),
            classes=("background", "right ventricle", "myocardium", "left ventricle"),
            mask_values={0: 0, 1: 1, 2: 2, 3: 3},
            patch=(128, 128, 16),
            augmentation="turns",
            axes=(1, 2, 0),
            subject=r"patient\d+",
        ),
    )
}


def find_preset(name: str) -> VolumePreset:
    """The preset of that name.

    Raises:
        InputError: There is none.
    """
    if name not in PRESETS:
        raise InputError(f"preset {name}: there is no such benchmark; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
