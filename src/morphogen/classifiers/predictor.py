"""A trained classifier on disk (config.json + model.safetensors), and at work on images of any size."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from morphogen.classifiers import build
from morphogen.files import write_text
from morphogen.training.net_files import TrainedNet, save_net, to_input

PREDICTIONS = "predictions.csv"


def probabilities_of(net: nn.Module, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(B, 3, R, R) uint8 -> (B, K) class probabilities, rows summing to 1; the net's mode is left as it is."""
    with torch.no_grad():
        logits = net(to_input(images).to(next(net.parameters()).device))
    made: NDArray[np.float64] = logits.float().cpu().double().softmax(dim=1).numpy()
    return made


def save_classifier(
    folder: Path,
    net: nn.Module,
    name: str,
    architecture: Mapping[str, Any],
    classes: Sequence[str],
    resolution: int,
) -> None:
    """Write config.json and model.safetensors into `folder`.

    Args:
        folder: Existing folder.
        net: The network, as `morphogen.classifiers.build` made it.
        name: Classifier.
        architecture: All its options.
        classes: Class names by id.
        resolution: Side in px at which it was trained and predicts.
    """
    config = {
        "classifier": name,
        "architecture": dict(architecture),
        "classes": list(classes),
        "resolution": resolution,
    }
    save_net(folder, net.state_dict(), config)


def load_classifier(run: Path, device: str | torch.device = "cpu") -> ClassPredictor:
    """The classifier of a finished run.

    Args:
        run: Run folder, or its ``final`` folder itself.
        device: Where it shall work.

    Raises:
        InputError: `run` holds no finished classifier, or its files are damaged.
    """
    return ClassPredictor.load(run, build, device)


class ClassPredictor(TrainedNet):
    """A trained classifier."""

    kind: ClassVar[str] = "classifier"

    def __call__(self, images: Sequence[NDArray[np.uint8]], batch_size: int = 32) -> NDArray[np.float64]:
        """Class probabilities.

        Args:
            images: Each (H, W, 3) uint8, of any size.
            batch_size: Images that pass the network together.

        Returns:
            (N, K), rows summing to 1.
        """
        made = [np.empty((0, len(self.classes)))]
        for start in range(0, len(images), batch_size):
            made.append(probabilities_of(self.net, self.resized(images[start : start + batch_size])))
        return np.concatenate(made)

    def by_name(self, images: Sequence[NDArray[np.uint8]]) -> list[dict[str, float]]:
        """Of every image, class -> probability."""
        return [dict(zip(self.classes, row.tolist(), strict=True)) for row in self(images)]


def write_predictions(
    path: Path,
    ids: Sequence[str],
    probabilities: NDArray[np.float64],
    classes: Sequence[str],
    truth: Sequence[str] | None = None,
) -> None:
    """A CSV of one row per image: id, class in truth (where known), predicted class, probability of every class.

    Args:
        path: File to write.
        ids: N image ids.
        probabilities: (N, K).
        classes: K names.
        truth: N names.
    """
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    table.writerow(["id", *(["class"] if truth else []), "predicted", *(f"p({name})" for name in classes)])
    for i, (name, row) in enumerate(zip(ids, probabilities, strict=True)):
        known = [truth[i]] if truth else []
        table.writerow([name, *known, classes[int(row.argmax())], *(f"{p:.6f}" for p in row)])
    write_text(path, file.getvalue())
