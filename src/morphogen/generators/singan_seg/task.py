"""Training one scale of one image: a discriminator and a generator in turn, the coarser scales frozen."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from morphogen.foundation.images import to_bytes
from morphogen.generators.singan_seg.config import SinganConfig
from morphogen.generators.singan_seg.losses import amplitude, discriminator_losses, generator_losses
from morphogen.generators.singan_seg.networks import Discriminator, Generator
from morphogen.generators.singan_seg.pyramid import Scale, climb, drawn_noise, fixed_noise, resized, width
from morphogen.training.rng import seed_of, uniform
from morphogen.training.task import Batch, Draw, Phase, Progress

WEIGHTS, FACTS = "scale.safetensors", "scale.json"
SHOWN = 4
"""Samples of a preview."""


class ScaleTask:
    """Scale n = `len(coarser)` of one image; one row a step, as published.

    Args:
        pair: (1, 4, R, R) in [-1, 1], image and mask.
        z_star: (1, 1, side, side), the fixed noise of the coarsest scale.
        coarser: Trained scales below it, which stay where they are.
        config: How.
        seed: Of new weights.
    """

    def __init__(self, pair: Tensor, z_star: Tensor, coarser: Sequence[Scale], config: SinganConfig, seed: int) -> None:
        n = len(coarser)
        self.coarser = copy.deepcopy(list(coarser))  # `to` moves them, and the next scale begins where it finds its own
        self.config = config
        self.sides = config.sides[: n + 1]
        self.real = resized(pair, self.sides[-1])
        self.z_rec = fixed_noise(z_star, self.sides)
        torch.manual_seed(seed_of(seed, n))
        self.G, self.D = Generator(width(n)), Discriminator(width(n))
        self.modules = nn.ModuleDict({"G": self.G, "D": self.D})
        self.below = self._below(self.z_rec)
        self.sigma = amplitude(config.noise_weight, self.below, self.real) if n else 1.0

    def begin_with(self, weights: Mapping[str, Tensor]) -> None:
        """Start from both networks of the scale below, where they are of the same width."""
        if width(len(self.coarser)) == width(len(self.coarser) - 1):
            self.modules.load_state_dict(weights)

    def __len__(self) -> int:
        return 1

    def phases(self) -> Sequence[Phase]:
        """Adam (AdamW without decay) for each network; its rate falls to a tenth for the last fifth of the steps."""
        how: dict[str, Any] = {
            "lr": self.config.lr, "weight_decay": 0.0, "betas": (0.5, 0.999), "schedule": "drop"
        }  # fmt: skip
        return [
            Phase("D", list(self.D.parameters()), self.discriminator_loss, **how),
            Phase("G", list(self.G.parameters()), self.generator_loss, every=self.config.generator_every, **how),
        ]

    def batch(self, draws: Sequence[Draw]) -> Batch:
        """Noise of every scale and the place between real and fake, by the rows' seeds."""
        seeds = torch.tensor([draw.seed for draw in draws])
        noise = {f"z_{n}": z for n, z in enumerate(drawn_noise(seeds, self.sides))}
        return {"seed": seeds, "epsilon": uniform(seeds, "epsilon"), **noise}

    def discriminator_loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        """`discriminator_losses` of the real pair and a fake one."""
        with torch.no_grad():
            fake = self._painted(self._noise(batch))
        return discriminator_losses(self.D, self.real, fake, batch["epsilon"], self.config.penalty_weight)

    def generator_loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        """`generator_losses`; the discriminator takes no gradient."""
        fake, rebuilt = self._painted(self._noise(batch)), self._rebuilt()
        with _without_gradient(self.D):
            return generator_losses(self.D, fake, rebuilt, self.real, self.config.reconstruction_weight)

    def to(self, device: Any) -> None:
        """The coarser generators, the real pair and the fixed noise."""
        for scale in self.coarser:
            scale.generator.to(device)
        self.real, self.below = self.real.to(device), self.below.to(device)
        self.z_rec = [z.to(device) for z in self.z_rec]

    def preview(self, step: int, folder: Path) -> None:
        """The real pair, the one rebuilt of the fixed noise, and samples, each image above its mask's outline."""
        from morphogen.segmenters.preview import write_preview

        drawn = [z.to(self.real.device) for z in drawn_noise(range(SHOWN), self.sides)]
        shown = to_bytes(torch.cat([self.real, self._rebuilt(), self._painted(drawn)]))
        masks = (shown[:, 3] > 127).astype(np.uint8)
        write_preview(folder / f"step-{step:06d}.png", shown[:, :3], masks, np.zeros(masks.shape, dtype=np.int64))

    def validate(self, step: int) -> Mapping[str, float]:
        return {}

    def save(self, folder: Path) -> None:
        """Both networks (the next scale starts from them) and the amplitude of the noise."""
        weights = {name: tensor.detach().cpu() for name, tensor in self.modules.state_dict().items()}
        save_file(weights, folder / WEIGHTS)
        (folder / FACTS).write_text(json.dumps({"amplitude": self.sigma}) + "\n")

    def _noise(self, batch: Batch) -> list[Tensor]:
        return [batch[f"z_{n}"] for n in range(len(self.sides))]

    def _painted(self, noise: Sequence[Tensor]) -> Tensor:
        """What all scales make of drawn noise."""
        made: Tensor = self.G(self.sigma * noise[-1], self._below(noise))
        return made

    def _rebuilt(self) -> Tensor:
        """What all scales make of the fixed noise."""
        made: Tensor = self.G(self.sigma * self.z_rec[-1], self.below)
        return made

    @torch.no_grad()
    def _below(self, noise: Sequence[Tensor]) -> Tensor:
        """What the coarser scales make of noise, at this scale's size; zeros where there are none."""
        if not self.coarser:
            return torch.zeros_like(noise[-1])
        return resized(climb(self.coarser, noise[:-1]), self.sides[-1])


def trained_scale(final: Path, n: int, device: Any = "cpu") -> tuple[Scale, dict[str, Tensor]]:
    """A finished scale, and all its weights for the next one to start from."""
    weights = load_file(final / WEIGHTS)
    generator = Generator(width(n))
    generator.load_state_dict({name[2:]: tensor for name, tensor in weights.items() if name.startswith("G.")})
    generator.to(device).eval().requires_grad_(False)
    return Scale(generator, float(json.loads((final / FACTS).read_text())["amplitude"])), weights


@contextmanager
def _without_gradient(module: nn.Module) -> Iterator[None]:
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)
