"""Mean absolute error of a foreground map: mean over pixels of |p - g|, p in [0, 1], g in {0, 1}.

Source: Perazzi et al., "Saliency Filters", CVPR 2012, Eq. 12. On label masks it is the share of pixels that differ.
"""

from __future__ import annotations

import numpy as np


def mae(pred: np.ndarray, ref: np.ndarray) -> float:
    """Mean absolute error in [0, 1]; lower is better.

    Args:
        pred: Foreground map in [0, 1] (or bool), any shape.
        ref: Mask of the same shape; foreground = non-zero.
    """
    return float(np.abs(np.asarray(pred, dtype=np.float64) - (ref != 0)).mean())


def mae_from_counts(counts: np.ndarray, total: int) -> np.ndarray:
    """The same of binary masks: (..., 3) counts (in both, in `pred`, in `ref`) of `total` pixels -> (...) float64."""
    both, pred, ref = np.moveaxis(np.asarray(counts, dtype=np.float64), -1, 0)
    return (pred + ref - 2 * both) / total
