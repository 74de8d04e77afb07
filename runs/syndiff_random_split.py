"""CVC-ClinicDB divided at random, as SynDiff and SDSeg divide it: 492 training, 60 validation and 60 test frames.

    python runs/syndiff_random_split.py $MORPHOGEN_DATA/polyps/cvc_clinicdb OUT

OUT becomes a folder of links to the frames (copies where links fail) with a records.csv that states the split; a study
on OUT takes it as it stands. Ids are sorted, then shuffled by seed 0: the papers took the first frames of an unsorted
listing, which nobody can repeat. The frames come from 29 video sequences, and this split mixes them: test frames have
near-duplicates in the training part, and scores on it say little about a new patient. records.csv keeps the sequences
as subjects, so that study and audit count them and intervals resample them. Takes a second.
"""

from __future__ import annotations

import csv
import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from morphogen.data.readers import read_dataset
from morphogen.data.records import Dataset, Record
from morphogen.errors import InputError, MorphogenError
from morphogen.training.rng import numpy_rng

SEED, PARTS = 0, {"train": 492, "val": 60, "test": 60}


def link_folder(records: Iterable[Record], out: Path, rows: Iterable[Mapping[str, str]]) -> None:
    """Write images/ and masks/ as links (copies where the system has none), then records.csv of these rows.

    Raises:
        InputError: `out` holds something.
    """
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out}: is not empty; name a new folder")
    for record in records:
        for part, file in (("images", record.image), ("masks", record.mask)):
            if file is None:
                continue
            beside = out / part / f"{record.id}{file.suffix}"
            beside.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.symlink(file.resolve(), beside)
            except OSError:
                shutil.copyfile(file, beside)
    written = list(rows)
    with (out / "records.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(written[0]))
        writer.writeheader()
        writer.writerows(written)


def split(dataset: Dataset) -> dict[str, str]:
    """Id -> part, by sorted ids in a seeded order.

    Raises:
        InputError: The set has another number of frames.
    """
    ids = sorted(dataset.annotated.ids)
    if len(ids) != sum(PARTS.values()):
        raise InputError(
            f"{dataset.root}: holds {len(ids)} annotated frames, not the 612 of CVC-ClinicDB; name its folder"
        )
    names = [name for name, n in PARTS.items() for _ in range(n)]
    order = numpy_rng(SEED, "syndiff", "random split").permutation(len(ids))
    return dict(sorted((ids[i], name) for i, name in zip(order, names, strict=True)))


def main() -> None:
    data, out = map(Path, sys.argv[1:])
    dataset = read_dataset(data)
    parts = split(dataset)
    rows = [{"id": r.id, "subject": r.subject or "", "split": parts[r.id]} for r in dataset if r.id in parts]
    link_folder(dataset.select(parts), out, rows)
    sequences = [{row["subject"] for row in rows if row["split"] == part} for part in ("train", "test")]
    print(f"{out}: " + ", ".join(f"{n} {name}" for name, n in PARTS.items()))
    both = f"{len(sequences[0] & sequences[1])} of {len(sequences[1])} sequences with test frames"
    print(
        f"warning: {both} have training frames too: its scores are scores on near-duplicates; the headline is "
        "the study by sequence"
    )


if __name__ == "__main__":
    try:
        main()
    except MorphogenError as error:
        sys.exit(str(error))
    except ValueError:
        sys.exit(str(__doc__))
