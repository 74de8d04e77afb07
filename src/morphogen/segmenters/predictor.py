"""A trained segmenter on disk (config.json + model.safetensors), and at work on images of any size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from morphogen.errors import InputError
from morphogen.segmenters import build
from morphogen.segmenters.any_size import AnySize
from morphogen.training.net_files import TrainedNet, save_net, to_input


def save_segmenter(
    folder: Path,
    net: nn.Module,
    name: str,
    architecture: Mapping[str, Any],
    classes: Sequence[str],
    resolution: int,
    notes: Mapping[str, Any] | None = None,
) -> None:
    """Write config.json and model.safetensors into `folder`.

    Args:
        folder: Existing folder.
        net: The network, as `morphogen.segmenters.build` made it.
        name: Segmenter.
        architecture: Its resolved options: no ``auto``.
        classes: Class names by label id.
        resolution: Side in px at which it was trained and predicts.
        notes: What else config.json shall say of it.
    """
    state = net.saved_state() if isinstance(net, AnySize) else net.state_dict()
    config = {
        "segmenter": name,
        "architecture": dict(architecture),
        "n_classes": len(classes),
        "classes": list(classes),
        "resolution": resolution,
        **(notes or {}),
    }
    save_net(folder, state, config)


def load_segmenter(run: Path, device: str | torch.device = "cpu") -> Predictor:
    """The segmenter of a finished run.

    Args:
        run: Run folder, or its ``final`` folder itself.
        device: Where it shall work.

    Raises:
        InputError: `run` holds no finished segmenter, or its files are damaged.
    """
    return Predictor.load(run, build, device)


@dataclass(frozen=True)
class Sampling:
    """How a segmenter that draws noise predicts; None for what its own config says.

    Attributes:
        steps: Of its denoiser.
        ensemble: Start noises whose probabilities are averaged.
        seed: Of the start noise.
    """

    steps: int | None = None
    ensemble: int | None = None
    seed: int | None = None

    @property
    def given(self) -> dict[str, int]:
        """The settings that are stated."""
        return {name: value for name, value in asdict(self).items() if value is not None}


class Predictor(TrainedNet):
    """A trained segmenter."""

    kind: ClassVar[str] = "segmenter"
    sampling = Sampling()
    """How it predicts."""

    def with_sampling(self, sampling: Sampling) -> Predictor:
        """Change how it predicts; returns itself.

        Raises:
            InputError: The segmenter draws no noise, or a setting is out of range.
        """
        check = getattr(self.net, "check_sampling", None)
        if sampling.given and check is None:
            first = next(iter(sampling.given))
            raise InputError(f"--{first}: the segmenter {self.config['segmenter']} has no such setting; leave it out")
        if check is not None:
            check(**sampling.given)
        self.sampling = sampling
        return self

    def __call__(self, images: Sequence[NDArray[np.uint8]], batch_size: int = 32) -> list[NDArray[np.int64]]:
        """Label maps at native size: the class of the largest probability, after these were resized.

        Args:
            images: Each (H, W, 3) uint8, of any size.
            batch_size: Images that pass the network together.

        Returns:
            One (H, W) int64 label map per image.
        """
        return [p.argmax(dim=0).numpy() for p in self._probabilities(images, batch_size)]

    def probabilities(self, images: Sequence[NDArray[np.uint8]], batch_size: int = 32) -> list[NDArray[np.float32]]:
        """Class probabilities at native size, (K, H, W) float32 per image; arguments as in a call."""
        return [p.numpy() for p in self._probabilities(images, batch_size)]

    def uncertainty(
        self, images: Sequence[NDArray[np.uint8]], batch_size: int = 32
    ) -> list[tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]]:
        """Probabilities of an ensemble at native size, and where its members disagree.

        Args:
            images: Each (H, W, 3) uint8, of any size.
            batch_size: Images that pass the network together.

        Returns:
            For each image: class probabilities (K, H, W); standard deviation over the members (H, W) in [0, 0.5], of
            the class where it is largest; entropy of the probabilities (H, W) as a part of log K, in [0, 1].

        Raises:
            InputError: The segmenter has no ensemble.
        """
        if not hasattr(self.net, "check_sampling"):
            raise InputError(f"--uncertainty: the segmenter {self.config['segmenter']} draws no noise; leave it out")
        made = self._sized(images, batch_size, self._with_uncertainty)
        return [(maps[:-2].numpy(), maps[-2].numpy(), maps[-1].numpy()) for maps in made]

    def _probabilities(self, images: Sequence[NDArray[np.uint8]], batch_size: int) -> Iterator[Tensor]:
        return self._sized(images, batch_size, self._plain)

    @torch.no_grad()
    def _sized(
        self, images: Sequence[NDArray[np.uint8]], batch_size: int, maps_of: Callable[[Tensor], Tensor]
    ) -> Iterator[Tensor]:
        """The maps (B, M, R, R) of every image at its native size, (M, H, W)."""
        device = next(self.net.parameters()).device
        for start in range(0, len(images), batch_size):
            part = images[start : start + batch_size]
            small = to_input(self.resized(part)).to(device)
            for image, maps in zip(part, maps_of(small).cpu(), strict=True):
                yield F.interpolate(maps[None], size=image.shape[:2], mode="bilinear", align_corners=False)[0]

    def _plain(self, image: Tensor) -> Tensor:
        """(B, 3, R, R) -> (B, K, R, R) probabilities."""
        net: Any = self.net
        if self.sampling.given:
            probabilities: Tensor = net.predict_probabilities(image, **self.sampling.given).probabilities
            return probabilities
        made: Tensor = net(image).softmax(dim=1)
        return made

    def _with_uncertainty(self, image: Tensor) -> Tensor:
        """(B, 3, R, R) -> (B, K + 2, R, R): probabilities, standard deviation and entropy."""
        net: Any = self.net
        found = net.predict_probabilities(image, **self.sampling.given)
        return torch.cat([found.probabilities, found.std[:, None], found.entropy[:, None]], dim=1)
