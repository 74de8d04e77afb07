"""Bringing a lesion into the shape of another mask, label by label, so that the mask stays exact."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

PIXEL_VARIANCE = 1 / 12
"""Variance of a coordinate within its own pixel; keeps the moments of a single pixel or a line invertible."""
TURN_COST = 0.02
"""Overlap that a half turn or a mirroring must gain: light and shadow look wrong when turned for nothing."""
SIZE_COST = 0.1
"""Overlap that is worth an e-fold change of area, when one of several lesions is chosen."""


@dataclass(frozen=True)
class Match:
    """An affine map from the target component to the source component: ``source = matrix @ target + shift`` (y, x)."""

    component: np.ndarray
    matrix: np.ndarray
    shift: np.ndarray


def components(mask: np.ndarray) -> list[np.ndarray]:
    """(H, W) bool for every 4-connected component."""
    labels, n = ndimage.label(mask)
    return [labels == i for i in range(1, n + 1)]


def best_match(target: np.ndarray, sources: list[np.ndarray]) -> Match:
    """The source component, and the pose of it, that covers the target best.

    Centroid and second moments fix the map up to an orthogonal matrix; of that, the four that take the axes of one
    to the axes of the other are tried.

    Args:
        target: (H, W) bool, not empty.
        sources: Candidates of the same kind, at least one.
    """
    best, best_score = None, -np.inf
    points = np.argwhere(target)
    centre, axes, spread = _moments(points)
    for source in sources:
        source_points = np.argwhere(source)
        source_centre, source_axes, source_spread = _moments(source_points)
        size = SIZE_COST * abs(np.log(len(source_points) / len(points)))
        for signs in ((1, 1), (-1, -1), (1, -1), (-1, 1)):
            turn = source_axes @ np.diag(signs) @ axes.T
            matrix = source_axes @ np.diag(source_spread * signs / spread) @ axes.T
            match = Match(source, matrix, source_centre - matrix @ centre)
            score = _overlap(points, match) - TURN_COST * (2 - np.trace(turn)) / 4 - size
            if score > best_score + 1e-9:
                best, best_score = match, score
    assert best is not None
    return best


def coordinates(points: np.ndarray, match: Match, allowed: np.ndarray) -> np.ndarray:
    """Where in the source each target point takes its colour.

    The affine map, and where that leaves the allowed area, the nearest point of it: a point of the lesion thus never
    shows healthy surface, nor the other way round.

    Args:
        points: (N, 2) target pixels (y, x).
        match: The map.
        allowed: (H, W) bool, not empty.

    Returns:
        (N, 2) float64 source coordinates.
    """
    mapped = points @ match.matrix.T + match.shift
    pixel = np.rint(mapped).astype(int).clip(0, np.array(allowed.shape) - 1)
    nearest = ndimage.distance_transform_edt(~allowed, return_distances=False, return_indices=True)
    inside = allowed[pixel[:, 0], pixel[:, 1]] & (np.abs(mapped - pixel) <= 0.5 + 1e-9).all(axis=1)
    return np.where(inside[:, None], mapped, nearest[:, pixel[:, 0], pixel[:, 1]].T)


def sample(image: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Bilinear samples of an (H, W, 3) image at (N, 2) coordinates: (N, 3) float64."""
    channels = np.moveaxis(image, -1, 0).astype(np.float64)
    return np.stack([ndimage.map_coordinates(c, at.T, order=1, mode="nearest") for c in channels], axis=1)


def _moments(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centroid (2,), axes (2, 2) in columns, and standard deviations (2,) along them."""
    centre = points.mean(axis=0)
    covariance = (points - centre).T @ (points - centre) / len(points) + PIXEL_VARIANCE * np.eye(2)
    variances, axes = np.linalg.eigh(covariance)
    return centre, axes, np.sqrt(variances)


def _overlap(points: np.ndarray, match: Match) -> float:
    """Share of the target's points that land on the source component."""
    pixel = np.rint(points @ match.matrix.T + match.shift).astype(int)
    inside = ((pixel >= 0) & (pixel < match.component.shape)).all(axis=1)
    return float(match.component[tuple(pixel[inside].T)].sum() / len(points))
