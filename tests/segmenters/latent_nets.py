"""Small latent segmenters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from morphogen.segmenters import build, resolve
from morphogen.segmenters.latent.model import LatentSegmenter
from small_foundations import perturb


def outer(foundation: Path, n_classes: int = 2, **options: Any) -> Any:
    """The net for images of any size, its zero layers and its scale moved, so that every part has a say."""
    torch.manual_seed(0)
    net: Any = build(
        "latent", n_classes, resolve("latent", {"foundation": str(foundation), "vision": "autoencoder", **options})
    )
    perturb(net.net.denoiser)
    net.net.scale.fill_(0.6)
    return net.eval()


def inner(foundation: Path, n_classes: int = 2, **options: Any) -> LatentSegmenter:
    net: LatentSegmenter = outer(foundation, n_classes, **options).net
    return net
