"""The generator as a sampler: a variation of one training pair for every job."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from morphogen.data.mask_cleaning import THRESHOLD, clean
from morphogen.errors import InputError
from morphogen.foundation.images import to_bytes
from morphogen.generators.singan_seg.artefact import Model, Trained, load_model
from morphogen.generators.singan_seg.config import SAMPLING
from morphogen.generators.singan_seg.pyramid import climb, drawn_noise, fixed_noise
from morphogen.sampling.budgets import Caption
from morphogen.sampling.jobs import Job, Pair

KEPT_IN_MEMORY = 32
"""Models at a time; one of the paper's size takes 4 MB."""


class SinganSampler:
    """Makes image and mask by the model of the training image that a job names.

    A job names it by its prompt, which is one of `captions`: this generator reads no other words.

    Args:
        trained: A trained generator.
        device: Where to sample.
    """

    needs: frozenset[str] = frozenset()

    def __init__(self, trained: Trained, device: str | torch.device = "cpu") -> None:
        self.trained, self.config, self.device = trained, trained.config, device
        self.resolution = self.config.resolution
        self.hash = hashlib.sha256(f"{trained.hash} {self.config.start_scale}".encode()).hexdigest()
        self.captions = [Caption(label, f"like training image {k:04d}") for k, label in enumerate(trained.labels)]
        self._index = {caption.text: k for k, caption in enumerate(self.captions)}
        self._model = lru_cache(KEPT_IN_MEMORY)(lambda index: load_model(trained, index, device))

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names by label id of the masks."""
        return self.trained.classes

    def with_sampling(self, **changes: Any) -> SinganSampler:
        """The same generator with another `start_scale`, and another hash.

        Raises:
            InputError: There is no such scale, or no such option.
        """
        if unknown := sorted(set(changes) - set(SAMPLING)):
            raise InputError(f"{unknown[0]}: is no option of sampling; there are {', '.join(SAMPLING)}")
        return SinganSampler(replace(self.trained, config=replace(self.config, **changes)), self.device)

    def check(self, jobs: Sequence[Job]) -> None:
        """Refuse jobs that name no training image of this generator.

        Raises:
            InputError: Names the job.
        """
        for job in jobs:
            if job.prompt not in self._index:
                known = f"{self.captions[0].text!r} to {self.captions[-1].text!r}"
                fault = f"{job.prompt!r} names no training image; singan-seg reads no words"
                raise InputError(f"{job.id}: {fault}: leave --prompts out, or write {known} there")

    def sample(self, jobs: Sequence[Job]) -> list[Pair]:
        """One pair per job, from its seed and the image that it names.

        The mask is the fourth channel above 1/2, as published; `origin` says how clear it was (`data.mask_cleaning`).

        Raises:
            InputError: As `check`.
        """
        self.check(jobs)
        return [self._sample(job) for job in jobs]  # one by one: models differ, and no batch size changes a bit

    def _sample(self, job: Job) -> Pair:
        index = self._index[job.prompt or ""]
        made = self._made(self._model(index), job.seed)
        probability = ((made[3].double().cpu() + 1) / 2).clamp(0, 1).numpy()
        mask = probability > THRESHOLD
        area = round(float(mask.mean()), 6)
        origin = {
            "model": index,
            "start_scale": self.config.start_scale,
            "area": area,
            "ambiguous": round(clean(probability).ambiguous, 6),
        }
        return Pair(to_bytes(made[:3]).transpose(1, 2, 0), mask.astype(np.int64), origin)

    @torch.no_grad()
    def _made(self, model: Model, seed: int) -> Tensor:
        """(4, R, R) about [-1, 1]: drawn noise from `start_scale` on, and below it the fixed noise."""
        start, sides = self.config.start_scale, self.config.sides
        drawn = [z.to(self.device) for z in drawn_noise([seed], sides)]
        noise = fixed_noise(model.z_star, sides)[:start] + drawn[start:]
        return climb(model.scales, noise)[0]
