"""The generator as a sampler: lesions by words and masks into normal images, bit-exact outside of the feather."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from morphogen.data.masks import resize_labels
from morphogen.data.pairs import resize_image
from morphogen.data.records import Dataset
from morphogen.errors import InputError
from morphogen.generators.inpaint.artefact import Trained
from morphogen.generators.inpaint.config import SAMPLING
from morphogen.generators.inpaint.holes import feather_of, feathered, grown, paste
from morphogen.generators.inpaint.sampling import Scene, autoencode, paint
from morphogen.generators.inpaint.words import prompt_for
from morphogen.sampling.jobs import Job, Pair
from morphogen.training.rng import numpy_rng

_ROUNDING = 0.5
"""Grey levels: least change by the autoencoder that `drawn` is measured against."""


@dataclass(frozen=True)
class _Canvas:
    """An image at its own size, and how much of each pixel is painted: `weight` (H, W) in [0, 1], M'."""

    image: NDArray[np.uint8]
    weight: NDArray[np.float32]

    def paste(self, painted: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The picture of the generator, (R, R, 3), brought to this size and pasted."""
        height, width = self.weight.shape
        back = np.array(Image.fromarray(painted).resize((width, height), Image.Resampling.LANCZOS))
        return paste(back, self.image, self.weight)


class InpaintSampler:
    """Paints lesions for masks into the images that the jobs bring, at the images' own sizes.

    Args:
        trained: A trained generator, or an inpainting foundation as it is.
        folder: The run's own normal images, where it has some.
    """

    needs = frozenset({"masks", "images"})

    def __init__(self, trained: Trained, folder: Path | None = None) -> None:
        self.trained, self.folder = trained, folder
        self.config, self.foundation = trained.config, trained.foundation
        self.resolution = self.config.resolution or self.foundation.resolution
        chosen = json.dumps([getattr(self.config, name) for name in (*SAMPLING, "feather", "resolution")])
        self.hash = hashlib.sha256(f"{trained.hash} {chosen}".encode()).hexdigest()

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names by label id."""
        return self.trained.classes

    @property
    def normals(self) -> Dataset | None:
        """The normal images that the run made for itself, to paint into where none are given."""
        from morphogen.generators.inpaint.normals import read_normals

        return read_normals(self.folder) if self.folder is not None and self.folder.is_dir() else None

    def with_sampling(self, **changes: Any) -> InpaintSampler:
        """The same generator with other sampling settings (`config.SAMPLING`), and another hash.

        Raises:
            InputError: A value is none of its option's.
        """
        if unknown := sorted(set(changes) - set(SAMPLING)):
            raise InputError(f"{unknown[0]}: is no option of sampling; there are {', '.join(SAMPLING)}")
        return InpaintSampler(replace(self.trained, config=replace(self.config, **changes)), self.folder)

    def check(self, jobs: Sequence[Job]) -> list[str]:
        """The prompts of jobs; refuses those that cannot be painted.

        Raises:
            InputError: A job lacks mask or image, they differ in size, the mask is empty, or the prompt is too long,
                holds an unknown word or slot, or contradicts the mask.
        """
        for job in jobs:
            if job.mask is None or job.image is None:
                lacking = "mask to paint; give --masks" if job.mask is None else "image to paint into; give --images"
                raise InputError(f"{job.id}: has no {lacking}")
            if job.mask.shape != job.image.shape[:2]:
                sizes = " and ".join(f"{shape[1]} x {shape[0]}" for shape in (job.mask.shape, job.image.shape))
                raise InputError(f"{job.id}: mask and image are of different sizes, {sizes} pixels; resize one of them")
            if not (job.mask > 0).any():
                raise InputError(f"{job.id}: its mask is empty, so there is nothing to paint; leave it out")
        prompts = [self._prompt(job) for job in jobs]
        self.foundation.check_lengths(prompts)
        return prompts

    def sample(self, jobs: Sequence[Job]) -> list[Pair]:
        """One lesion per job, painted into its image; the label is the job's mask, and `origin` says how it was made.

        Raises:
            InputError: As `check`.
        """
        prompts = self.check(jobs)
        canvases = [
            _Canvas(job.image, feathered(job.mask, feather_of(job.mask, self.config.feather)))
            for job in jobs
            if job.image is not None and job.mask is not None
        ]
        scene = self._scene(canvases)
        painted = paint(self.foundation, scene, prompts, [job.seed for job in jobs], self.config)
        floors = autoencode(self.foundation, scene)
        return [
            self._pair(job, prompt, canvas, picture, floor)
            for job, prompt, canvas, picture, floor in zip(jobs, prompts, canvases, painted, floors, strict=True)
        ]

    def remove(
        self, images: Sequence[NDArray[np.uint8]], masks: Sequence[NDArray[np.integer]], seeds: Sequence[int]
    ) -> list[NDArray[np.uint8]]:
        """Images with their lesions painted away, as the grammar's sentence for normal tissue says.

        Args:
            images: (H, W, 3) each, of any size.
            masks: (H, W) each, the lesions; they are grown by the feather first, so that no rim stays.
            seeds: One each.

        Returns:
            (H, W, 3) each, the same bytes outside of twice the feather around the lesion.
        """
        widths = [feather_of(mask, self.config.feather) for mask in masks]
        weights = [feathered(grown(mask, width), width) for mask, width in zip(masks, widths, strict=True)]
        canvases = [_Canvas(image, weight) for image, weight in zip(images, weights, strict=True)]
        made: list[NDArray[np.uint8]] = []
        at_once = max(1, 8 * 64**2 // self.resolution**2)
        for k in range(0, len(canvases), at_once):
            part = slice(k, k + at_once)
            prompts = [self.trained.grammar.empty] * len(canvases[part])
            painted = paint(self.foundation, self._scene(canvases[part]), prompts, seeds[part], self.config)
            made += [canvas.paste(picture) for canvas, picture in zip(canvases[part], painted, strict=True)]
        return made

    def _prompt(self, job: Job) -> str:
        if job.mask is None:
            return job.prompt or ""
        t, rng = self.trained, numpy_rng(job.seed, "words")
        return prompt_for(t.grammar, job.prompt, job.mask, rng, self.config.text, t.counts)

    def _scene(self, canvases: Sequence[_Canvas]) -> Scene:
        size = (self.resolution, self.resolution)
        holes = [resize_labels(canvas.weight > 0, size) > 0 for canvas in canvases]
        return Scene(np.stack([resize_image(canvas.image, size[0]) for canvas in canvases]), np.stack(holes))

    def _pair(
        self, job: Job, prompt: str, canvas: _Canvas, painted: NDArray[np.uint8], floor: NDArray[np.uint8]
    ) -> Pair:
        made, c = canvas.paste(painted), self.config
        change, alone = (np.abs(x.astype(np.float64) - canvas.image) for x in (made, canvas.paste(floor)))
        inside = job.mask is not None and job.mask > 0
        drawn = _rms(change[inside]) / max(_rms(alone[inside]), _ROUNDING)
        origin = {
            "prompt": prompt,
            "text": c.text if job.prompt is None else "given",
            "steps": c.sampling_steps,
            "solver": c.solver,
            "guidance": c.guidance,
            "strength": c.strength,
            "foundation": _said(c.foundation),
            "normal": job.params.get("normal"),
            "feather": round(feather_of(made, c.feather), 4),
            "drawn": round(drawn, 4),
            "outside": int(change[canvas.weight == 0].max(initial=0)),
        }
        return Pair(made, job.mask, origin)


def _rms(x: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(x**2)))


def _said(foundation: str) -> str:
    """The name of a foundation, without the path to it."""
    return Path(foundation).name if Path(foundation).is_dir() else foundation
