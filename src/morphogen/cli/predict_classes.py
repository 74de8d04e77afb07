"""What ``morphogen predict`` does with a classifier: one table of class probabilities."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from morphogen.classifiers.predictor import PREDICTIONS, load_classifier, write_predictions
from morphogen.data.images import load_rgb
from morphogen.data.pairs import say_holes
from morphogen.data.records import Record
from morphogen.errors import InputError
from morphogen.files import write_json
from morphogen.progress import Stage, say

_NOTE = "predictions.json"


def predict_classes(run: Path, records: Sequence[Record], out: Path, batch_size: int, device: str) -> dict[str, Any]:
    """Write ``predictions.csv``, anew where an earlier call with the same classifier wrote it.

    Args:
        run: Run folder of the classifier.
        records: The images.
        out: Folder to write.
        batch_size: Images that pass the network together.
        device: Where the network works.

    Raises:
        InputError: No classifier, or a folder that holds something else.
    """
    import numpy as np

    predictor = load_classifier(run, device)
    _claim(out, predictor.hash)
    say_holes(records)
    made = []
    with Stage("predicting", len(records)) as stage:
        for start in range(0, len(records), batch_size):
            part = records[start : start + batch_size]
            made.append(predictor([load_rgb(record) for record in part], batch_size))
            stage.advance(len(part))
    probabilities = np.concatenate(made)
    write_predictions(out / PREDICTIONS, [record.id for record in records], probabilities, predictor.classes)
    say(f"{len(records)} images classified, in {out / PREDICTIONS}")
    counts = np.bincount(probabilities.argmax(axis=1), minlength=len(predictor.classes))
    return {
        "out": str(out),
        "n": len(records),
        "classifier": predictor.config["classifier"],
        "classes": list(predictor.classes),
        "predicted": dict(zip(predictor.classes, counts.tolist(), strict=True)),
        "hash": predictor.hash,
    }


def _claim(out: Path, digest: str) -> None:
    """Make `out` the folder of this classifier's predictions, or refuse what lies there."""
    path = out / _NOTE
    if path.is_file():
        try:
            known = json.loads(path.read_text())["hash"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: is not the note of an earlier call; name another --out") from error
        if known != digest:
            raise InputError(f"{out}: holds the predictions of another run; name another --out")
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: holds other files; name a new or empty --out folder")
    out.mkdir(parents=True, exist_ok=True)
    write_json(path, {"hash": digest})
