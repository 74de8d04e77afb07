"""Which label a raw value of a label volume means, found in the files where nothing states it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from morphogen.data.mask_values import PIXEL_BUDGET, MaskRule, rule_from_counts
from morphogen.data.volumes.files import raw_label, shape_of
from morphogen.data.volumes.hdf5 import LABEL_KEY


def decide_label_values(files: Sequence[Path], classes: Sequence[str] | None = None) -> MaskRule:
    """The rule that reads these label volumes, as `mask_values.decide_mask_values` finds it for masks.

    Of more than `PIXEL_BUDGET` voxels together an evenly spaced part is looked at; what is left out is still read
    strictly when it is loaded.

    Args:
        files: NIfTI or HDF5.
        classes: Class names where the data state them.

    Raises:
        InputError: A file is unreadable, or the values are no labels.
    """
    voxels = sum(int(np.prod(shape_of(file, LABEL_KEY))) for file in files)
    keep = max(1, int(len(files) * min(1.0, PIXEL_BUDGET / max(voxels, 1))))
    chosen = [files[i] for i in np.unique(np.linspace(0, len(files) - 1, keep).round().astype(int))] if files else []
    return rule_from_counts({file: _counts(file) for file in chosen}, classes)


def _counts(file: Path) -> dict[int, int]:
    values = raw_label(file).ravel()
    low = int(values.min())
    if int(values.max()) - low < 2**16:  # counting is far quicker than sorting where the range is that of labels
        counts = np.bincount(values - low)
        return {low + int(i): int(counts[i]) for i in np.flatnonzero(counts)}
    found, n = np.unique(values, return_counts=True)
    return {int(v): int(k) for v, k in zip(found, n, strict=True)}
