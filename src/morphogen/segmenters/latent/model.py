"""The latent segmenter: noise, and what an encoder sees in the image, become the latent of the mask in one step.

SynDiff (Aqeel et al. 2025, arXiv:2507.15361) after SDSeg (Lin et al., MICCAI 2024, arXiv:2406.18361).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from morphogen.segmenters.any_size import AnySize
from morphogen.segmenters.latent.align import Alignment
from morphogen.segmenters.latent.config import LatentConfig, T, refuse_sampling
from morphogen.segmenters.latent.labels import colours, distances
from morphogen.segmenters.latent.mask_latents import MaskLatents
from morphogen.segmenters.latent.networks import (
    denoiser_folder,
    empty_prompt,
    make_autoencoder,
    make_denoiser,
)
from morphogen.segmenters.latent.schedule import alphas_cumprod, visited
from morphogen.segmenters.latent.vision import LITE0_CHANNELS, AutoencoderVision, Lite0Vision
from morphogen.segmenters.losses import cross_entropy, soft_dice_loss
from morphogen.training.rng import normal, uniform

_NOISE_SIDE = 128
"""Cells of the start noise along a side; it repeats on larger latents."""


@dataclass(frozen=True)
class Prediction:
    """What an ensemble says of a batch.

    Attributes:
        probabilities: (B, K, H, W), mean over the members.
        std: (B, H, W), standard deviation over the members of the probability, largest over the classes; in [0, 0.5].
        entropy: (B, H, W), of `probabilities`, as a part of log K; in [0, 1].
    """

    probabilities: Tensor
    std: Tensor
    entropy: Tensor

    @classmethod
    def of(cls, members: Tensor) -> Prediction:
        """From the probabilities (N, B, K, H, W) of N members."""
        mean = members.mean(dim=0)
        std = members.std(dim=0, unbiased=False).amax(dim=1)
        entropy = torch.special.entr(mean).sum(dim=1) / torch.tensor(float(mean.shape[1])).log()
        return cls(mean, std, entropy.clamp(0, 1))

    def cropped(self, height: int, width: int) -> Prediction:
        """The upper left part of every map."""
        return Prediction(*(part[..., :height, :width] for part in (self.probabilities, self.std, self.entropy)))


class LatentSegmenter(MaskLatents):
    """A frozen mask autoencoder, a vision encoder, and a denoiser that reads [noisy mask latent, tau(image)]."""

    takes_seeds = True
    not_saved = ("alignment",)

    abar: Tensor
    noise: Tensor

    def __init__(
        self, n_classes: int, config: LatentConfig, autoencoder: AutoencoderKL,
        vision: AutoencoderVision | Lite0Vision, denoiser: nn.Module, prompt: Mapping[str, Tensor],
    ) -> None:  # fmt: skip
        """Puts the parts together.

        Args:
            n_classes: K, background included.
            config: Objective, and how it predicts.
            autoencoder: Holds the masks; frozen here.
            vision: tau, which reads the image.
            denoiser: Takes the channels of a latent and of tau, and gives those of a latent.
            prompt: What it is told in place of a text, by name; empty for one without text.
        """
        super().__init__(n_classes, autoencoder)
        self.config = config
        self.vision = vision.requires_grad_(True)
        self.denoiser = denoiser.requires_grad_(True)
        self.prompt_names = tuple(prompt)
        self.alignment: Alignment | None = None
        self.channels: int = autoencoder.config.latent_channels
        with torch.device("cpu"):
            for name, value in prompt.items():
                self.register_buffer(f"prompt_{name}", value)
            self.register_buffer("abar", alphas_cumprod().float(), persistent=False)
            self.register_buffer("noise", self._members(config.ensemble, config.seed), persistent=False)

    @property
    def multiple(self) -> int:
        """Height and width must be multiples of this: whole cells at every level of the denoiser, and tau's own."""
        return math.lcm(self._cells, self.vision.multiple)

    @property
    def whole_cells(self) -> str:
        """What asks for sides that are multiples of `multiple`."""
        said = "the latents' cells and the denoiser's levels"
        if self.multiple == self._cells:
            return said
        return f"{said} ({self._cells}) and the vision encoder {self.config.vision} ({self.vision.multiple})"

    @property
    def _cells(self) -> int:
        """Pixels of a cell at the denoiser's last level, along one side."""
        levels: Any = self.denoiser.down_blocks
        return int(_factor(self.autoencoder) * 2 ** (len(levels) - 1))

    # ---- training ----

    def losses(self, image: Tensor, mask: Tensor, seeds: Tensor) -> Mapping[str, Tensor]:
        """The losses of the objective at uniform timesteps.

        ``paper``: L = mean |eps - e| + lambda mean |z0 - z0_hat|; ``x0``: mean |z0 - z0_hat|, z0_hat what the denoiser
        gives; ``x0-align``: the same, and the alignment; ``x0-pixel``: the same, and losses of D(z0_hat / s).

        Args:
            image: (B, 3, H, W) in [-1, 1], H and W multiples of `multiple`.
            mask: (B, H, W) int64 class ids.
            seeds: (B,) int64; decide timestep and noise of every row.
        """
        paper = self.config.objective == "paper"
        with torch.no_grad():
            z0 = self.encode_mask(mask, seeds if paper else None).float()
        drawn = seeds.cpu()
        last = (uniform(drawn, "last") < (self.config.last_share or 0)).to(z0.device)
        t = (uniform(drawn, "t") * T).long().to(z0.device).masked_fill(last, T - 1)
        eps = normal(drawn, z0.shape[1:], "eps").to(z0)
        abar = self.abar[t].view(-1, 1, 1, 1)
        tau, clean = self.encode_image(image), z0
        if self.config.recycle:
            clean = self._recycled(z0, tau, ~last, drawn)
        z_t = abar.sqrt() * clean + (1 - abar).sqrt() * eps
        output = self._denoiser(z_t, tau, t).float()
        direct = (z_t - (1 - abar).sqrt() * output) / abar.sqrt() if paper else output
        found = {"latent": (z0 - direct).abs().mean()}
        if paper:
            found = {"noise": (eps - output).abs().mean(), "latent": self.config.latent_weight * found["latent"]}
        if self.alignment is not None:
            found["align"] = self.alignment(image)
        if self.config.objective == "x0-pixel":
            found |= self._pixel_losses(direct, mask)
        return found

    @torch.no_grad()
    def _recycled(self, z0: Tensor, tau: Tensor, rows: Tensor, seeds: Tensor) -> Tensor:
        """z0, in these rows replaced by the direct estimate: what a prediction of several steps has in its place."""
        if not rows.any():
            return z0
        z_T = normal(seeds, z0.shape[1:], "z_T").to(z0)[rows]
        clean = z0.clone()
        clean[rows] = self.denoise(tau[rows], z_T).to(z0)
        return clean

    def _pixel_losses(self, direct: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Cross-entropy and soft Dice of the decoded estimate, read by distance, which has a gradient everywhere."""
        decoded = distances(self.decoded(direct).float(), self.palette)
        parts = {"cross_entropy": cross_entropy(decoded, mask), "dice": soft_dice_loss(decoded, mask)}
        return {name: self.config.pixel_weight * loss for name, loss in parts.items()}

    # ---- prediction ----

    def encode_image(self, image: Tensor) -> Tensor:
        """tau: (B, 3, H, W) in [-1, 1] -> (B, c, H / f, W / f), c = z as published."""
        tau: Tensor = self.vision(image)
        return tau

    def denoise(self, tau: Tensor, noise: Tensor, steps: int = 1) -> Tensor:
        """z0_hat of images: the direct estimate at T - 1, or DDIM with eta 0 (Song et al. 2021, Eq. 12).

        Args:
            tau: (B, c, h, w), of `encode_image`.
            noise: (B, z, h, w), z_T.
            steps: Evaluations of the denoiser.
        """
        times = visited(steps)
        z_t = noise
        for t, following in zip(times, [*times[1:], None], strict=True):
            output = self._denoiser(z_t, tau, torch.full((len(tau),), t, device=tau.device)).float()
            abar = self.abar[t]
            if self.config.objective == "paper":
                eps, z0 = output, (z_t - (1 - abar).sqrt() * output) / abar.sqrt()
            else:
                eps, z0 = (z_t - abar.sqrt() * output) / (1 - abar).sqrt(), output
            if following is None:
                return z0
            z_t = self.abar[following].sqrt() * z0 + (1 - self.abar[following]).sqrt() * eps
        raise AssertionError("there is a last step")

    def start(self, like: Tensor, member: int = 0, seed: int | None = None) -> Tensor:
        """z_T of one member of the ensemble, the same for every row.

        Args:
            like: (B, any, h, w).
            member: Which.
            seed: In place of the config's.

        Returns:
            (B, z, h, w).
        """
        kept = (self.config.seed if seed is None else seed) == self.config.seed and member < len(self.noise)
        tile = self.noise[member] if kept else self._members(1, self.config.seed if seed is None else seed, member)[0]
        height, width = like.shape[-2:]
        down, right = (-(-side // _NOISE_SIDE) for side in (height, width))
        return tile.to(like).repeat(1, down, right)[:, :height, :width].expand(len(like), -1, -1, -1)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1], H and W multiples of `multiple` -> (B, K, H, W) logits."""
        tau = self.encode_image(image)
        members = [
            self.decode(self.denoise(tau, self.start(tau, member), self.config.steps))
            for member in range(self.config.ensemble)
        ]
        if len(members) == 1:
            return members[0]
        return torch.stack(members).log_softmax(dim=2).logsumexp(dim=0)

    def predict_probabilities(
        self, image: Tensor, steps: int | None = None, ensemble: int | None = None, seed: int | None = None
    ) -> Prediction:
        """Probabilities and their uncertainty, with the config's settings where none are given.

        Args:
            image: (B, 3, H, W) in [-1, 1], H and W multiples of `multiple`.
            steps: Of DDIM.
            ensemble: Members; member k starts from the noise of seed + k.
            seed: Of the start noise.

        Raises:
            InputError: Steps or ensemble out of range.
        """
        self.check_sampling(steps, ensemble, seed)
        steps, ensemble = steps or self.config.steps, ensemble or self.config.ensemble
        tau = self.encode_image(image)
        found = [self.decode(self.denoise(tau, self.start(tau, k, seed), steps)) for k in range(ensemble)]
        return Prediction.of(torch.stack(found).softmax(dim=2))

    def check_sampling(self, steps: int | None = None, ensemble: int | None = None, seed: int | None = None) -> None:
        """Refuse settings of a prediction that cannot be.

        Raises:
            InputError: Steps or ensemble out of range.
        """
        refuse_sampling(1 if steps is None else steps, 1 if ensemble is None else ensemble)

    # ---- parts ----

    def _denoiser(self, z_t: Tensor, tau: Tensor, t: Tensor) -> Tensor:
        """What the denoiser gives: noise or latent, as the objective says."""
        both = torch.cat([z_t, tau.to(z_t.dtype)], dim=1)
        if not self.prompt_names:
            made: Tensor = self.denoiser(both, t).sample
            return made
        told = {name: self._told(name, len(both)) for name in self.prompt_names}
        states = told.pop("states")
        added = {"text_embeds": told["pooled"], "time_ids": told["time_ids"]} if told else None
        said: Tensor = self.denoiser(both, t, encoder_hidden_states=states, added_cond_kwargs=added).sample
        return said

    def _told(self, name: str, rows: int) -> Tensor:
        value: Tensor = getattr(self, f"prompt_{name}")
        return value.expand(rows, *value.shape[1:])

    def _members(self, ensemble: int, seed: int, first: int = 0) -> Tensor:
        """(N, z, side, side) start noises of the members from `first` on."""
        seeds = range(seed + first, seed + first + ensemble)
        return normal(list(seeds), (self.channels, _NOISE_SIDE, _NOISE_SIDE), "z_T")


def _factor(autoencoder: AutoencoderKL) -> int:
    """f: pixels of a latent's cell along one side."""
    return int(2 ** (len(autoencoder.config.block_out_channels) - 1))


def build(n_classes: int, config: LatentConfig, pretrained: bool = True) -> nn.Module:
    """The network of a resolved config: (B, 3, H, W) in [-1, 1] -> (B, n_classes, H, W) logits, for any H and W.

    Args:
        n_classes: K, background included.
        config: See `LatentConfig.resolved`.
        pretrained: Load the foundation's weights, and the encoder to align to; False where trained weights follow.

    Raises:
        InputError: The foundation, the denoiser's folder or the encoder's weights cannot be had, or there are more
            classes than colours.
    """
    colours(n_classes)  # refuses before anything is loaded
    shape = config.networks
    if pretrained:
        from morphogen.foundation.model import find_folder

        folder: Path | None = find_folder(config.foundation)
        weights = denoiser_folder(config.foundation, config.denoiser)
        prompt = empty_prompt(config.foundation, shape["prompt"])
    else:
        folder = weights = None
        prompt = {name: torch.zeros(size) for name, size in shape["prompt"].items()}
    autoencoder, dropout = make_autoencoder(shape, folder), config.dropout or 0.0
    vision: AutoencoderVision | Lite0Vision
    if config.vision == "lite0":
        vision, channels = Lite0Vision(_factor(autoencoder), pretrained), LITE0_CHANNELS
    else:
        vision, channels = AutoencoderVision(autoencoder, dropout), autoencoder.config.latent_channels
    denoiser = make_denoiser(shape, weights, channels, dropout)
    net = LatentSegmenter(n_classes, config, autoencoder, vision, denoiser, prompt)
    if pretrained and config.objective == "x0-align":
        net.alignment = Alignment(config.align, net.denoiser)
    return AnySize(net, net.multiple)
