"""What generators that paint images for masks share when they sample: text-only guidance, jobs, files of a run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from morphogen.data.masks import resize_labels
from morphogen.errors import InputError
from morphogen.foundation.conditioning import Conditioning
from morphogen.foundation.identity import files_hash
from morphogen.foundation.images import to_bytes
from morphogen.foundation.model import Foundation
from morphogen.foundation.solvers import Denoise, guided, solve
from morphogen.sampling.jobs import Job, Pair
from morphogen.training.rng import normal

SAMPLING = ("solver", "sampling_steps", "guidance")
"""Options that are for sampling alone: one trained generator serves all their values."""
INFO = "generator.json"
DECODED = 2**15
"""Most pixels that are decoded in one call (at least one image): no slower, and the memory of decoding is bounded."""


def told_twice(foundation: Foundation, prompts: Sequence[str], side: int, guidance: float) -> Conditioning:
    """B prompts, and after them as many empty ones where there is guidance; images of `side` px."""
    cond = foundation.told(prompts, side)
    if guidance == 1:
        return cond
    return Conditioning.cat([cond, foundation.told([""] * len(prompts), side)])


def guided_by_text(predict: Denoise, guidance: float) -> Denoise:
    """A model of B latents from one that answers for B prompts and, with guidance, for B empty ones behind them.

    The mask is given to both, so that guidance speaks of the text alone.
    """

    def denoise(z: Tensor, t: Tensor) -> Tensor:
        output = predict(z, t)
        if guidance == 1:
            return output
        conditional, empty = output.chunk(2)
        return guided(conditional, empty, guidance)

    return denoise


def painted(
    foundation: Foundation, denoise: Denoise, side: tuple[int, int], seeds: Sequence[int], steps: int, solver: str
) -> NDArray[np.uint8]:
    """Solve from the noise of the seeds, and decode: (B, H, W, 3) uint8, row i a function of seeds[i].

    Args:
        foundation: Its autoencoder decodes.
        denoise: Guided model.
        side: (H, W) of the images.
        seeds: B seeds.
        steps: Solver steps.
        solver: Its name.
    """
    shape = (foundation.latent_shape[0], *(pixels // foundation.factor for pixels in side))
    z_T = normal(seeds, shape, "z_T").to(foundation.device)
    z0 = solve(denoise, z_T, foundation.scheduler.config, steps, solver)
    parts = z0.split(max(1, DECODED // (side[0] * side[1])))
    return to_bytes(torch.cat([foundation.decode(part) for part in parts])).transpose(0, 2, 3, 1)


def write_info(
    folder: Path,
    method: str,
    config: Mapping[str, Any],
    classes: tuple[str, ...],
    captions: list[list[str]],
    **more: Any,
) -> None:
    """Write generator.json; the most frequent first caption becomes the default prompt."""
    prompt = Counter(texts[0] for texts in captions).most_common(1)[0][0]
    info = {"generator": method, "classes": classes, "prompt": prompt, "config": dict(config), **more}
    (folder / INFO).write_text(json.dumps(info, indent=1) + "\n")


def content_hash(folder: Path) -> str:
    """SHA-256 over the weights and generator.json."""
    return files_hash(folder, [*folder.rglob("*.safetensors"), folder / INFO])


class MaskSampler:
    """A trained generator that paints images for masks, at its own resolution.

    Args:
        foundation: What it paints with.
        config: Its settings, a frozen dataclass.
        info: The content of generator.json.
        hash: Of the weights and generator.json.
    """

    needs = frozenset({"masks"})

    def __init__(self, foundation: Foundation, config: Any, info: Mapping[str, Any], hash: str) -> None:
        self.foundation, self.config, self.hash = foundation, config, hash
        self.classes = tuple(info["classes"])
        self.prompt: str = info["prompt"]
        self.resolution = self.config.resolution or foundation.resolution

    def paint(
        self, jobs: Sequence[Job], masks: NDArray[np.int64], prompts: Sequence[str]
    ) -> tuple[NDArray[np.uint8], Sequence[dict[str, Any]]]:
        """Images (B, R, R, 3) uint8 of masks (B, R, R), and what further there is to say of each job's origin."""
        raise NotImplementedError

    def sample(self, jobs: Sequence[Job]) -> list[Pair]:
        """One image per job, painted for its mask at the generator's resolution.

        Raises:
            InputError: A job has no mask, or its prompt holds an unknown word.
        """
        size = (self.resolution, self.resolution)
        for job in jobs:
            if job.mask is None:
                raise InputError(f"{job.id}: {self.config.method} paints masks, and this sample has none; give --masks")
        masks = np.stack([resize_labels(job.mask, size) for job in jobs if job.mask is not None]).astype(np.int64)
        prompts = [self.prompt if job.prompt is None else job.prompt for job in jobs]
        images, more = self.paint(jobs, masks, prompts)
        origin = {"steps": self.config.sampling_steps, "solver": self.config.solver, "guidance": self.config.guidance}
        return [
            Pair(image, mask, {**origin, "prompt": prompt, **further})
            for image, mask, prompt, further in zip(images, masks, prompts, more, strict=True)
        ]

    def with_sampling(self, **changes: object) -> Self:
        """Change sampling settings (solver, sampling_steps, guidance)."""
        self.config = replace(self.config, **changes)
        return self
