"""Alignment of the denoiser's features to those of a frozen encoder, in training alone (LEAF, MICCAI 2025).

The output of the denoiser's first stage, cell by cell through an MLP, shall point where the frozen encoder's token of
the same place points: 0.75 times the mean negative cosine. The image is resized so that the encoder has a token a cell.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from morphogen.errors import InputError

WEIGHT = 0.75
_LITE0, _DINOV2 = "lite0", "dinov2"
_LITE0_LEVEL, _LITE0_CELL = 3, 16
"""Which of its features, and the pixels of one of their cells."""
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_PUBLISHED_WIDTH, _PUBLISHED_HIDDEN = 192, 2048


def refuse_unknown(align: str) -> None:
    """Refuse an encoder that cannot be had, before it is loaded.

    Raises:
        InputError: There is no such encoder.
    """
    if align == _LITE0:
        from morphogen.metrics.weights import locate

        locate(_LITE0)
    elif align != _DINOV2 and not (Path(align) / "config.json").is_file():
        raise InputError(f"align={align}: no such encoder; give {_LITE0}, {_DINOV2}, or the folder of a DINOv2")


class Alignment(nn.Module):
    """The projection, which trains, and the frozen encoder, which is no part of the modules."""

    def __init__(self, align: str, denoiser: Any) -> None:
        """Listens to the denoiser's first stage.

        Args:
            align: lite0, dinov2, or a folder.
            denoiser: A diffusers U-Net.

        Raises:
            InputError: The encoder's weights cannot be had.
        """
        super().__init__()
        teacher: _Lite0 | _Dino = _Lite0() if align == _LITE0 else _Dino(align)
        self._teacher = [teacher]  # in a list, so that it is neither trained nor saved
        self._seen: list[Tensor] = []
        stage = denoiser.down_blocks[0]
        stage.register_forward_hook(self._see)
        width = stage.resnets[-1].out_channels
        hidden = _PUBLISHED_HIDDEN if width >= _PUBLISHED_WIDTH else 4 * width
        self.project = nn.Sequential(
            nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, teacher.width)
        )

    def forward(self, image: Tensor) -> Tensor:
        """0.75 x the mean negative cosine for the batch that the denoiser has just seen.

        Args:
            image: (B, 3, H, W) in [-1, 1], what the denoiser was told of.
        """
        features = self._seen.pop()
        height, width = features.shape[-2:]
        with torch.no_grad():
            tokens = self._teacher[0](image.float(), (height, width))
        projected = self.project(features.movedim(1, -1)).float()
        return -WEIGHT * F.cosine_similarity(projected, tokens, dim=-1).mean()

    def _see(self, module: nn.Module, inputs: Any, output: tuple[Tensor, Any]) -> None:
        self._seen[:] = [output[0]] if torch.is_grad_enabled() else []


class _Frozen:
    """An encoder and its normalisation; follows the image to its device."""

    cell: int
    width: int

    def __init__(self, net: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        self.net = net.eval().requires_grad_(False)
        self.mean, self.std = (torch.tensor(value).view(1, 3, 1, 1) for value in (mean, std))

    def prepared(self, image: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> normalised, one token for each cell of the grid."""
        if self.mean.device != image.device:
            self.net.to(image.device)
            self.mean, self.std = self.mean.to(image.device), self.std.to(image.device)
        size = [side * self.cell for side in grid]
        sized = F.interpolate(image, size=size, mode="bicubic", align_corners=False, antialias=True).clamp(-1, 1)
        return (sized / 2 + 0.5 - self.mean) / self.std


class _Lite0(_Frozen):
    """EfficientNet-Lite0's features at stride 16, with ImageNet weights."""

    cell = _LITE0_CELL

    def __init__(self) -> None:
        from morphogen.metrics import lite0

        super().__init__(lite0.lite0_encoder(pretrained=True), lite0.MEAN, lite0.STD)
        self.width = lite0.CHANNELS[_LITE0_LEVEL]

    def __call__(self, image: Tensor, grid: tuple[int, int]) -> Tensor:
        """-> (B, h, w, width)."""
        return self.net(self.prepared(image, grid))[_LITE0_LEVEL].movedim(1, -1)


class _Dino(_Frozen):
    """DINOv2's patch tokens after the last layer norm; from the hub at a pinned revision, or a folder."""

    def __init__(self, align: str) -> None:
        from transformers import AutoModel

        from morphogen.metrics.features import EXTRACTORS
        from morphogen.metrics.networks import from_folder, hub_files

        folder = hub_files(EXTRACTORS["dinov2-l14"]) if align == _DINOV2 else Path(align)
        net = from_folder(AutoModel, folder)
        if not hasattr(net.config, "patch_size") or not hasattr(net.config, "hidden_size"):
            raise InputError(f"{folder}: holds no encoder of patches; give the folder of a DINOv2")
        super().__init__(net, *_IMAGENET)
        self.cell, self.width = net.config.patch_size, net.config.hidden_size

    def __call__(self, image: Tensor, grid: tuple[int, int]) -> Tensor:
        """-> (B, h, w, width); registers and the class token are left out."""
        net: Any = self.net
        tokens: Tensor = net(self.prepared(image, grid)).last_hidden_state
        return tokens[:, -grid[0] * grid[1] :].unflatten(1, grid)
