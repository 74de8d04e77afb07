"""The largest connected part of each class: what lies apart from an organ is mostly a mistake."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import generate_binary_structure, label


def largest_component(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Keep the largest part of every foreground class; voxels that touch by a corner are connected.

    Args:
        labels: Label map of any number of axes.

    Returns:
        A map of the same shape; what was left out is background.
    """
    kept = np.zeros_like(labels)
    structure = generate_binary_structure(labels.ndim, labels.ndim)
    for c in np.unique(labels[labels > 0]):
        parts, n = label(labels == c, structure)
        largest = 1 + int(np.bincount(parts.ravel())[1:].argmax()) if n else 0
        kept[parts == largest] = c
    return kept
