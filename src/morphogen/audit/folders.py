"""What an audit of two folders compares: the synthetic images, and the real ones by what they were used for."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from morphogen.audit.nearest import ImageSet
from morphogen.audit.parts import Origin, Part, leakage, recorded_ids, without_test
from morphogen.data.records import Dataset, Record
from morphogen.errors import InputError
from morphogen.metrics.pictures import find_pictures
from morphogen.sampling.manifest import read_rows

CARD = "morphogen.json"


@dataclass(frozen=True)
class Material:
    """Records of an audit.

    Attributes:
        synthetic: The folder to judge.
        train: Real images that the generator was trained on.
        held_out: Real images that it did not see; may be empty.
        test: Test images, or None where none are known.
    """

    synthetic: Dataset
    train: Dataset
    held_out: Dataset
    test: Dataset | None


def gather(syn: Path, real: Path, held_out: Path | None = None, test: Path | None = None) -> Material:
    """Find the images.

    Where REAL states splits (records.csv), the generator was trained on all but its val and test parts: the test part
    is the test set, and the val part is held out, unless folders are given for these.

    Raises:
        InputError: A folder is missing or empty, a file is at fault, or nothing is left to train on.
    """
    parts: dict[str, list[Record]] = {"train": [], "val": [], "test": []}
    for record in find_pictures(real):
        parts[record.split or "train"].append(record)
    if not parts["train"]:
        raise InputError(f"{real}: states no training part; give the images that the generator was trained on")
    return Material(
        synthetic=_dataset(syn, find_pictures(syn)),
        train=_dataset(real, parts["train"]),
        held_out=_dataset(real, parts["val"]) if held_out is None else _dataset(held_out, find_pictures(held_out)),
        test=_test(real, parts["test"], test),
    )


def _test(real: Path, stated: list[Record], folder: Path | None) -> Dataset | None:
    if folder is None:
        return _dataset(real, stated) if stated else None
    records = find_pictures(folder)
    tested = [record for record in records if record.split == "test"]
    return _dataset(folder, tested or records)


def _dataset(root: Path, records: list[Record]) -> Dataset:
    return Dataset(root.resolve().name, root, tuple(records))


def subjects_of(dataset: Dataset) -> list[str] | None:
    """Subject of every record, or None where some are unknown."""
    known = [record.subject for record in dataset if record.subject is not None]
    return known if len(known) == len(dataset) else None


def find_leaks(material: Material, synthetic: ImageSet, generator: str | None = None) -> dict[str, Any]:
    """The leakage audit of the folders.

    Args:
        material: Of `gather`.
        synthetic: The synthetic images.
        generator: Run folder of the generator, or the name or folder of its foundation; None where not given.

    Raises:
        InputError: There is no such generator or foundation, or an image cannot be read.
    """
    trained = Origin() if generator is None else training_of(generator)
    if material.test is None:
        return without_test("no test images are known: give --test DIR, or a split column in records.csv.")
    rows = list(read_rows(material.synthetic.root).values())
    origin = replace(trained, rows=rows or None)
    train, held_out = Part.of("train", material.train), Part.of("held-out", material.held_out)
    others = [held_out] if len(material.held_out) else []
    return leakage(synthetic, origin, train, others, (Part.of("test", material.test), material.test))


def training_of(generator: str) -> Origin:
    """What a generator's run folder, or a foundation, says of its training.

    Raises:
        InputError: There is neither.
    """
    run = Path(generator)
    if (run / "final" / "generator.json").is_file():
        ids, folder = recorded_ids(run), run / "final"
    else:
        from morphogen.foundation.model import find_folder

        ids, folder = None, find_folder(generator)
    founded = (folder / "model_index.json").is_file()
    try:
        return Origin(None, ids, dict(json.loads((folder / CARD).read_text(encoding="utf-8"))), founded)
    except FileNotFoundError:
        return Origin(None, ids, {}, founded)
    except (ValueError, TypeError) as error:
        raise InputError(f"{folder / CARD}: cannot be read as a card; take the model as it was saved") from error
