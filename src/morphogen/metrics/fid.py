"""Fréchet distance between two sets of features (FID), in float64.

d^2 = |m_1 - m_2|^2 + Tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2)): Heusel et al., "GANs Trained by a Two Time-Scale Update Rule
Converge to a Local Nash Equilibrium" (NeurIPS 2017). The estimate is biased upwards at small n, so that only values of
equal n compare; KID has no such bias.
"""

from __future__ import annotations

import numpy as np

from morphogen.errors import InputError


class FeatureStats:
    """Mean and covariance of features that arrive in batches; memory does not grow with their number."""

    def __init__(self, dim: int) -> None:
        self.n = 0
        self.mean = np.zeros(dim)
        self._scatter = np.zeros((dim, dim))

    def update(self, features: np.ndarray) -> FeatureStats:
        """Add a batch, (B, D). Chan, Golub and LeVeque (1983): no cancellation, whatever the order of batches."""
        features = np.asarray(features, dtype=np.float64)
        count = len(features)
        if count == 0:
            return self
        mean = features.mean(axis=0)
        centred = features - mean
        shift = mean - self.mean
        total = self.n + count
        self._scatter += centred.T @ centred + np.outer(shift, shift) * (self.n * count / total)
        self.mean = self.mean + shift * (count / total)
        self.n = total
        return self

    @property
    def cov(self) -> np.ndarray:
        """(D, D) covariance, divided by n - 1.

        Raises:
            InputError: Fewer than two rows have been added.
        """
        if self.n < 2:
            raise InputError(f"FID: a set holds {self.n} images; a covariance needs at least 2")
        return self._scatter / (self.n - 1)


def frechet_distance(a: FeatureStats, b: FeatureStats) -> float:
    """Squared Fréchet distance of the Gaussians with these moments; 0 or more.

    Raises:
        InputError: A set has fewer than two rows.
    """
    cov_a, cov_b = a.cov, b.cov
    shift = a.mean - b.mean
    distance = shift @ shift + np.trace(cov_a) + np.trace(cov_b) - 2 * _trace_sqrt_product(cov_a, cov_b)
    return max(float(distance), 0.0)


def fid(synthetic: np.ndarray, real: np.ndarray) -> float:
    """`frechet_distance` of two sets of features, (N, D) and (M, D).

    Raises:
        InputError: A set has fewer than two rows.
    """
    dim = synthetic.shape[1]
    return frechet_distance(FeatureStats(dim).update(synthetic), FeatureStats(dim).update(real))


def _trace_sqrt_product(cov_a: np.ndarray, cov_b: np.ndarray) -> float:
    """Tr (A B)^(1/2) for positive semi-definite A and B.

    With A = L L^T, the product A B has the non-zero eigenvalues of L^T B L, which is symmetric: two symmetric
    eigenproblems, real throughout, where the general matrix square root turns complex or NaN on the singular
    covariances of few images.
    """
    values, vectors = np.linalg.eigh(cov_a)
    kept = values > values[-1] * len(values) * np.finfo(np.float64).eps
    root = vectors[:, kept] * np.sqrt(values[kept])
    return float(np.sqrt(np.linalg.eigvalsh(root.T @ cov_b @ root).clip(min=0)).sum())
