"""CMMD: maximum mean discrepancy of CLIP image embeddings, in float64.

Jayasumana et al., "Rethinking FID: Towards a Better Evaluation Metric for Image Generation" (CVPR 2024): embeddings of
CLIP ViT-L/14 at 336 px, of unit length; k(x, y) = exp(-|x - y|^2 / (2 sigma^2)) with sigma = 10; the squared
discrepancy times 1000. Their code takes the biased estimate, which is larger by about 5 |x - y|^2 (1/N + 1/M) of unlike
pairs: nothing at thousands of images, and more than the value itself at tens. So both estimates are given.
"""

from __future__ import annotations

import numpy as np

from morphogen.metrics.mmd import Mmd2, finite, mmd2

SIGMA = 10.0
SCALE = 1000.0


def cmmd(synthetic: np.ndarray, real: np.ndarray) -> Mmd2:
    """CMMD of (N, D) and (M, D) embeddings, whose length does not matter; both estimates, times 1000.

    Raises:
        InputError: A set has fewer than two rows, or a feature is not finite.
    """
    found = mmd2(unit(synthetic), unit(real), _rbf)
    return Mmd2(SCALE * found.biased, SCALE * found.unbiased)


def unit(embeddings: np.ndarray) -> np.ndarray:
    """(N, D) embeddings brought to unit length, float64."""
    embeddings = finite(embeddings)
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


def _rbf(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    squares = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1) - 2 * x @ y.T
    return np.exp(-squares / (2 * SIGMA**2))
