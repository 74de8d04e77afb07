"""The generator's face: train a model for each of some images, scale by scale; load a run.

Sampling can vary the chosen images alone. Unless it is told to balance (``--balance none``), the classes of its pairs
are in proportion to those of the chosen images, not to those of all training images: where `max_images` bites, the
first image of every class comes before the second of any, so that rare classes have more than their share.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from morphogen.data.pairs import Pairs
from morphogen.data.records import Dataset
from morphogen.data.split import draw_annotated
from morphogen.errors import InputError
from morphogen.foundation.images import to_signed
from morphogen.generators.singan_seg import artefact
from morphogen.generators.singan_seg.config import SAMPLING, SinganConfig, singan_config
from morphogen.generators.singan_seg.pyramid import Scale
from morphogen.generators.singan_seg.sampler import SinganSampler
from morphogen.generators.singan_seg.task import ScaleTask, trained_scale
from morphogen.progress import say
from morphogen.training.checkpoint import write_folder
from morphogen.training.loop import claim, fit
from morphogen.training.processes import processes
from morphogen.training.rng import normal, seed_of
from morphogen.training.task import LoopConfig

__all__ = ["CONFIG", "SAMPLING", "check", "load", "preset_config", "refuse_classes", "train"]

CONFIG = SinganConfig
preset_config = singan_config


def check(data: Dataset, config: SinganConfig) -> None:
    """Refuse what training would refuse, before anything is written.

    Raises:
        InputError: There are no masks, masks of several classes, or none with a lesion; or several processes.
    """
    if not len(data.annotated):
        raise InputError(f"{data.root}: has no mask to learn from; add masks/ with the stems of images/")
    if len(data.classes) != 2:
        named = ", ".join(data.classes[1:])
        raise InputError(
            f"{data.root}: its masks hold several classes ({named}); singan-seg makes one lesion: join them"
        )
    if processes().num_processes > 1:
        raise InputError("singan-seg: trains one image at a time, in one process; launch one")
    if next(_with_lesion(data, config), None) is None:
        fault = f"no mask holds a lesion at {config.resolution} px"
        raise InputError(f"{data.root}: {fault}; check them, or state --mask-values")


def chosen(data: Dataset, config: SinganConfig) -> Dataset:
    """The training images that get a model, in the order of `data`: those with a lesion, `max_images` at most.

    They are drawn by the seed, evenly over subjects (`draw_annotated`); a class that none of the first shows comes
    before the second image of another. A smaller number is part of a larger one.
    """
    order = list(_with_lesion(data, config))
    if not config.max_images or len(order) <= config.max_images:
        taken = set(order)
    else:
        label = {record.id: record.label for record in data}
        first = {label[i]: i for i in reversed(order)}
        taken = set(sorted(order, key=lambda i: first[label[i]] != i)[: config.max_images])
    return data.where(lambda record: record.id in taken)


def refuse_classes(data: Dataset, config: SinganConfig, classes: Collection[str | None]) -> None:
    """Refuse to be asked for pairs of a class of which no image is chosen.

    Raises:
        InputError: Of a class of `classes` there will be no model.
    """
    shown = {record.label for record in chosen(data, config)}
    for name in sorted({label for label in classes if label is not None} - shown):
        if name in (there := {record.label for record in chosen(data, replace(config, max_images=0))}):
            fault = f"max_images={config.max_images} lets no image of class {name!r} have a model"
            remedy = f"give singan-seg the preset max_images={len(there)}, or leave that class out"
        else:
            fault = f"no mask of class {name!r} in {data.root} holds a lesion at {config.resolution} px"
            remedy = "leave that class out"
        raise InputError(f"--balance: asks for pairs of a class that singan-seg cannot vary: {fault}; {remedy}")


def train(data: Dataset, config: SinganConfig, out: Path) -> Path:
    """Train a model for each of the chosen images, in ``out/models``; called again, continue within any of them.

    Raises:
        InputError: As `check`, or `out` holds another run.
    """
    settings = {"generator": config.method, "records": list(data.annotated.ids), **asdict(config)}
    if (out / "final").exists():
        claim(out, settings)  # refuses another run's folder
        _clear(out)  # the first time, if that was stopped on the way
        return out
    check(data, config)
    claim(out, settings)
    pairs = Pairs(chosen(data, config), config.resolution)
    _announce(pairs.dataset, data.annotated, config, out)
    for k in range(len(pairs)):
        _train_scales(pairs, k, config, out)
    write_folder(out / "final", lambda folder: _save(folder, pairs, config, out))
    _clear(out)
    return out


def load(run: Path, device: str = "cpu") -> SinganSampler:
    """The sampler of a finished run folder."""
    return SinganSampler(artefact.load(run / "final"), device)


def _announce(taken: Dataset, annotated: Dataset, config: SinganConfig, out: Path) -> None:
    counts = f"{len(taken)} of {len(annotated)} annotated images get a model"
    say(f"{out}: {counts}, each of {len(config.sides)} scales")
    shown = {record.label for record in taken}
    if absent := sorted({record.label for record in annotated if record.label} - shown):
        say(f"{out}: none is of class {', '.join(absent)}, of which sampling then makes no pair")


def _clear(out: Path) -> None:
    """Remove the weights of single scales: `out/final` has what sampling needs."""
    for path in out.glob("models/*/*/final"):
        shutil.rmtree(path)


def _with_lesion(data: Dataset, config: SinganConfig) -> Iterator[str]:
    """Ids of the records whose mask holds a lesion at the resolution, in the order in which they are taken."""
    annotated = data.annotated
    for id_ in draw_annotated(annotated, len(annotated), config.seed):
        if Pairs(annotated.select([id_]), config.resolution).mask(0).any():
            yield id_


def _train_scales(pairs: Pairs, k: int, config: SinganConfig, out: Path) -> None:
    """Train every scale of the k-th image on those below it; finished ones are read."""
    scales: list[Scale] = []
    weights: dict[str, Tensor] = {}
    for n in range(len(config.sides)):
        task = ScaleTask(_pair(pairs, k), _z_star(pairs, k, config), scales, config, _seed(pairs, k, config))
        if n:
            task.begin_with(weights)
        loop = LoopConfig(
            max_train_steps=config.max_train_steps, train_batch_size=1, max_grad_norm=0.0,
            seed=seed_of(_seed(pairs, k, config), "scale", n), checkpointing_steps=config.checkpointing_steps,
        )  # fmt: skip
        said = f"image {k + 1} of {len(pairs)}, scale {n + 1} of {len(config.sides)}"
        final = fit(task, loop, _run(out, k, n), {"generator": config.method, "model": k, "scale": n}, said)
        scale, weights = trained_scale(final, n)
        scales.append(scale)


def _save(folder: Path, pairs: Pairs, config: SinganConfig, out: Path) -> None:
    for k in range(len(pairs)):
        scales = [trained_scale(_run(out, k, n) / "final", n)[0] for n in range(len(config.sides))]
        artefact.save_model(folder, k, scales, _z_star(pairs, k, config))
    artefact.save_info(folder, [record.label for record in pairs.dataset], pairs.dataset.classes, config)


def _run(out: Path, k: int, n: int) -> Path:
    return out / "models" / f"{k:04d}" / f"scale-{n}"


def _seed(pairs: Pairs, k: int, config: SinganConfig) -> int:
    """Of everything random about a model: the same one, whichever other images have a model."""
    return seed_of(config.seed, "model", pairs.ids[k])


def _pair(pairs: Pairs, k: int) -> Tensor:
    """(1, 4, R, R) in [-1, 1]: red, green, blue, and the mask as -1 and 1."""
    image, mask = pairs[k]
    return torch.cat([to_signed(image), 2 * torch.from_numpy(mask)[None].float() - 1])[None]


def _z_star(pairs: Pairs, k: int, config: SinganConfig) -> Tensor:
    """(1, 1, side, side), the noise that the coarsest scale must give the training pair for."""
    return normal([_seed(pairs, k, config)], (1, config.sides[0], config.sides[0]), "z_star")
