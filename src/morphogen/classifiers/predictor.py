"""A trained classifier on disk (config.json + model.safetensors), and at work on images of any size."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from morphogen.classifiers import build
from morphogen.data.pairs import resize_image
from morphogen.errors import InputError
from morphogen.files import write_text

CONFIG, WEIGHTS, PREDICTIONS = "config.json", "model.safetensors", "predictions.csv"


def to_input(images: NDArray[np.uint8]) -> Tensor:
    """(B, 3, H, W) uint8 -> (B, 3, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(images).float() / 127.5 - 1


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
    state = net.state_dict()
    save_file({key: value.detach().cpu().contiguous() for key, value in state.items()}, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n")


def load_classifier(run: Path, device: str | torch.device = "cpu") -> ClassPredictor:
    """The classifier of a finished run.

    Args:
        run: Run folder, or its ``final`` folder itself.
        device: Where it shall work.

    Raises:
        InputError: `run` holds no finished classifier, or its files are damaged.
    """
    folder = run / "final" if (run / "final").is_dir() else run
    for file in (folder / CONFIG, folder / WEIGHTS):
        if not file.is_file():
            raise InputError(f"{run}: holds no finished classifier ({file.name} is missing); name a run of `train`")
    try:
        config = json.loads((folder / CONFIG).read_text())
        net = build(config["classifier"], len(config["classes"]), config["architecture"], pretrained=False)
        net.load_state_dict(load_file(folder / WEIGHTS), strict=True)
        return ClassPredictor(net.to(device).eval(), config, folder)
    except InputError:
        raise
    except Exception as error:  # JSON, keys, shapes, safetensors: whatever a damaged file makes of itself
        line = " ".join(str(error).split())[:200]
        raise InputError(f"{folder}: is not a classifier that this version reads ({line}); train it again") from error


class ClassPredictor:
    """A trained classifier.

    Attributes:
        resolution: Side in px at which the network sees every image.
        classes: Class names by id.
        config: What config.json says: classifier, architecture, classes, resolution.
    """

    def __init__(self, net: nn.Module, config: Mapping[str, Any], folder: Path) -> None:
        self.net = net
        self.config = config
        self.folder = folder
        self.resolution: int = config["resolution"]
        self.classes: tuple[str, ...] = tuple(config["classes"])

    @cached_property
    def hash(self) -> str:
        """SHA-256 of config and weights, for provenance."""
        digest = hashlib.sha256()
        for name in (CONFIG, WEIGHTS):
            digest.update((self.folder / name).read_bytes())
        return digest.hexdigest()

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
            part = images[start : start + batch_size]
            small = [resize_image(image, self.resolution).transpose(2, 0, 1) for image in part]
            made.append(probabilities_of(self.net, np.stack(small)))
        return np.concatenate(made)


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
