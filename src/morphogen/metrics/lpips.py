"""LPIPS: how different two images look, measured on features of an ImageNet network.

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018, eq. 1; the linear
heads are those of version 0.1. Features are taken at the size of the images, so that only values of one size compare.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from morphogen.errors import InputError
from morphogen.metrics import weights

if TYPE_CHECKING:
    from torch import Tensor, nn

_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""ImageNet's mean and standard deviation, for RGB in [-1, 1]."""
_EPS = 1e-10


@dataclass(frozen=True)
class Network:
    """One variant of the metric.

    Attributes:
        member: Key of `weights.MEMBERS`; the member holds the trunk and the five heads.
        trunk: Name of the trunk within the member.
        smallest: Side of the smallest image that every stage has a feature of, px.
    """

    member: str
    trunk: str
    smallest: int


NETWORKS: dict[str, Network] = {
    "vgg16": Network("vgg16", "VGG16_0", 16),
    "alex": Network("alexnet", "AlexNet_0", 31),
}


def lpips(
    a: np.ndarray, b: np.ndarray, network: str = "vgg16", batch_size: int = 16, device: str = "cpu"
) -> np.ndarray:
    """Learned perceptual distance of each pair (a[i], b[i]), version 0.1 with linear heads.

    d = sum over stages l of the mean over pixels of sum_c w_lc (x_lc - y_lc)^2, where x and y are the features of the
    two images with unit length over the channels, and w >= 0. Nothing is resized: any height and width from 16 px
    (``vgg16``) or 31 px (``alex``) up will do.

    Args:
        a: (N, 3, H, W) uint8, RGB.
        b: Same shape; the order within a pair does not matter.
        network: Key of `NETWORKS`. ``vgg16`` and ``alex`` are different metrics; results should name theirs.
        batch_size: Pairs per forward pass; does not change the result beyond float32 rounding.
        device: A torch device.

    Returns:
        (N,) float64, at least 0; 0 for equal images, mostly below 1.

    Raises:
        InputError: No such network, its weights are not installed, or the images are smaller than it takes.
    """
    _find(network)
    _check(a, b, network)
    if not len(a):
        return np.empty(0)
    distance = Lpips(network, device)
    parts = (slice(start, start + batch_size) for start in range(0, len(a), batch_size))
    return np.concatenate([distance(a[part], b[part]) for part in parts])


class Lpips:
    """The metric with its network loaded.

    Args:
        network: Key of `NETWORKS`.
        device: A torch device.

    Raises:
        InputError: No such network, or its weights are not installed.
    """

    def __init__(self, network: str = "vgg16", device: str = "cpu") -> None:
        self.network, self.device = network, device
        self._trunk, self._heads = _load(_find(network), device)

    def __call__(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """(B,) float64 distances of the pairs of two (B, 3, H, W) uint8 arrays; see `lpips`."""
        import torch

        _check(a, b, self.network)
        with torch.inference_mode():
            pixels = torch.from_numpy(np.concatenate([a, b])).to(self.device)
            return _distances(self._trunk, self._heads, pixels).cpu().numpy()


def _find(network: str) -> Network:
    if network not in NETWORKS:
        raise InputError(f"{network}: LPIPS has no such network; choose one of {', '.join(NETWORKS)}")
    return NETWORKS[network]


def _check(a: np.ndarray, b: np.ndarray, network: str) -> None:
    for images in (a, b):
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"expected (N, 3, H, W) uint8 images, got {images.shape} {images.dtype}")
    if a.shape != b.shape:
        raise ValueError(f"expected pairs of one shape, got {a.shape} and {b.shape}")
    height, width = a.shape[2:]
    smallest = NETWORKS[network].smallest
    if min(height, width) < smallest:
        raise InputError(
            f"images of {width} x {height} px: too small for LPIPS with {network}; use at least {smallest} px a side"
        )


def _load(spec: Network, device: str) -> tuple[nn.Module, list[Tensor]]:
    """The trunk and, for each stage, the head's weights as (1, C, 1, 1)."""
    import torch

    from morphogen.metrics.alexnet import AlexNetFeatures
    from morphogen.metrics.vgg16 import Vgg16Features, state_dict_from_flax

    tree = weights.load_member(spec.member)
    trunk: nn.Module = Vgg16Features() if spec.member == "vgg16" else AlexNetFeatures()
    trunk.load_state_dict(state_dict_from_flax(tree, spec.trunk), strict=True)
    kernels = [tree[f"NetLinLayer_{stage}"]["Conv_0"]["kernel"] for stage in range(5)]
    return trunk.to(device).eval(), [torch.tensor(kernel).reshape(1, -1, 1, 1).to(device) for kernel in kernels]


def _distances(trunk: nn.Module, heads: list[Tensor], pixels: Tensor) -> Tensor:
    """(2B, 3, H, W) uint8, the B images of one side before those of the other -> (B,) float64."""
    shift, scale = (pixels.new_tensor(v, dtype=heads[0].dtype).view(1, 3, 1, 1) for v in (_SHIFT, _SCALE))
    total = pixels.new_zeros(len(pixels) // 2, dtype=heads[0].dtype).double()
    for features, head in zip(trunk((pixels / 127.5 - 1 - shift) / scale), heads, strict=True):
        unit = features / (features.square().sum(1, keepdim=True).sqrt() + _EPS)
        x, y = unit.chunk(2)
        total += (head * (x - y).square()).sum(1).mean((1, 2)).double()
    return total
