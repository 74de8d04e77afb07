"""``morphogen eval classes``: a trained classifier on images whose class is known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from morphogen.cli.verb import Verb
from morphogen.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from morphogen.classifiers.predictor import ClassPredictor
    from morphogen.data.records import Dataset

PROTOCOL = (
    "{definitions}; recall: share of the images of a class that were found. ci95: bootstrap over subjects, then their "
    "images (an image without a subject is its own), the scores taken anew of every resampled set."
)


@dataclass(frozen=True, kw_only=True)
class Classes(Verb):
    """Score a classifier: accuracy, balanced accuracy, macro-F1, AUC, calibration error, and the recall of every class.

    Where the data state a split with a test part, that part alone is scored, else all images. Intervals resample
    subjects, then images.
    """

    run_folder: tyro.conf.Positional[Path]
    """Run folder of a classifier (of `train`, or one in a study's runs/)."""
    data: tyro.conf.Positional[Path]
    """Folder of images with their classes (column class of records.csv); masks are not needed."""
    out: Path | None = None
    """CSV to write: of every image its class, the predicted one and the probability of each."""
    batch_size: int = 32
    """Images that pass the network together."""

    def run(self) -> dict[str, Any]:
        """Score the classifier.

        Raises:
            InputError: No classifier, images without a class, or with one that the classifier does not know.
        """
        import torch

        from morphogen.classifiers.labels import class_ids
        from morphogen.classifiers.predictor import load_classifier, write_predictions
        from morphogen.cli.labelled import read_labelled

        if self.batch_size < 1:
            raise InputError(f"--batch-size {self.batch_size}: is not positive; give at least 1")
        if self.out is not None and not self.out.absolute().parent.is_dir():
            raise InputError(f"{self.out}: its folder does not exist; make it first or name another file")
        predictor = load_classifier(self.run_folder, "cuda" if torch.cuda.is_available() else "cpu")
        data = read_labelled(self.data)
        if test := data.where(lambda record: record.split == "test"):
            data = test
        self._refuse_unknown(data, predictor)
        truth = class_ids(data, predictor.classes)
        probabilities = self._probabilities(data, predictor)
        if self.out is not None:
            names = [predictor.classes[k] for k in truth]
            write_predictions(self.out, data.ids, probabilities, predictor.classes, names)
        result = _result(data, predictor, probabilities, truth)
        _print(result)
        return result

    def _refuse_unknown(self, data: Dataset, predictor: ClassPredictor) -> None:
        for record in data:
            if record.label and record.label not in predictor.classes:
                known = ", ".join(predictor.classes)
                fault = f"record {record.id!r} is of class {record.label!r}, and the classifier knows {known}"
                raise InputError(f"{self.data}: {fault}; correct its class, or leave these records out")

    def _probabilities(self, data: Dataset, predictor: ClassPredictor) -> NDArray[np.float64]:
        import numpy as np

        from morphogen.data.images import load_rgb
        from morphogen.progress import track

        size = self.batch_size
        parts = [data.records[start : start + size] for start in range(0, len(data), size)]
        return np.concatenate(
            [predictor([load_rgb(record) for record in part], size) for part in track(parts, "classifying", len(parts))]
        )


def _result(
    data: Dataset, predictor: ClassPredictor, probabilities: NDArray[np.float64], truth: list[int]
) -> dict[str, Any]:
    import numpy as np

    from morphogen.metrics.classification import METRICS, classification_scores
    from morphogen.study.classified import RECALL, estimates

    classes = predictor.classes
    rows = {
        record.id: {"subject": record.subject, "class": classes[k], "p": dict(zip(classes, p.tolist(), strict=True))}
        for record, k, p in zip(data, truth, probabilities, strict=True)
    }
    found = estimates([rows])
    scores = classification_scores(probabilities, np.array(truth), classes)
    for name, row in scores["per_class"].items():
        row["recall_ci95"] = found[RECALL + name].ci95 if RECALL + name in found else None
    return {
        "n": len(data),
        "n_subjects": len({record.subject or record.id for record in data}),
        "classes": list(classes),
        "metrics": {
            name: {"value": scores[name], "ci95": found[name].ci95 if name in found else None} for name in METRICS
        },
        "per_class": scores["per_class"],
        "confusion": scores["confusion"],
        "classifier": predictor.config["classifier"],
        "hash": predictor.hash,
        "protocol": PROTOCOL.format(definitions="; ".join(f"{n}: {m.definition}" for n, m in METRICS.items())),
    }


def _print(result: dict[str, Any]) -> None:
    print(f"{result['n']} images of {result['n_subjects']} subjects")
    rows = [(name, found["value"], found["ci95"]) for name, found in result["metrics"].items()]
    rows += [(f"recall of {name}", row["recall"], row["recall_ci95"]) for name, row in result["per_class"].items()]
    for name, value, interval in rows:
        shown = "undefined" if value is None else f"{value:.4f}"
        print(
            f"  {name:<30}{shown:>9}"
            + ("" if interval is None else "  95 % interval {:.4f} to {:.4f}".format(*interval))
        )
    print(result["protocol"])
