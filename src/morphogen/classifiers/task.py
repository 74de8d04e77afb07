"""Training a classifier: labelled images in, a folder with config.json and model.safetensors out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from morphogen.classifiers import build, entry, refuse_size, resolve
from morphogen.classifiers.config import SELECTIONS, ClassifierConfig
from morphogen.classifiers.labels import class_ids, classes_of
from morphogen.classifiers.predictor import PREDICTIONS, probabilities_of, save_classifier, write_predictions
from morphogen.data.augment import affine_maps, warp_pairs
from morphogen.metrics.classification import METRICS
from morphogen.training.balance import Balance
from morphogen.training.loop import fit
from morphogen.training.net_files import to_input
from morphogen.training.rng import seed_of
from morphogen.training.supervised import Source, digest, one_resolution, parameter_groups
from morphogen.training.task import Batch, Draw, Phase, Progress

_TIE = 1e-6
"""Weight of the cross-entropy in the score, far below any step of the score itself."""


class LabelledSource(Source, Protocol):
    """What `morphogen.data.pairs.Pairs` offers: ``source.image(i) -> (3, R, R) uint8`` of ``dataset[i]``."""

    def image(self, index: int, /) -> NDArray[np.uint8]: ...


class ClassifierTask:
    """Cross-entropy on augmented images; the validation part's macro-F1 or balanced accuracy selects the weights."""

    def __init__(
        self,
        name: str,
        train: Sequence[LabelledSource],
        val: LabelledSource,
        config: ClassifierConfig,
        absent: bool = False,
    ) -> None:
        """Builds the network, its random parts from the config's seed.

        Args:
            name: Classifier.
            train: Sources of labelled images, joined end to end (real, synthetic, ...); their masks are not read.
            val: Labelled images; may be empty, then the last weights are kept.
            config: How to train.
            absent: Whether a class that the config states may have no training records.

        Raises:
            InputError: A record without a class or of an unknown one, a class without training records, sources of
                several resolutions, or the classifier cannot be built.
        """
        self.name, self.val = name, val
        self.resolution = one_resolution([*train, val])
        refuse_size(name, self.resolution)
        self.classes = classes_of([source.dataset for source in train], config.classes, absent)
        self.lr = entry(name).lr if config.lr is None else config.lr
        self.config = replace(config, lr=self.lr, classes=self.classes)
        self.architecture = resolve(name, config.architecture)
        self.items = [(source, i) for source in train for i in range(len(source))]
        self.labels = np.array([k for source in train for k in class_ids(source.dataset, self.classes)])
        self.truth = np.array(class_ids(val.dataset, self.classes), dtype=np.int64)
        self.balance = Balance(self.labels.tolist(), config.class_balance)
        counts = np.bincount(self.labels, minlength=len(self.classes)).astype(np.float64)
        even = counts.sum() / np.count_nonzero(counts)  # what a class has on average; one without rows needs no weight
        self.weights = torch.tensor((even / np.maximum(counts, 1)) ** config.weighting, dtype=torch.float32)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(config.seed, "classifier", name))
            self.net = build(name, len(self.classes), self.architecture)
        self.modules = nn.ModuleDict({"net": self.net})

    def __len__(self) -> int:
        return len(self.items)

    def phases(self) -> Sequence[Phase]:
        """One phase over all parameters: those of the encoder have their learning rate, those of one axis no decay."""
        config = self.config
        return [
            Phase(
                "classifier",
                list(self.net.parameters()),
                self.loss,
                lr=self.lr,
                schedule=config.lr_scheduler,
                warmup=config.warmup,
                groups=parameter_groups(self.net, config, norm_decay=False),
            )
        ]

    def batch(self, draws: Sequence[Draw]) -> Batch:
        """The images of `draws`: image (B, 3, R, R) in [-1, 1], label (B,) int64, seed (B,) int64."""
        chosen = [self.balance.item(draw) for draw in draws]
        images = to_input(np.stack([source.image(i) for source, i in (self.items[k] for k in chosen)]))
        seeds = torch.tensor([draw.seed for draw in draws])
        if self.config.augmentation == "geometric":
            no_masks = torch.zeros_like(images[:, 0], dtype=torch.uint8)
            images, _ = warp_pairs(images, no_masks, affine_maps(seeds))
        return {"image": images, "label": torch.from_numpy(self.labels[chosen]), "seed": seeds}

    def loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        """Cross-entropy of the rows, each times the weight of its class.

        A plain mean over rows, not divided by the weights that happen to be in the batch: so its parts add up.
        """
        label = batch["label"]
        rows = F.cross_entropy(self.net(batch["image"]).float(), label, reduction="none")
        return {"cross_entropy": (rows * self.weights.to(rows.device)[label]).mean()}

    def to(self, device: Any) -> None:
        """Nothing lies outside `modules` but the weights of the classes, which follow the batch."""

    def validate(self, step: int) -> Mapping[str, float]:
        """Scores on the validation images; where two looks are equal by ``select_by``, the lower cross-entropy wins."""
        if not len(self.val):
            return {}
        probabilities = self._probabilities()
        found = {name: METRICS[name].score(probabilities, self.truth) for name in ("accuracy", *SELECTIONS)}
        true = probabilities[np.arange(len(self.truth)), self.truth]
        entropy = float(-np.log(np.maximum(true, 1e-12)).mean())
        score = found[self.config.select_by] - _TIE * entropy
        return {"score": score, **found, "cross_entropy": entropy}

    def _probabilities(self) -> NDArray[np.float64]:
        """(N, K) of the validation images."""
        n = len(self.val)
        parts = [range(start, min(start + 32, n)) for start in range(0, n, 32)]
        return np.concatenate(
            [probabilities_of(self.net, np.stack([self.val.image(i) for i in part])) for part in parts]
        )

    def preview(self, step: int, folder: Path) -> None:
        """A class is no picture."""

    def save(self, folder: Path) -> None:
        """Write what `load_classifier` reads, and predictions.csv of the validation images."""
        save_classifier(folder, self.net, self.name, self.architecture, self.classes, self.resolution)
        if len(self.val):
            truth = [self.classes[k] for k in self.truth]
            write_predictions(folder / PREDICTIONS, self.val.dataset.ids, self._probabilities(), self.classes, truth)


