"""A network of patches over whole volumes: windows that overlap, their probabilities averaged."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from morphogen.training.rng import normal

Probabilities = Callable[[Tensor], Tensor]
"""Windows (B, C, *P) -> probabilities (B, K, *P)."""


def over_windows(
    probabilities: Probabilities, image: Tensor, patch: Sequence[int], overlap: float | Sequence[float], batch_size: int
) -> Tensor:
    """Probabilities of whole volumes: the mean of those of all windows over a voxel.

    Args:
        probabilities: The network.
        image: (B, C, *S), no smaller than the patch.
        patch: Sides of a window.
        overlap: Part of a window's side that its neighbour shares, in [0, 1), along all axes or along each.
        batch_size: Windows that pass the network together.

    Returns:
        (B, K, *S) float32, on the device of `image`.
    """
    from monai.inferers import sliding_window_inference

    found: Tensor = sliding_window_inference(
        image,
        roi_size=tuple(patch),
        sw_batch_size=batch_size,
        predictor=probabilities,
        overlap=overlap,
        mode="constant",
    )
    return found.float()


def with_noise(image: Tensor, n_classes: int, seed: int) -> Tensor:
    """(B, C + K, *S): the images, and under each the noise from which a diffusion network starts.

    Windows that overlap so start from the same noise where they do, and how many pass at once changes nothing.
    """
    noise = normal([seed], (n_classes, *image.shape[2:]), "x_T").to(image)
    return torch.cat([image, noise.expand(len(image), *noise.shape[1:])], dim=1)
