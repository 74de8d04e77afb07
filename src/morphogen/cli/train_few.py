"""Part of ``morphogen train``: ``diffcl``, from few labelled and many unlabelled volumes or pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morphogen.errors import InputError

if TYPE_CHECKING:
    from morphogen.data.records import Dataset

_PATCHES = 2
"""Labelled patches of a step, and as many unlabelled ones, where none are stated: the published number."""


def train_few(data: Path, mask_values: str | None, options: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """Train on a folder of volumes, or of pictures.

    Args:
        data: The folder.
        mask_values: As on the command line.
        options: Those of the verb that were given.
        out: Run folder.

    Returns:
        What the verb says of it.

    Raises:
        InputError: An option that is not of this method, or wrong data.
        WorkError: The training failed.
    """
    from morphogen.data.mask_values import parse_mask_values
    from morphogen.data.volumes.readers import holds_volumes
    from morphogen.segmenters.diffcl.recipe import published
    from morphogen.segmenters.diffcl.words import read_words

    left = dict(options)
    words = read_words(left.pop("preset", None) or "")
    recipe = left.pop("recipe", None)
    if recipe not in (None, "published"):
        raise InputError(f"--recipe {recipe}: there is no such recipe; give published, or leave it out")
    resolution, augmentation = left.pop("resolution", None), left.pop("augmentation", None)
    semi = {**(published() if recipe else {}), "keep_last": True, **left, **words.semi}
    rule = None if mask_values is None else parse_mask_values(mask_values)
    if words.layout is not None or holds_volumes(data):
        if resolution is not None:
            raise InputError(f"--resolution {resolution}: is of pictures; for volumes write --preset spacing=2, say")
        return _volumes(data, rule, words, {"train_batch_size": _PATCHES, **semi}, augmentation, out)
    for name in [*words.patches, *words.preparation]:
        raise InputError(f"--preset {name}=: is of volumes, and {data} holds pictures; leave it out")
    return _pictures(data, mask_values, words, {**semi, "augmentation": augmentation or "geometric"}, resolution, out)


def _volumes(
    data: Path, rule: Mapping[int, int] | None, words: Any, semi: dict[str, Any], augmentation: str | None, out: Path
) -> dict[str, Any]:
    from morphogen.data.volumes.check import refuse_unreadable_volumes
    from morphogen.data.volumes.presets import PRESETS
    from morphogen.data.volumes.readers import read_volumes
    from morphogen.segmenters.diffcl.volumes import Few, patches_of, preparation_of, train_volumes

    if words.network is not None:
        raise InputError(f"--preset network={words.network}: is of pictures; volumes are segmented by a V-Net")
    config = configured(semi)
    preset = PRESETS.get(words.layout or "")
    kind = {"geometric": "turns"}.get(augmentation or "", augmentation)
    patches = patches_of(preset, {**words.patches, **({"augmentation": kind} if kind else {})})
    kept = read_volumes(data, words.layout, words.labelled, rule, without=("test",))
    refuse_unreadable_volumes(kept)
    validation = kept.where(lambda record: record.split == "val")
    train = kept.where(lambda record: record.split != "val")
    few = Few.of(train, validation, preparation_of(preset, words.preparation))
    train_volumes(few, config, patches, out)
    sizes = {"n_labelled": len(few.labelled), "n_unlabelled": len(few.unlabelled), "n_val": len(few.validation)}
    return {"kind": "volume segmenter", **sizes}


def _pictures(
    data: Path, mask_values: str | None, words: Any, semi: dict[str, Any], resolution: int | None, out: Path
) -> dict[str, Any]:
    from morphogen import segmenters
    from morphogen.cli.train import divided, resolution_of, without_parts
    from morphogen.data.pairs import Pairs, refuse_unreadable
    from morphogen.data.split import draw_annotated
    from morphogen.segmenters.diffcl.config import NetConfig
    from morphogen.segmenters.diffcl.pictures import refuse_resolution, refuse_student, train_pictures
    from morphogen.segmenters.diffcl.words import ALL

    network = words.network or "diffcl"
    segmenters.entry(network)
    own = {f.name for f in dataclasses.fields(NetConfig)}
    if network == "diffcl":
        semi["architecture"] = {name: value for name, value in semi.items() if name in own}
    side = resolution_of({} if resolution is None else {"resolution": resolution})
    config = configured(semi)
    refuse_resolution(side, config)
    found = without_parts(("test",), data, mask_values, bare_images=True)
    refuse_student(network, config.architecture, len(found.classes), f"--preset network={network}")
    annotated = found.where(lambda record: record.mask is not None)
    if not len(annotated):
        raise InputError(f"{data}: holds no image with a mask; a segmenter needs some")
    train, val = divided(annotated, config.seed)
    if words.labelled is not None:
        if not 1 <= words.labelled <= len(train):
            fault = f"the training part has {len(train)} masks"
            raise InputError(f"--preset labelled={words.labelled}: {fault}; give 1 to {len(train)}, or {ALL}")
        kept = set(draw_annotated(train, words.labelled, seed=config.seed))
    else:
        kept = set(train.ids)
    few = train.where(lambda record: record.id in kept)
    bare = _without_masks(found, {*kept, *val.ids}, _held_subjects(train, val))
    refuse_unreadable(few)
    refuse_unreadable(val, foreground=False)
    refuse_unreadable(bare, foreground=False)
    train_pictures(network, [Pairs(few, side)], Pairs(bare, side), Pairs(val, side), config, out)
    return {"kind": "segmenter", "n_labelled": len(few), "n_unlabelled": len(bare), "n_val": len(val)}


def _held_subjects(train: Dataset, val: Dataset) -> set[str]:
    """Subjects that the validation part has to itself."""
    return {record.subject for record in val if record.subject} - {record.subject for record in train if record.subject}


def _without_masks(found: Dataset, used: set[str], held: set[str]) -> Dataset:
    """The other images that train, their masks forgotten; those of the validation part or its subjects are none."""
    others = found.where(lambda record: record.id not in used and record.split != "val" and record.subject not in held)
    return dataclasses.replace(others, records=tuple(dataclasses.replace(record, mask=None) for record in others))


def configured(options: Mapping[str, Any]) -> Any:
    """`SemiConfig` with these options.

    Raises:
        InputError: One that it does not have, or a value out of range.
    """
    from morphogen.segmenters.diffcl.config import SemiConfig

    known = {f.name for f in dataclasses.fields(SemiConfig)}
    for name in options:
        if name not in known:
            raise InputError(f"--{name.replace('_', '-')}: diffcl has no such option; leave it out")
    return SemiConfig(**options)
