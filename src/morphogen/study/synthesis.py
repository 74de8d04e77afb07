"""Training pairs that are not simply read: synthetic ones, and real ones seen through the foundation's autoencoder."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from morphogen.data.pairs import Pairs, native_mask
from morphogen.data.records import Dataset, Record
from morphogen.generators import GENERATORS
from morphogen.locks import lock
from morphogen.sampling.budgets import NONE, Budget, apportion, budget, plan_captions
from morphogen.sampling.manifest import MERGED, is_whole
from morphogen.sampling.plan import Plan, plan_cycle, plan_jobs
from morphogen.sampling.runner import run_jobs
from morphogen.study.arms import BALANCE, OWN, Variant
from morphogen.study.bench import Bench
from morphogen.study.generators import (
    foundation_name,
    generator_config,
    has_foundation,
    makes_masks,
    others,
    paints_into_images,
    study_of,
    uses_foundation,
)
from morphogen.study.kinds import CLASSIFICATION, kind_of, room_of
from morphogen.study.recipe import StudyConfig
from morphogen.study.splits import Repetition

if TYPE_CHECKING:
    from numpy.typing import NDArray


def synthetic_pairs(bench: Bench, repetition: Repetition, variant: Variant = OWN) -> Dataset:
    """The synthetic pairs of one repetition, made on the first call and shared by all arms and judges.

    The generator is trained on the training part of the annotated pairs alone, and paints transforms of their masks.
    Another process that wants the same pairs waits.

    Args:
        bench: The study.
        repetition: Whose pairs.
        variant: Which generator makes them, and how it samples; it is trained once for all ways of sampling.

    Returns:
        A data set with the classes of the real one; ``synthetic/LABEL/`` in the study's folder.
    """
    folder = synthetic_folder(bench, repetition, variant)
    with lock(bench.out / ".locks" / f"synthetic.{folder.name}.lock", wait=True):
        if not is_whole(folder):  # of which a file may be lost with the power
            _make(bench.of(variant), repetition, variant, folder)
    return read_synthetic(folder, bench.dataset)


def synthetic_folder(bench: Bench, repetition: Repetition, variant: Variant = OWN) -> Path:
    """Where the synthetic pairs of a repetition lie: images/, masks/, manifest.jsonl."""
    return bench.out / "synthetic" / variant.of(repetition.label)


def synthetic_rows(bench: Bench, repetition: Repetition, variant: Variant = OWN) -> list[dict[str, Any]]:
    """The manifest rows of a repetition's synthetic pairs, which exist."""
    text = (synthetic_folder(bench, repetition, variant) / MERGED).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def in_order_of_plan(pairs: Dataset) -> Dataset:
    """Synthetic pairs as they were planned; those of older folders, whose rows do not say, by their ids."""
    rows = [record.origin or {} for record in pairs]
    order = sorted(range(len(rows)), key=lambda i: (rows[i].get("position", len(rows)), pairs[i].id))
    return replace(pairs, records=tuple(pairs[i] for i in order))


def candidates(bench: Bench, repetition: Repetition, variant: Variant = OWN) -> int:
    """Synthetic pairs to make in a repetition, by one way of sampling.

    Raises:
        InputError: Its classes cannot be balanced so.
    """
    config = bench.of(variant).config
    if (pairs := balanced(bench, repetition, variant)) is not None:
        return max(sum(pairs.values()), config.synthetic or 0)
    return config.per_mask * len(repetition.train) if config.synthetic is None else config.synthetic


def balanced(bench: Bench, repetition: Repetition, variant: Variant = OWN) -> Budget | None:
    """Class -> pairs that an arm takes at most, where its classes are balanced; None where it takes what there is.

    Raises:
        InputError: The classes cannot be balanced so.
    """
    if (words := balance_of(bench.of(variant).config, variant)) == NONE:
        return None
    return budget([record.label for record in bench.dataset.select(repetition.train)], words)


def balance_of(config: StudyConfig, variant: Variant) -> str:
    """How the pairs are dealt among classes: as the variant says, else as the study does."""
    return str(dict(variant.options).get(BALANCE, config.balance))


