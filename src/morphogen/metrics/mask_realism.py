"""Do synthetic masks look like real ones? Distributions of area, shape and position, compared by Kolmogorov-Smirnov.

Of each mask and class, all its foreground taken together:

* ``area``: share of the image; empty masks count as 0.
* ``components``: pieces that touch by an edge or a corner; empty masks count as 0.
* ``eccentricity``: of the ellipse with the same second moments, 0 (circle) to 1.
* ``solidity``: area over that of the convex hull.
* ``compactness``: 4 pi area / perimeter^2 (perimeter by Crofton's formula), about 1 for a disc, less for all else.
* ``centre_x``, ``centre_y``: centroid as a share of width and height.

The last five are those of masks that hold the class. The distance is the largest difference of the two cumulative
distributions, 0 to 1. The p-value takes the masks for independent: those of one video, or several made from one real
mask, are not, and then it is too small.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from morphogen.data.masks import load_mask
from morphogen.data.records import Dataset, Record
from morphogen.errors import InputError
from morphogen.metrics.shares import divided

OF_ALL = ("area", "components")
OF_HELD = ("eccentricity", "solidity", "compactness", "centre_x", "centre_y")
MEASURES = (*OF_ALL, *OF_HELD)


def measure(mask: np.ndarray) -> dict[str, float]:
    """The measures of one class of one mask.

    Args:
        mask: (H, W); foreground = non-zero.

    Returns:
        By name; without those of `OF_HELD` where the mask is empty.
    """
    from scipy.ndimage import label
    from skimage.measure import regionprops

    held = mask != 0
    values = {"area": float(held.mean()), "components": float(label(held, np.ones((3, 3)))[1])}
    if not held.any():
        return values
    height, width = held.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the moments of a single pixel
        region = regionprops(held.astype(np.uint8))[0]
        values["eccentricity"] = float(np.nan_to_num(region.eccentricity))
    y, x = region.centroid
    return values | {
        "solidity": float(region.solidity),
        "compactness": float(4 * np.pi * region.area / region.perimeter_crofton**2),
        "centre_x": float((x + 0.5) / width),
        "centre_y": float((y + 0.5) / height),
    }


def compare(synthetic: Sequence[Mapping[str, float]], real: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Compare two sets of measures of one class.

    Returns:
        ``n``, ``n_real``, ``empty`` and ``empty_real`` (masks without the class), and ``measures``: name -> ``ks``,
        ``p``, ``n``, ``n_real``, and ``median`` and ``median_real``; a measure that one set has no value of is None.
    """
    return {
        "n": len(synthetic),
        "n_real": len(real),
        "empty": sum(row["area"] == 0 for row in synthetic),
        "empty_real": sum(row["area"] == 0 for row in real),
        "measures": {name: _compare(*(_values(rows, name) for rows in (synthetic, real))) for name in MEASURES},
    }


def _values(rows: Sequence[Mapping[str, float]], name: str) -> np.ndarray:
    return np.array([row[name] for row in rows if name in row])


def _compare(synthetic: np.ndarray, real: np.ndarray) -> dict[str, Any] | None:
    from scipy.stats import ks_2samp

    if not (len(synthetic) and len(real)):
        return None
    found = ks_2samp(synthetic, real)
    return {
        "ks": float(found.statistic),
        "p": float(found.pvalue),
        "n": len(synthetic),
        "n_real": len(real),
        "median": float(np.median(synthetic)),
        "median_real": float(np.median(real)),
    }


def check_classes(synthetic: Dataset, real: Dataset) -> None:
    """Refuse sets whose classes cannot be compared.

    Raises:
        InputError: Their numbers differ.
    """
    if len(synthetic.classes) != len(real.classes):
        raise InputError(
            f"{synthetic.root}: its masks hold {len(synthetic.classes)} classes, those of {real.root} "
            f"{len(real.classes)}; give both the same classes, or state --mask-values"
        )


def compare_masks(synthetic: Dataset, real: Dataset) -> dict[str, Any]:
    """Compare the masks of two sets of the same classes; several processes divide them.

    Returns:
        Class name -> result of `compare`.

    Raises:
        InputError: A mask cannot be read.
    """
    ours, theirs = (
        divided(data.records, partial(_measure_all, data=data), "measuring masks") for data in (synthetic, real)
    )
    return {
        name: compare([row[k] for row in ours], [row[k] for row in theirs]) for k, name in enumerate(real.classes[1:])
    }


def _measure_all(record: Record, data: Dataset) -> list[dict[str, float]]:
    mask = load_mask(record, data.mask_values)
    return [measure(mask == k) for k in range(1, len(data.classes))]
