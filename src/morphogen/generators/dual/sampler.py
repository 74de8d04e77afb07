"""The generator as a sampler: a pair for every prompt, its mask made of what was painted beside the image."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from morphogen.data.mask_cleaning import clean
from morphogen.errors import InputError
from morphogen.generators.dual.artefact import Trained
from morphogen.generators.dual.config import SAMPLING
from morphogen.generators.dual.sampling import make_pairs
from morphogen.sampling.budgets import Caption
from morphogen.sampling.jobs import Job, Pair


class DualSampler:
    """Makes image and mask of the words of a job.

    Args:
        trained: A trained generator.
    """

    needs: frozenset[str] = frozenset()

    def __init__(self, trained: Trained) -> None:
        self.trained = trained
        self.config, self.foundation = trained.config, trained.foundation
        self.resolution = self.config.resolution or self.foundation.resolution
        chosen = json.dumps([getattr(self.config, name) for name in (*SAMPLING, "resolution")])
        self.hash = hashlib.sha256(f"{trained.hash} {chosen}".encode()).hexdigest()

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names by label id of the masks."""
        return self.trained.classes

    @property
    def captions(self) -> Sequence[Caption]:
        """Those of the training pairs, to sample with where no prompts are given."""
        return self.trained.captions

    def with_sampling(self, **changes: Any) -> DualSampler:
        """The same generator with other sampling settings (`config.SAMPLING`), and another hash.

        Raises:
            InputError: A value is none of its option's.
        """
        if unknown := sorted(set(changes) - set(SAMPLING)):
            raise InputError(f"{unknown[0]}: is no option of sampling; there are {', '.join(SAMPLING)}")
        return DualSampler(replace(self.trained, config=replace(self.config, **changes)))

    def check(self, jobs: Sequence[Job]) -> list[str]:
        """The prompts of jobs; refuses those that nothing can be made of.

        Raises:
            InputError: A job brings no prompt, or one that is too long or holds an unknown word, or is of a class that
                had no training image.
        """
        for job in jobs:
            if job.prompt is None:
                raise InputError(f"{job.id}: has no words to make a pair of; give --prompts")
            if job.label is not None and job.label not in self.trained.labels:
                known = ", ".join(self.trained.labels) or "none"
                raise InputError(
                    f"{job.id}: is to be of class {job.label!r}, which no training image was of; there are {known}"
                )
        prompts = [job.prompt or "" for job in jobs]
        self.foundation.check_lengths(prompts)
        return prompts

    def sample(self, jobs: Sequence[Job]) -> list[Pair]:
        """One pair per job, from its prompt and seed; `origin` says how clear its mask was (`data.mask_cleaning`).

        Raises:
            InputError: As `check`.
        """
        prompts, seeds = self.check(jobs), [job.seed for job in jobs]
        images, masks = make_pairs(self.foundation, self.trained.masks, prompts, seeds, self.config)
        return [
            self._pair(prompt, image, probability)
            for prompt, image, probability in zip(prompts, images, masks, strict=True)
        ]

    def _pair(self, prompt: str, image: NDArray[np.uint8], probability: NDArray[np.float64]) -> Pair:
        found, c = clean(probability, self.foundation.factor), self.config
        origin = {
            "prompt": prompt,
            "layout": c.layout,
            "steps": c.sampling_steps,
            "solver": c.solver,
            "guidance": c.guidance,
            "foundation": Path(c.foundation).name if Path(c.foundation).is_dir() else c.foundation,
            "area": round(found.area, 6),
            "raw_area": round(found.raw_area, 6),
            "ambiguous": round(found.ambiguous, 6),
        }
        return Pair(image, found.mask, origin)