def trained_generator(bench: Bench, repetition: Repetition) -> Path:
    """Run folder of a repetition's generator, which is trained on the first call; another process waits.

    That of the study's own generator; for another one `bench` is the study of that (`Bench.of`). Generators that adapt
    their foundation alike share the adapted one.
    """
    from morphogen.foundation.adapt import sharing

    config, run = bench.config, generator_run(bench, repetition)
    with lock(bench.out / ".locks" / f"{run.name}.lock", wait=True), sharing(bench.out / "adapted"):
        train, settings = bench.dataset.select(repetition.train), generator_config(config, repetition.seed)
        return GENERATORS[config.generator].train(train, settings, run)


def _make(bench: Bench, repetition: Repetition, variant: Variant, folder: Path) -> None:
    sampler: Any = GENERATORS[bench.config.generator].load(trained_generator(bench, repetition), bench.config.device)
    plan = _plan(bench, repetition, sampler, variant)
    if options := {name: value for name, value in variant.options if name != BALANCE}:
        sampler = sampler.with_sampling(**options)
    run_jobs(sampler, plan, folder)


def _plan(bench: Bench, repetition: Repetition, sampler: Any, variant: Variant) -> Plan:
    """The pairs to make, the same ones however they are sampled; only their classes may be balanced otherwise."""
    config, train = bench.config, bench.dataset.select(repetition.train)
    how, seed, prompt, n = config.mask_transform, repetition.seed, config.prompt, candidates(bench, repetition, variant)
    if makes_masks(config):
        pairs = balanced(bench, repetition, variant) or Counter(caption.label for caption in sampler.captions)
        return plan_captions(sampler.captions, Counter(apportion(pairs, n)), seed, bench.dataset.classes)
    if paints_into_images(config):
        from morphogen.sampling.into import plan_into

        lesions = train.where(lambda record: bool(native_mask(record, train).any()))  # what `plan_into` would refuse
        return plan_into(lesions, sampler.normals, n, how, seed, prompt)
    if config.synthetic is None:
        return plan_jobs(train, config.per_mask, how, seed, prompt, size=sampler.resolution)
    return plan_cycle(train, n, how, seed, prompt, size=sampler.resolution)


def generator_run(bench: Bench, repetition: Repetition) -> Path:
    """Run folder of a repetition's generator."""
    return bench.out / "runs" / f"generator.{bench.config.generator}.{repetition.label}"


def architecture_of(judge: str, config: StudyConfig) -> dict[str, Any]:
    """Options of a judge in this study: those in its name, and the study's foundation where it rests on one.

    Raises:
        InputError: There is no such network, option or value, or the generator has no such preset.
    """
    name, options = room_of(judge).named(judge)
    return {"foundation": foundation_name(config), **options} if name == "features" else options


def judge_recipe(config: StudyConfig, name: str, n_train: int) -> dict[str, Any]:
    """What the study's recipe says of a judge's training; empty where it has none, or the judge (no classifier has).

    The arm decides the augmentation and the study the resolution. The real pairs alone count for the length, so that
    all arms take the same number of steps.

    Args:
        config: The study.
        name: The judge, without options.
        n_train: Real training pairs of a repetition.
    """
    from morphogen.segmenters import entry, published

    if config.recipe is None or kind_of(name) is CLASSIFICATION or not entry(name).recipe:
        return {}
    return {k: v for k, v in published(name, n_train).items() if k not in ("resolution", "augmentation")}


def foundations(config: StudyConfig) -> list[str]:
    """Every foundation that the study rests on: its own, and those of judges, gates and generators that have another.

    Raises:
        InputError: A judge or the gate segmenter has no such option.
    """
    found = [foundation_name(config)] if uses_foundation(config) else []
    theirs = [study_of(config, name) for name in others(config, config.arms)]
    found += [foundation_name(one) for one in theirs if has_foundation(one)]
    for judge in (*config.judges, *((config.gate_segmenter,) if config.gate_segmenter else ())):
        stated = room_of(judge).resolve(judge.partition("+")[0], architecture_of(judge, config)).get("foundation")
        found += [str(stated)] if stated is not None else []
    return list(dict.fromkeys(found))


