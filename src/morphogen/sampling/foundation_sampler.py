"""A foundation as a sampler: images from words alone, without masks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch

from morphogen.errors import InputError
from morphogen.foundation.images import to_bytes
from morphogen.foundation.model import KINDS, PARTS, Foundation, find_folder
from morphogen.foundation.text_to_image import text_to_image
from morphogen.sampling.jobs import Job, Pair
from morphogen.training.checkpoint import sha256

STEPS = 20
GUIDANCE = 2.0


class FoundationSampler:
    """A foundation, ready to sample: one image per prompt, no mask.

    Args:
        name: ``tiny``, ``sd15``, a diffusers folder, or a hub id.
        device: Where it runs.

    Raises:
        InputError: There is no such foundation, or it does not make images from text alone.
    """

    needs = frozenset({"prompts"})

    def __init__(self, name: str | Path, device: str | torch.device = "cpu") -> None:
        folder = find_folder(name)
        self.foundation = Foundation.load(folder, device)
        self.foundation.refuse_other_inputs()
        self.resolution = self.foundation.resolution
        self.hash = content_hash(folder, self.resolution)

    def sample(self, jobs: Sequence[Job]) -> list[Pair]:
        """One image per job, from its prompt, at the foundation's resolution; no mask.

        Raises:
            InputError: A job has no prompt, or one with an unknown word.
        """
        for job in jobs:
            if job.prompt is None:
                raise InputError(f"{job.id}: a foundation paints words, and this sample has none; give --prompts")
        prompts = [job.prompt for job in jobs if job.prompt is not None]
        x = text_to_image(self.foundation, prompts, [job.seed for job in jobs], STEPS, GUIDANCE)
        origin = {"steps": STEPS, "solver": "dpm", "guidance": GUIDANCE}
        return [Pair(image, None, dict(origin)) for image in to_bytes(x).transpose(0, 2, 3, 1)]


def content_hash(folder: Path, resolution: int) -> str:
    """SHA-256 over the files that an image follows from (weights, configs, words) and the sampler's settings.

    Args:
        folder: A diffusers folder; no path of it but those inside goes into the hash.
        resolution: Pixels per side.
    """
    files = sorted(file for part in PARTS for file in (folder / part).glob("*") if file.suffix in KINDS)
    facts = [[f"{file.parent.name}/{file.name}", sha256(file)] for file in files]
    return hashlib.sha256(json.dumps([facts, resolution, STEPS, GUIDANCE]).encode()).hexdigest()
