"""Freeze what `tiny` may be trained on: four fifths of each set whose licence allows it, by near-duplicate groups.

    python runs/freeze_foundation_split.py OUT kvasir_seg=$MORPHOGEN_DATA/polyps/kvasir_seg isic2017=...

Takes seconds. The held-out fifths belong to tests and external test sets; every other set is held out whole.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from morphogen.data.duplicates import groups_of, near_duplicate_pairs, signatures
from morphogen.data.readers import read_dataset
from morphogen.training.rng import numpy_rng

SEED, HELD_OUT = 0, 0.2


def split(path: Path) -> dict[str, list[str]]:
    """Ids by part; near-duplicates stay together."""
    dataset = read_dataset(path)
    groups = groups_of(len(dataset), near_duplicate_pairs(signatures(dataset)))
    order = numpy_rng(SEED, "foundation", dataset.name).permutation(max(groups) + 1)
    held: set[int] = set()
    for group in order:
        if sum(g in held for g in groups) >= HELD_OUT * len(dataset):
            break
        held.add(int(group))
    parts: dict[str, list[str]] = {"train": [], "held_out": []}
    for record, group in zip(dataset, groups, strict=True):
        parts["held_out" if group in held else "train"].append(record.id)
    return parts


def main() -> None:
    out, *sets = sys.argv[1:]
    frozen = {name: split(Path(path)) for name, _, path in (item.partition("=") for item in sets)}
    Path(out).write_text(json.dumps({"seed": SEED, "sets": frozen}, indent=1) + "\n")
    for name, parts in frozen.items():
        print(name, {part: len(ids) for part, ids in parts.items()})


if __name__ == "__main__":
    main()