def train_classifier(
    name: str,
    train: LabelledSource | Sequence[LabelledSource],
    val: LabelledSource,
    config: ClassifierConfig,
    out: Path,
    absent: bool = False,
) -> Path:
    """Train a classifier; called again, continue where it stopped.

    Args:
        name: Classifier (a key of `CLASSIFIERS`).
        train: Labelled training images, or several sources of them, joined end to end.
        val: Labelled validation images, which select the weights that are kept.
        config: How to train.
        out: Run folder.
        absent: Whether a class that the config states may have no training record, as where the pairs of a generator
            are all that is trained on: then it is never learnt.

    Returns:
        `out`, which `load_classifier` reads.

    Raises:
        InputError: As `ClassifierTask`, or `out` holds another run.
        WorkError: The loss is not finite, or the disk is full.
    """
    sources: list[Any] = list(train) if isinstance(train, (list, tuple)) else [train]
    task = ClassifierTask(name, sources, val, config, absent)
    described = {
        "method": name,
        "kind": "classifier",
        "classifier": {**asdict(task.config), "architecture": task.architecture},
        "classes": list(task.classes),
        "resolution": task.resolution,
        "data": {"train": _digest(sources), "val": _digest([val])},
    }
    fit(task, task.config.loop(), out, described, label=f"training {name}")
    return out


def _digest(sources: Sequence[LabelledSource]) -> dict[str, Any]:
    """Of ids and classes."""
    return digest(sources, [[(record.id, record.label) for record in source.dataset] for source in sources])
