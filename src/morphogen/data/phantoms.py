"""Phantoms: procedural image-mask pairs, seeded, unlimited, of any size, with exact masks.

>>> image, mask = phantom("mucosa", seed=7, size=64)
>>> image.shape, mask.shape
((64, 64, 3), (64, 64))
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from morphogen.data.phantom_mucosa import mucosa
from morphogen.data.phantom_skin import skin, skin_class
from morphogen.data.prompts import Grammar, caption
from morphogen.data.records import Dataset, Record
from morphogen.errors import InputError
from morphogen.files import naming, refuse_file
from morphogen.progress import track

KINDS = ("mucosa", "skin")
_GRAMMAR = {"mucosa": "polyp", "skin": "skin"}
_STYLE, _SCENE = 0, 1
_STRIDE = 1_000_000
"""Scenes of one dataset have the seeds stride * seed + 0, 1, 2, ..."""


def phantom(kind: str, seed: int, size: int, style: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """One procedural image with its exact mask; the same (kind, seed, style) is the same scene at every size.

    Args:
        kind: ``mucosa`` (colonoscopy: one or two polyps on a lit, folded wall) or ``skin`` (dermoscopy: one lesion).
        seed: Non-negative; decides the scene.
        size: Height and width in pixels, at least 16.
        style: Non-negative seed of what frames of one subject share (tissue colour, instrument, lamp); default: `seed`.

    Returns:
        Image (size, size, 3) uint8 and mask (size, size) int64: 1 on the lesion, else 0.

    Raises:
        InputError: Unknown kind, negative seed or a size below 16.
    """
    _check(kind, seed, size)
    paint = mucosa if kind == "mucosa" else skin
    return paint(_rng(kind, _STYLE, seed if style is None else style), _rng(kind, _SCENE, seed), size)


def phantom_label(kind: str, seed: int) -> str:
    """Class of the scene `phantom(kind, seed, ...)`: ``polyp``, or a skin diagnosis."""
    _check(kind, seed, 16)
    return "polyp" if kind == "mucosa" else skin_class(_rng(kind, _SCENE, seed))


def _rng(kind: str, stream: int, seed: int) -> np.random.Generator:
    return np.random.default_rng([KINDS.index(kind), stream, seed])


def _check(kind: str, seed: int, size: int) -> None:
    if kind not in KINDS:
        raise InputError(f"{kind}: no such kind of phantom; choose one of {', '.join(KINDS)}")
    if seed < 0:
        raise InputError(f"{seed}: a phantom's seed is negative; use 0 or more")
    if size < 16:
        raise InputError(f"{size}: too small for a phantom; use at least 16 pixels")


def phantom_dataset(out: Path, kind: str, n: int, size: int, seed: int = 0, subjects: int | None = None) -> Dataset:
    """Write `n` phantoms as ``images/``, ``masks/`` (0/255) and ``records.csv``; a second call writes the same bytes.

    Args:
        out: Folder, made where missing; a folder with images of other names is refused.
        kind: ``mucosa`` or ``skin``.
        n: Number of pairs, at most 1,000,000.
        size: Height and width in pixels.
        seed: Different seeds share no scene.
        subjects: Number of subjects, each with one style; default: one for every four pairs.

    Returns:
        The records with subject, label and caption.

    Raises:
        InputError: Unknown kind, sizes out of range, or `out` holds other images.
    """
    if not 1 <= n <= _STRIDE or (subjects is not None and not 1 <= subjects <= n):
        raise InputError(f"{out}: {n} phantoms of {subjects} subjects; use 1 to {_STRIDE} and 1 to n subjects")
    _check(kind, seed, size)
    groups = subjects or -(-n // 4)
    records = []
    grammar = Grammar.load(_GRAMMAR[kind])
    _make_folders(out, {f"{kind}-{i:06d}.png" for i in range(n)})
    for i in track(range(n), f"phantoms ({kind})", n):
        name, group = f"{kind}-{i:06d}", i * groups // n
        image, mask = phantom(kind, _STRIDE * seed + i, size, style=_STRIDE * seed + group)
        label = phantom_label(kind, _STRIDE * seed + i)
        record = Record(
            id=name,
            image=out / "images" / f"{name}.png",
            mask=out / "masks" / f"{name}.png",
            caption=caption(grammar, image, mask, label),
            label=label,
            subject=f"subject-{group:04d}",
        )
        for path, pixels in ((record.image, image), (out / "masks" / f"{name}.png", (255 * mask).astype(np.uint8))):
            with naming(path):
                Image.fromarray(pixels).save(path)
        records.append(record)
    _write_table(out / "records.csv", records)
    return Dataset(name=f"phantoms-{kind}", root=out, records=tuple(records))


def _make_folders(out: Path, names: set[str]) -> None:
    refuse_file(out)
    for folder in (out / "images", out / "masks"):
        if folder.is_dir() and any(file.name not in names for file in folder.iterdir()):
            raise InputError(f"{folder}: holds other files; choose a new folder for the phantoms")
        folder.mkdir(parents=True, exist_ok=True)


def _write_table(path: Path, records: list[Record]) -> None:
    with naming(path), path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["id", "subject", "class", "caption"])
        table.writerows([r.id, r.subject, r.label, r.caption] for r in records)
