"""Training an autoencoder's decoder alone, with a perceptual loss: the latents stay as they are.

The second stage of pretraining, and the first of adapting a foundation to a study's images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from morphogen.foundation.autoencoder_task import AutoencoderTask, edge_difference
from morphogen.foundation.images import ImagePool
from morphogen.foundation.model import Foundation
from morphogen.metrics.vgg16 import MEAN, STD, Vgg16Features, vgg16_encoder
from morphogen.training.rng import normal, numpy_rng
from morphogen.training.task import Batch, Draw, Phase, Progress

PERCEPTUAL_WEIGHT = 0.05
"""Beside an L1 of 1."""


class DecoderTask(AutoencoderTask):
    """L1 + gradient L1 + 0.05 perceptual distance, the encoder left alone.

    A decoder trained on L1 paints the median of what could be there, which is blur; and one that has seen few cameras
    paints their colours whatever the latents say. The latents of a trained denoiser stay valid.

    Args:
        foundation: Its decoder is trained.
        pool: Images.
        held_out: (N, 3, R, R) uint8, for the validation's PSNR and the previews.
        lr: Peak learning rate.
        recoloured: Give every second image the colours of another camera.
        perceptual: Judge by VGG16, whose weights must be installed, and for which R must be a multiple of 16.
    """

    def __init__(
        self,
        foundation: Foundation,
        pool: ImagePool,
        held_out: np.ndarray,
        lr: float,
        recoloured: bool = True,
        perceptual: bool = True,
    ) -> None:
        super().__init__(foundation, pool, held_out, lr)
        self.recoloured = recoloured
        vae = foundation.vae
        vae.requires_grad_(False)
        self.trained = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
        for parameter in self.trained:
            parameter.requires_grad_(True)
        self.judge: Vgg16Features | None = None
        if perceptual:  # not in `modules`: a frozen judge is neither trained nor saved
            self.judge = vgg16_encoder(pretrained=True).requires_grad_(False).eval()
            self.judge.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def to(self, device: Any) -> None:
        if self.judge is not None:
            self.judge.to(device)

    def batch(self, draws: Sequence[Draw]) -> Batch:
        batch = super().batch(draws)
        if not self.recoloured:
            return batch
        return {**batch, "x": torch.stack([recolour(x, draw.seed) for x, draw in zip(batch["x"], draws, strict=True)])}

    def phases(self) -> Sequence[Phase]:
        return [Phase("decoder", self.trained, self.loss, lr=self.lr, weight_decay=0.0, schedule="cosine", warmup=50)]

    def loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        x = batch["x"].contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            posterior = self.foundation.vae.encode(x).latent_dist
            noise = normal(batch["seed"].cpu(), posterior.mean.shape[1:], "posterior").to(posterior.mean)
            z = posterior.mean + posterior.std * noise
        y = self.foundation.vae.decode(z).sample
        losses = {"l1": (y.float() - x).abs().mean(), "edges": edge_difference(y.float(), x)}
        if self.judge is not None:
            losses["perceptual"] = PERCEPTUAL_WEIGHT * perceptual_distance(self.judge, y, x)
        return losses


def recolour(x: Tensor, seed: int) -> Tensor:
    """Another camera: every second image with other gains of its channels (0.75 to 1.33) and saturation (0.3 to 1.2).

    Args:
        x: (3, H, W) in [-1, 1].
        seed: Decides all.

    Returns:
        The same shape and range.
    """
    rng = numpy_rng(seed, "recolour")
    if rng.random() < 0.5:
        return x
    gains = torch.tensor(np.exp(rng.uniform(-0.29, 0.29, 3)), dtype=x.dtype).view(3, 1, 1)
    saturation = float(rng.uniform(0.3, 1.2))
    rgb = (x + 1) / 2 * gains
    grey = rgb.mean(dim=0, keepdim=True)
    return (grey + saturation * (rgb - grey)).clamp(0, 1) * 2 - 1


def perceptual_distance(judge: Vgg16Features, y: Tensor, x: Tensor) -> Tensor:
    """Distance of two images in VGG16's features: LPIPS with equal weights (Zhang et al. 2018, Eq. 1, w_l = 1).

    Args:
        judge: VGG16 with ImageNet weights.
        y: (B, 3, H, W) in [-1, 1], H and W multiples of 16; gets the gradient.
        x: The same shape.

    Returns:
        The mean over B; 0 where the images are equal.
    """
    mean, std = (torch.tensor(v, device=y.device).view(1, 3, 1, 1) for v in (MEAN, STD))
    with torch.no_grad():
        wanted = judge(((x + 1) / 2 - mean) / std)
    got = judge(((y + 1) / 2 - mean) / std)
    distances = [
        (_unit(a.float()) - _unit(b.float())).square().sum(dim=1).mean() for a, b in zip(got, wanted, strict=True)
    ]
    return torch.stack(distances).sum()


def _unit(features: Tensor) -> Tensor:
    """Unit length over the channels of (B, C, H, W)."""
    return features / features.square().sum(dim=1, keepdim=True).add(1e-10).sqrt()
