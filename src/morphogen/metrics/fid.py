"""Fréchet distance between two sets of features (FID), in float64.

d^2 = |m_1 - m_2|^2 + Tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2)): Heusel et al., "GANs Trained by a Two Time-Scale Update Rule
Converge to a Local Nash Equilibrium" (NeurIPS 2017). The estimate is biased upwards at small n, so that only values of
equal n compare; KID has no such bias.
"""

from __future__ import annotations

import numpy as np

from morphogen.errors import InputError
from morphogen.metrics.mmd import finite


class FeatureStats:
    """Mean and covariance of features that arrive in batches; memory does not grow with their number."""

    def __init__(self, dim: int) -> None:
        self.n = 0
        self.mean = np.zeros(dim)
        self._scatter = np.zeros((dim, dim))

    def update(self, features: np.ndarray) -> FeatureStats:
        """Add a batch, (B, D).

        Raises:
            InputError: A feature is not finite.
        """
        features = finite(features)
        if len(features):
            mean = features.mean(axis=0)
            centred = features - mean
            self._add(len(features), mean, centred.T @ centred)
        return self

    def merge(self, other: FeatureStats) -> FeatureStats:
        """Add all that another one has seen, in place."""
        if other.n:
            self._add(other.n, other.mean, other._scatter)
        return self

    def _add(self, n: int, mean: np.ndarray, scatter: np.ndarray) -> None:
        """Chan, Golub and LeVeque (1983): no cancellation, whatever the order of batches."""
        shift = mean - self.mean
        total = self.n + n
        self._scatter += scatter + np.outer(shift, shift) * (self.n * n / total)
        self.mean = self.mean + shift * (n / total)
        self.n = total

    @property
    def cov(self) -> np.ndarray:
        """(D, D) covariance, divided by n - 1.

        Raises:
            InputError: Fewer than two rows have been added.
        """
        if self.n < 2:
            raise _too_few(self.n)
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
    """Fréchet distance of two sets of features, (N, D) and (M, D).

    With X and Y the centred features, Tr (C_x C_y)^(1/2) is the sum of the singular values of X Y^T over
    sqrt((N - 1) (M - 1)). That is the short way where a set has fewer rows than features.

    Raises:
        InputError: A set has fewer than two rows, or a feature is not finite.
    """
    dim = synthetic.shape[1]
    if min(len(synthetic), len(real)) > dim:
        return frechet_distance(FeatureStats(dim).update(synthetic), FeatureStats(dim).update(real))
    (x, mean_x), (y, mean_y) = _centred(synthetic), _centred(real)
    cross = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    shift = mean_x - mean_y
    return max(float(shift @ shift + (x**2).sum() + (y**2).sum() - 2 * cross), 0.0)


def _centred(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, D) features without their mean and over sqrt(N - 1), and the mean."""
    features = finite(features)
    if len(features) < 2:
        raise _too_few(len(features))
    mean = features.mean(axis=0)
    return (features - mean) / np.sqrt(len(features) - 1), mean


def _too_few(n: int) -> InputError:
    return InputError(f"FID: a set holds {n} images; a covariance needs at least 2")


def _trace_sqrt_product(cov_a: np.ndarray, cov_b: np.ndarray) -> float:
    """Tr (A B)^(1/2) for positive semi-definite A and B: the sum of the roots of the eigenvalues of A B.

    These are the eigenvalues of the symmetric problem A B v = w v, real and not negative, where the general matrix
    square root turns complex or NaN on the singular covariances of few images. A singular B is replaced by its root:
    with B = L L^T, the product has the non-zero eigenvalues of L^T A L.
    """
    from scipy.linalg import LinAlgError, eigvalsh

    try:
        values = eigvalsh(cov_a, cov_b, type=2, driver="gv")  # factorises B by Cholesky
    except LinAlgError:
        values, vectors = np.linalg.eigh(cov_b)
        kept = values > values[-1] * len(values) * np.finfo(np.float64).eps
        root = vectors[:, kept] * np.sqrt(values[kept])
        values = np.linalg.eigvalsh(root.T @ cov_a @ root)
    return float(np.sqrt(values.clip(min=0)).sum())
