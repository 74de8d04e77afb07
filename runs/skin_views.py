"""ISIC 2017 divided as the shipped foundation was, and PH2 with ISIC's names of classes, for a study of skin lesions.

    python runs/skin_views.py $MORPHOGEN_DATA/skin OUT
    morphogen study OUT/isic2017 --test ph2=OUT/ph2 ...

`tiny` was trained on four fifths of ISIC 2017; splits/foundation.json lists the others, which become the test part here
(those that look like a training image by their hash are left out). The rest is the training part. PH2, which `tiny`
never saw, calls its moles common or atypical: both become nevus. It has no seborrheic keratosis. OUT holds two folders
of links with a records.csv each. Takes a minute.
"""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from pathlib import Path

from syndiff_random_split import link_folder

from morphogen.audit.leakage import find_overlaps
from morphogen.data.readers import read_dataset
from morphogen.errors import MorphogenError
from morphogen.foundation.model import CARD, TINY

FROZEN = Path(__file__).parents[1] / "splits" / "foundation.json"
NAMES = {"common_nevus": "nevus", "atypical_nevus": "nevus"}


def table(data: Path) -> dict[str, dict[str, str]]:
    """Rows of a records.csv by id."""
    with (data / "records.csv").open(newline="", encoding="utf-8") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


def divide(data: Path, out: Path) -> None:
    """ISIC 2017 with the foundation's split."""
    held_out = json.loads(FROZEN.read_text(encoding="utf-8"))["sets"]["isic2017"]["held_out"]
    records, rows = read_dataset(data).annotated, table(data)
    test = records.select(held_out)
    card = json.loads((TINY / CARD).read_text(encoding="utf-8"))
    known = {overlap.id for overlap in find_overlaps(test, card)}
    kept = records.where(lambda record: record.id not in known)
    parts = {record.id: "test" if record.id in test.ids else "train" for record in kept}
    facts = [{k: rows[id_][k] for k in ("id", "class", "age", "sex")} | {"split": part} for id_, part in parts.items()]
    link_folder(kept, out, facts)
    for part in ("train", "test"):
        print(f"{out}, {part}: {dict(Counter(row['class'] for row in facts if row['split'] == part))}")
    if known:
        print(f"left out, since they look like training images of tiny: {', '.join(sorted(known))}")


def rename(data: Path, out: Path) -> None:
    """PH2 with ISIC's classes."""
    records, rows = read_dataset(data).annotated, table(data)
    facts = [
        {"id": r.id, "class": NAMES.get(rows[r.id]["class"], rows[r.id]["class"]), "split": "test"} for r in records
    ]
    link_folder(records, out, facts)
    print(f"{out}: {dict(Counter(row['class'] for row in facts))}")


def main() -> None:
    data, out = map(Path, sys.argv[1:])
    divide(data / "isic2017", out / "isic2017")
    rename(data / "ph2", out / "ph2")


if __name__ == "__main__":
    try:
        main()
    except MorphogenError as error:
        sys.exit(str(error))
    except ValueError:
        sys.exit(str(__doc__))
