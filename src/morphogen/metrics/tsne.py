"""A map of real and synthetic features in the plane, by t-SNE (van der Maaten and Hinton, JMLR 2008).

A picture, no measure: neighbours are kept, distances and densities are not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from morphogen.errors import InputError
from morphogen.metrics.mmd import finite

PERPLEXITY = 30.0
MOST = 2000
"""Images of each set that are drawn."""
COMPONENTS = 50
"""Principal components that the neighbours are found in."""


def check_installed() -> None:
    """Refuse to begin without the library.

    Raises:
        InputError: It is not installed.
    """
    try:
        import sklearn.manifold  # noqa: F401
    except ImportError:
        raise InputError("--tsne: scikit-learn is not installed; pip install 'morphogen[tsne]'") from None


def draw_tsne(synthetic: np.ndarray, real: np.ndarray, file: Path, seed: int = 0) -> dict[str, Any]:
    """Draw the map of (N, D) and (M, D) features; of more than 2,000 images in a set, that many are drawn by lot.

    Returns:
        ``file``, ``perplexity`` and the numbers of points, ``n_synthetic`` and ``n_real``.

    Raises:
        InputError: scikit-learn is not installed, fewer than four images in all, or a feature is not finite.
    """
    rng = np.random.default_rng(seed)
    sets = [x[np.sort(rng.permutation(len(x))[:MOST])] for x in (finite(synthetic), finite(real))]
    points, perplexity = embed(np.concatenate(sets), seed)
    _draw(points[: len(sets[0])], points[len(sets[0]) :], file)
    return {"file": str(file), "perplexity": perplexity, "n_synthetic": len(sets[0]), "n_real": len(sets[1])}


def embed(features: np.ndarray, seed: int = 0) -> tuple[np.ndarray, float]:
    """Points (N, 2) of features (N, D), and the perplexity: 30, or less than a third of the points.

    Raises:
        InputError: scikit-learn is not installed, or fewer than four rows.
    """
    check_installed()
    if len(features) < 4:
        raise InputError(f"--tsne: {len(features)} images; give at least 4 in both folders together")
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    reduced = PCA(min(COMPONENTS, *features.shape), random_state=seed).fit_transform(features)
    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    tsne = TSNE(perplexity=perplexity, init="pca", random_state=seed)
    return tsne.fit_transform(reduced), perplexity


def _draw(synthetic: np.ndarray, real: np.ndarray, file: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.add_subplot()
    for points, name, colour, marker in ((real, "real", "#0072b2", "o"), (synthetic, "synthetic", "#d55e00", "^")):
        label, (x, y) = f"{name} ({len(points)})", points.T
        axes.scatter(x, y, s=14, c=colour, marker=marker, alpha=0.7, linewidths=0, label=label)
    axes.set(xticks=[], yticks=[], title="t-SNE of features: neighbours count, distances do not")
    axes.legend(loc="best")
    figure.savefig(file, dpi=150, metadata={"Software": None})
