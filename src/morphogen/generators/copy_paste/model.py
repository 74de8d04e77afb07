"""Lesion pasting: a real lesion, in the shape of the job's mask, blended into another real image."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors
from scipy import ndimage

from morphogen.data.pairs import Pairs
from morphogen.data.records import Dataset
from morphogen.errors import InputError
from morphogen.files import write_bytes, write_json, write_text
from morphogen.generators.copy_paste import blend, warp
from morphogen.progress import track
from morphogen.sampling.jobs import Job, Pair
from morphogen.training.rng import numpy_rng, seed_of

NAME = "copy-paste"
CANDIDATES = 8
"""Backgrounds (half of them all at most) among which the most fitting one is taken: pairs vary, and yet lie well."""


@dataclass(frozen=True, kw_only=True)
class CopyPasteConfig:
    """`resolution` is the side of the square images, in pixels."""

    resolution: int = 64


CONFIG = CopyPasteConfig


def margin_of(resolution: int) -> int:
    """Pixels of surrounding that are pasted with a lesion, so that its own border comes along."""
    return max(2, resolution // 16)


def check(data: Dataset, config: CopyPasteConfig) -> None:
    """Refuse data without a mask; any `config` will do.

    Raises:
        InputError: Nothing is annotated.
    """
    if not len(data.annotated):
        raise InputError(f"{data.root}: holds no annotated image; {NAME} needs at least one")


def train(data: Dataset, config: CopyPasteConfig, out: Path) -> Path:
    """Store the annotated images at working resolution, and each of them with its lesions taken away.

    The run folder holds pixels only: neither ids nor paths of the records. Nothing is random.

    Returns:
        `out`, the run folder.

    Raises:
        InputError: Nothing is annotated, or `out` holds another run.
    """
    check(data, config)
    data = data.annotated
    pairs = Pairs(data, config.resolution)
    images, masks, clean = [], [], []
    for i in track(range(len(pairs)), "taking lesions away", len(pairs)):
        image, mask = pairs[i]
        images.append(np.ascontiguousarray(np.moveaxis(np.asarray(image), 0, -1)))
        masks.append(np.asarray(mask))
        clean.append(blend.without_lesion(images[-1], masks[-1] > 0, margin_of(config.resolution)))
    keys = np.array([_key(record.id) for record in data], dtype=np.int64)
    crops = {"images": np.stack(images), "masks": np.stack(masks), "clean": np.stack(clean), "keys": keys}
    _save(save_tensors(crops), data.classes, config, out)
    return out


def load(run: Path, device: str = "cpu") -> CopyPasteSampler:
    """The sampler of a run folder; `device` is of no consequence, all work is done by NumPy."""
    facts = json.loads((run / "final" / "generator.json").read_text())
    content = (run / "final" / "pairs.safetensors").read_bytes()
    if hashlib.sha256(content).hexdigest() != facts["sha256"]:
        raise InputError(f"{run}/final/pairs.safetensors: is damaged; train the generator again")
    return CopyPasteSampler(load_tensors(content), facts["resolution"], facts["sha256"])


class CopyPasteSampler:
    """Pastes lesions; see `morphogen.sampling.jobs.Sampler` for the contract.

    Args:
        crops: ``images`` and ``clean`` (N, R, R, 3) uint8, ``masks`` (N, R, R) uint8, ``keys`` (N,) int64.
        resolution: R.
        content_hash: Hash of all of it.
    """

    needs = frozenset({"masks"})

    def __init__(self, crops: Mapping[str, np.ndarray], resolution: int, content_hash: str) -> None:
        self.images, self.masks, self.clean = crops["images"], crops["masks"], crops["clean"]
        self.resolution = resolution
        self.hash = content_hash
        self._index = {int(key): i for i, key in enumerate(crops["keys"])}
        self._margin = margin_of(resolution)
        labels = range(1, int(self.masks.max()) + 1)
        self._holders = {label: np.flatnonzero((self.masks == label).any(axis=(1, 2))) for label in labels}

    def sample(self, jobs: Sequence[Job]) -> list[Pair]:
        """One pair per job; its mask is the job's.

        Raises:
            InputError: A job has no mask, one of another size, or a label that no training image holds.
        """
        return [self._sample(job) for job in jobs]

    def _sample(self, job: Job) -> Pair:
        size = self.resolution
        if job.mask is None or job.mask.shape != (size, size):
            raise InputError(f"{job.id}: {NAME} needs a mask of {size} x {size}; give --masks")
        rng = numpy_rng(job.seed, NAME)
        known = self._index.get(_key(job.source.id)) if job.source is not None else None
        lesion = job.mask > 0
        region = blend.grow(lesion, self._margin)
        if lesion.any():
            source, used = self._source(job, ndimage.binary_dilation(region), known, rng)
        else:
            source, used = np.zeros((size, size, 3)), []
        background = self._background(lesion, region, source, used, rng)
        image = self.clean[background].astype(np.float64)
        if lesion.any():
            image = blend.paste(image, source, lesion | (region & blend.field_of_view(image)), lesion)
        origin = {"background": background, "lesions": used}
        return Pair(np.rint(image).astype(np.uint8), job.mask, origin)

    def _source(
        self, job: Job, needed: np.ndarray, known: int | None, rng: np.random.Generator
    ) -> tuple[np.ndarray, list[int]]:
        """Lesions and their surroundings in the shape of the job's mask.

        Returns:
            (R, R, 3) float64, set where `needed`, and the indices of the images that gave lesions.
        """
        mask = job.mask
        assert mask is not None
        parts = [(int(label), part) for label in np.unique(mask[mask > 0]) for part in warp.components(mask == label)]
        givers = {label: self._giver(job, label, known, rng) for label, _ in parts}
        owner = np.full(mask.shape, -1)
        for i, (_, part) in enumerate(parts):
            owner[part] = i
        nearest = ndimage.distance_transform_edt(owner < 0, return_distances=False, return_indices=True)
        owner = owner[tuple(nearest)]
        source = np.zeros((*mask.shape, 3))
        for i, (label, part) in enumerate(parts):
            giver = givers[label]
            match = warp.best_match(part, warp.components(self.masks[giver] == label))
            around = np.argwhere(needed & (owner == i) & (mask == 0))
            for points, allowed in ((np.argwhere(part), match.component), (around, self._healthy(giver))):
                at = warp.coordinates(points, match, allowed)
                source[tuple(points.T)] = warp.sample(self.images[giver], at)
        return source, sorted(set(givers.values()))

    def _giver(self, job: Job, label: int, known: int | None, rng: np.random.Generator) -> int:
        """The image whose lesion is pasted: the one that the mask came from, else any that holds the label."""
        holders = self._holders.get(label, np.empty(0, dtype=int))
        if not len(holders):
            raise InputError(f"{job.id}: no training image holds label {label}; train on images that do")
        return known if known is not None and known in holders else int(rng.choice(holders))

    def _healthy(self, index: int) -> np.ndarray:
        """(R, R) bool: healthy surface in the field of view; anything unlabelled, or anything, where there is none."""
        unlabelled = self.masks[index] == 0
        for area in (unlabelled & blend.field_of_view(self.images[index]), unlabelled):
            if area.any():
                return area
        return np.ones_like(unlabelled)

    def _background(
        self, lesion: np.ndarray, region: np.ndarray, source: np.ndarray, used: list[int], rng: np.random.Generator
    ) -> int:
        """The most fitting of a few randomly drawn images.

        It should show the lesion's place in its field of view, have its own lesion's place covered by the new one, and
        be of like colour around it. The givers of the lesion are drawn only where there is no other image.
        """
        others = np.setdiff1d(np.arange(len(self.images)), used)
        pool = others if len(others) else np.arange(len(self.images))
        drawn = rng.choice(pool, size=min(CANDIDATES, -(-len(pool) // 2)), replace=False)
        ring = region & ~lesion

        def unfit(index: int) -> float:
            outside = (lesion & ~blend.field_of_view(self.images[index])).sum() / max(1, lesion.sum())
            repaired = ((self.masks[index] > 0) & ~region).mean()
            colour = np.abs(self.clean[index][ring] - source[ring]).mean() / 255 if ring.any() else 0.0
            return float(4 * outside + repaired + colour)

        return int(min(drawn, key=unfit))


def _key(record_id: str) -> int:
    """One-way key of a record, so that a run folder names no patient."""
    return seed_of(NAME, record_id)


def _save(content: bytes, classes: Sequence[str], config: CopyPasteConfig, out: Path) -> None:
    facts = {
        "generator": NAME,
        "resolution": config.resolution,
        "classes": list(classes),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    settings = yaml.safe_dump({"generator": NAME, **asdict(config)}, sort_keys=False)
    final = out / "final"
    if out.exists() and any(out.iterdir()):
        _check_same(out, settings, facts)
    final.mkdir(parents=True, exist_ok=True)
    write_text(out / "config.yaml", settings)
    write_bytes(final / "pairs.safetensors", content)
    write_json(final / "generator.json", facts)


def _check_same(out: Path, settings: str, facts: Mapping[str, Any]) -> None:
    """A folder in use must hold this very run, finished or not."""
    config, final = out / "config.yaml", out / "final" / "generator.json"
    same = config.is_file() and config.read_text() == settings
    if not same or (final.is_file() and json.loads(final.read_text()) != facts):
        raise InputError(f"{out}: holds another run; choose another --out or remove the folder")