def card_of(name: str) -> dict[str, Any]:
    """What a foundation says of itself; empty for a foreign one.

    Raises:
        InputError: There is no such foundation.
    """
    from morphogen.foundation.model import CARD, find_folder

    path = find_folder(name) / CARD
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def foundation_card(config: StudyConfig) -> dict[str, Any]:
    """What the study's foundation says of itself; empty for a foreign one.

    Raises:
        InputError: There is no such foundation.
    """
    return card_of(foundation_name(config))


def read_synthetic(folder: Path, real: Dataset) -> Dataset:
    """The pairs in a folder of the sampling runner, with the classes of `real`, in the order of their ids.

    A pair whose class nobody asked for is of the class of the image whose mask it was painted from.
    """
    labels = {record.id: record.label for record in real}
    rows = [json.loads(line) for line in (folder / MERGED).read_text(encoding="utf-8").splitlines()]
    records = tuple(
        Record(
            row["id"],
            folder / f"images/{row['id']}.png",
            folder / f"masks/{row['id']}.png",
            caption=row.get("prompt"),
            label=row.get("label") or labels.get(row.get("source_mask", "")),
            origin=row,
        )
        for row in rows
    )
    values = {int(raw): label for raw, label in rows[0]["mask_values"].items()}
    return replace(real, name="synthetic", root=folder, records=records, mask_values=values)


class ArrayPairs:
    """Pairs that are in memory; what `Pairs` offers.

    Args:
        dataset: The records that they come from.
        images: (N, 3, R, R) uint8.
        masks: (N, R, R) uint8 label ids.
    """

    def __init__(self, dataset: Dataset, images: NDArray[np.uint8], masks: NDArray[np.uint8]) -> None:
        self.dataset, self.images, self.masks = dataset, images, masks
        self.resolution = int(images.shape[-1])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int, /) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        return self.images[index], self.masks[index]

    def image(self, index: int, /) -> NDArray[np.uint8]:
        """(3, R, R) uint8."""
        image: NDArray[np.uint8] = self.images[index]
        return image


def autoencoded_pairs(bench: Bench, repetition: Repetition) -> ArrayPairs:
    """The real training pairs, their images passed through the foundation's autoencoder: the floor of a latent method.

    Raises:
        InputError: There is no such foundation.
    """
    pairs = Pairs(bench.dataset.select(repetition.train), bench.config.resolution)
    return ArrayPairs(pairs.dataset, autoencode(pairs.images(), bench, repetition), pairs.masks())


def autoencode(images: NDArray[np.uint8], bench: Bench, repetition: Repetition, batch: int = 16) -> NDArray[np.uint8]:
    """(N, 3, R, R) uint8 through the autoencoder that the synthetic images of a repetition came out of.

    The generator, of `bench`, may have adapted it, and is trained for it where it is not yet; a study whose generator
    has none takes its foundation's.
    """
    import torch

    from morphogen.foundation.model import Foundation

    config, name = bench.config, foundation_name(bench.config)
    if has_foundation(config):
        final = trained_generator(bench, repetition) / "final"
        name = str(final) if (final / "model_index.json").exists() else name  # low-rank updates leave it as it is
    foundation = Foundation.load(name, config.device)
    parts: list[NDArray[np.uint8]] = []
    for start in range(0, len(images), batch):
        x = torch.from_numpy(images[start : start + batch]).float().to(config.device) / 127.5 - 1
        y = foundation.autoencode(x).float().cpu().numpy()
        parts.append(np.clip(np.rint((y + 1) * 127.5), 0, 255).astype(np.uint8))
    return np.concatenate(parts)


def as_pictures(images: Sequence[NDArray[np.uint8]] | NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """(N, 3, R, R) to a list of (R, R, 3)."""
    return [np.ascontiguousarray(image.transpose(1, 2, 0)) for image in images]
