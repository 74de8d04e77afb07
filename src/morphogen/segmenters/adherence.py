"""Mask adherence: does a segmenter find in a synthetic image what its mask says?

The Dice of an independent segmenter on synthetic images against their masks, beside its own on real images that it has
not seen: a difference says that masks are not followed, or that the images look foreign to it. A segmenter that a loss
or a gate of the generator used is no judge, and neither is a score on images that a gate has picked.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from morphogen.data.images import load_rgb
from morphogen.data.pairs import native_mask
from morphogen.data.records import Dataset, Record
from morphogen.data.split import take_validation
from morphogen.errors import InputError
from morphogen.metrics.overlap import class_counts, dice_from_counts
from morphogen.metrics.shares import divided
from morphogen.metrics.summary import bootstrap_ci95
from morphogen.sampling.gates import read_summary
from morphogen.segmenters import resolve
from morphogen.segmenters.predictor import Predictor
from morphogen.training.supervised import hash_of


def adherence(predictor: Predictor, synthetic: Dataset, real: Dataset, batch_size: int = 16) -> dict[str, Any]:
    """Mean Dice over images and foreground classes of both sets, at the native size of the masks.

    Args:
        predictor: The segmenter that judges.
        synthetic: All synthetic pairs, before any choice among them.
        real: Annotated real images that it was not trained on.
        batch_size: Images that pass the network together.

    Returns:
        ``segmenter``, ``hash``, ``dice``, ``ci95`` (None for one image), ``n``, the same of the real ones as
        ``dice_on_real``, ``ci95_on_real``, ``n_real``, and ``warnings``.

    Raises:
        InputError: The classes differ, or a file cannot be read.
    """
    found: dict[str, Any] = {"segmenter": predictor.config["segmenter"], "hash": predictor.hash}
    for data, suffix, n in ((synthetic, "", "n"), (real, "_on_real", "n_real")):
        values = dice_of(predictor, data, batch_size)
        found |= {f"dice{suffix}": float(values.mean()), f"ci95{suffix}": bootstrap_ci95(values), n: len(values)}
    return found | {"warnings": warnings_of(predictor, synthetic, real)}


def dice_of(predictor: Predictor, data: Dataset, batch_size: int = 16) -> np.ndarray:
    """(N,) Dice of every image, the mean over its foreground classes; several processes divide them."""
    if len(data.classes) != len(predictor.classes):
        raise InputError(
            f"{data.root}: its masks hold {len(data.classes)} classes, the segmenter of {predictor.folder} "
            f"{len(predictor.classes)}; take one that was trained on the same classes"
        )

    def work(records: Sequence[Record]) -> list[float]:
        labels = predictor([load_rgb(record) for record in records], batch_size)
        masks = [native_mask(record, data) for record in records]
        counts = [class_counts(a, b, len(data.classes))[1:] for a, b in zip(labels, masks, strict=True)]
        return [float(dice_from_counts(count).mean()) for count in counts]

    parts = [data.records[start : start + batch_size] for start in range(0, len(data), batch_size)]
    return np.array([value for values in divided(parts, work, "adherence") for value in values])


def warnings_of(predictor: Predictor, synthetic: Dataset, real: Dataset) -> list[str]:
    """What spoils the comparison: a judge that is no other than the gate's, or training data that it judges."""
    run = _run_of(predictor)
    warnings = [f"adherence: {run} {line}" for line in _of_the_gate(predictor, synthetic.root)]
    if knows(predictor, real) is None:
        return [*warnings, f"adherence: {run} does not say what it was trained on; it must be neither of the two sets"]
    said = (
        (synthetic, f"was trained on {synthetic.root}; its Dice there says nothing of the masks"),
        (real, f"was trained on images of {real.root}, so that dice_on_real is not held out"),
    )
    return warnings + [f"adherence: {run} {line}" for data, line in said if knows(predictor, data)]


def knows(predictor: Predictor, data: Dataset) -> bool | None:
    """Whether a segmenter was trained on this data, all of it or its training part; None where its run does not say."""
    run = _run_of(predictor)
    trained = _trained_on(run)
    return None if trained is None else trained in _digests(data, _seed_of(run))


def _of_the_gate(predictor: Predictor, folder: Path) -> list[str]:
    """What the judge shares with the segmenter of the gate that judged the folder (gates.json)."""
    gate = (read_summary(folder) or {}).get("segmenter") or {}
    if gate.get("hash") == predictor.hash:
        return [f"is the segmenter of the gate that judged {folder}; take one of another architecture and seed"]
    name = predictor.config["segmenter"]
    if gate.get("name") == name and resolve(name, gate["architecture"]) == predictor.config.get("architecture"):
        return [f"has the architecture of the gate that judged {folder}; better take another"]
    return []


def _run_of(predictor: Predictor) -> Path:
    return predictor.folder if (predictor.folder / "config.yaml").is_file() else predictor.folder.parent


def _config(run: Path) -> dict[str, Any]:
    import yaml

    try:
        values = yaml.safe_load((run / "config.yaml").read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return values if isinstance(values, dict) else {}


def _trained_on(run: Path) -> str | None:
    """Digest of the ids that a run was trained on, as its config has it."""
    data = _config(run).get("data")
    train = data.get("train") if isinstance(data, dict) else None
    return str(train["ids"]) if isinstance(train, dict) and "ids" in train else None


def _seed_of(run: Path) -> int:
    segmenter = _config(run).get("segmenter")
    return int(segmenter.get("seed", 0)) if isinstance(segmenter, dict) else 0


def _digests(data: Dataset, seed: int) -> set[str]:
    """Those that `morphogen train` writes for training on this data: all of it, or its training part."""
    whole = data.annotated
    open_ = whole.where(lambda record: record.split != "test")
    parts = [whole, open_, open_.where(lambda record: record.split != "val")]
    ids = [part.ids for part in parts]
    with suppress(InputError):  # too few groups to divide: it was not trained on a part of these
        ids.append(take_validation(open_, open_.ids, seed=seed)[0])
    return {hash_of([part]) for part in ids}
