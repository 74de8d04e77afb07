"""CLIP-I: mean cosine of the CLIP image embeddings of synthetic and real images, in float64.

Ruiz et al., "DreamBooth" (CVPR 2023), average over all pairs of a generated and a real image of one subject, on CLIP
ViT-B/32. Papers on medical images report the name without a protocol, so both that apply are given: the mean over each
synthetic image and the real one whose mask it was painted from, and the mean over all pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from morphogen.metrics.cmmd import unit


@dataclass(frozen=True)
class ClipI:
    """CLIP-I of two sets.

    Attributes:
        paired: Over pairs of a synthetic image and its source; None where no source is known.
        n_paired: Their number.
        all_pairs: Over every synthetic image with every real one.
    """

    paired: float | None
    n_paired: int
    all_pairs: float


def clip_i(synthetic: np.ndarray, real: np.ndarray, sources: Mapping[int, int]) -> ClipI:
    """CLIP-I of (N, D) and (M, D) embeddings.

    Args:
        synthetic: (N, D).
        real: (M, D).
        sources: Row of a synthetic image -> row of its real source, where that is known.

    Raises:
        InputError: A feature is not finite.
    """
    x, y = unit(synthetic), unit(real)
    paired = float((x[list(sources)] * y[list(sources.values())]).sum(axis=1).mean()) if sources else None
    return ClipI(paired, len(sources), float(x.mean(axis=0) @ y.mean(axis=0)))
