"""The frames of Kvasir-SEG that the shipped foundation never saw, as a further test set of a study.

    python runs/kvasir_held_out.py $MORPHOGEN_DATA/polyps/kvasir_seg OUT
    morphogen study ... --test kvasir=OUT

`tiny` was trained on four fifths of Kvasir-SEG; splits/foundation.json lists the others, whole groups of
near-duplicates. Of these it leaves out what looks like a training frame by its hash alone (one frame). A study refuses
the whole set as a test set, and takes this part. OUT is a folder of links. Takes some seconds.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from syndiff_random_split import link_folder

from morphogen.audit.leakage import find_overlaps
from morphogen.data.readers import read_dataset
from morphogen.errors import MorphogenError
from morphogen.foundation.model import CARD, TINY

FROZEN = Path(__file__).parents[1] / "splits" / "foundation.json"


def main() -> None:
    data, out = map(Path, sys.argv[1:])
    held_out = json.loads(FROZEN.read_text(encoding="utf-8"))["sets"]["kvasir_seg"]["held_out"]
    held = read_dataset(data).select(held_out)
    card = json.loads((TINY / CARD).read_text(encoding="utf-8"))
    known = {overlap.id for overlap in find_overlaps(held, card)}
    records = held.where(lambda record: record.id not in known)
    link_folder(records, out, [{"id": record.id, "split": "test"} for record in records])
    print(f"{out}: {len(records)} frames that tiny was not trained on")
    if known:
        print(f"left out, since they look like training frames: {', '.join(sorted(known))}")


if __name__ == "__main__":
    try:
        main()
    except MorphogenError as error:
        sys.exit(str(error))
    except ValueError:
        sys.exit(str(__doc__))
