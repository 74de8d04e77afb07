"""The map keeps neighbours, is the same twice, and takes few images."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from morphogen.errors import InputError
from morphogen.metrics import tsne
from morphogen.metrics.tsne import draw_tsne, embed

pytest.importorskip("sklearn")


def clusters(n: int, dim: int = 70) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(size=(n, dim)), rng.normal(8, 1, size=(n, dim))])


def test_two_clusters_stay_apart() -> None:
    points, perplexity = embed(clusters(40))
    distances = np.linalg.norm(points[:, None] - points, axis=2) + np.eye(80) * 1e9
    assert ((distances.argmin(axis=1) < 40) == (np.arange(80) < 40)).all()
    assert perplexity == pytest.approx(79 / 3)
    assert np.array_equal(points, embed(clusters(40))[0])


@pytest.mark.parametrize("n", [4, 5, 9])
def test_few_points(n: int) -> None:
    points, perplexity = embed(clusters(5)[:n])
    assert points.shape == (n, 2)
    assert perplexity < n / 3


def test_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tsne, "MOST", 6)
    x = clusters(8)
    found = draw_tsne(x[:8], x[8:13], tmp_path / "map.png")
    assert (found["n_synthetic"], found["n_real"]) == (6, 5)
    again = draw_tsne(x[:8], x[8:13], tmp_path / "again.png")
    assert again["perplexity"] == found["perplexity"] == pytest.approx(10 / 3)
    assert (tmp_path / "map.png").read_bytes() == (tmp_path / "again.png").read_bytes()
    pixels = np.asarray(Image.open(tmp_path / "map.png").convert("RGB")).reshape(-1, 3).astype(int)
    assert (pixels[:, 0] > pixels[:, 2] + 100).sum() > 50  # orange
    assert (pixels[:, 2] > pixels[:, 0] + 100).sum() > 50  # blue


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="3 images; give at least 4"):
        embed(clusters(3)[:3])
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    with pytest.raises(InputError, match=r"scikit-learn is not installed; pip install 'morphogen\[tsne\]'"):
        draw_tsne(clusters(3), clusters(3), tmp_path / "map.png")
