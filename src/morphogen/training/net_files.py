"""A trained network on disk: config.json says what it is, model.safetensors holds its weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from morphogen.data.pairs import resize_image
from morphogen.errors import InputError

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def to_input(images: NDArray[np.uint8]) -> Tensor:
    """(B, 3, H, W) uint8 -> (B, 3, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(images).float() / 127.5 - 1


def save_net(folder: Path, state: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Write what `StoredNet.read` reads.

    Args:
        folder: Existing folder.
        state: The network's tensors.
        config: Its name under its kind, ``classes``, what it takes to make the network again (of a `TrainedNet`
            ``architecture`` and ``resolution``), and what else shall be said.
    """
    save_file({key: value.detach().cpu().contiguous() for key, value in state.items()}, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n")


KINDS = ("segmenter", "classifier", "volume_segmenter")
"""What a finished run may hold: each is the key of the network's name in config.json."""


def kind_of(run: Path) -> str | None:
    """What a finished run holds, one of `KINDS`; None where its config.json says none of them."""
    folder = _final(run)
    try:
        config = json.loads((folder / CONFIG).read_text())
    except (OSError, ValueError):
        return None
    return next((kind for kind in KINDS if isinstance(config, dict) and kind in config), None)


def _final(run: Path) -> Path:
    return run / "final" if (run / "final").is_dir() else run


class StoredNet:
    """A trained network, and what its config.json says.

    Attributes:
        kind: What it is, and the key of its name in config.json.
        classes: Class names by id.
        config: What config.json says: its name under `kind`, its classes, and what else it takes to make it again.
    """

    kind: ClassVar[str]

    def __init__(self, net: nn.Module, config: Mapping[str, Any], folder: Path) -> None:
        self.net = net
        self.config = config
        self.folder = folder
        self.classes: tuple[str, ...] = tuple(config["classes"])

    @classmethod
    def read(cls, run: Path, make: Callable[[Mapping[str, Any]], nn.Module], device: str | torch.device) -> Self:
        """The network of a finished run.

        Args:
            run: Run folder, or its ``final`` folder itself.
            make: The network that a config describes, with any weights.
            device: Where it shall work.

        Raises:
            InputError: `run` holds no finished network of this kind, or its files are damaged.
        """
        folder = _final(run)
        for file in (folder / CONFIG, folder / WEIGHTS):
            if not file.is_file():
                what = cls.kind.replace("_", " ")
                raise InputError(f"{run}: holds no finished {what} ({file.name} is missing); name a run of `train`")
        try:
            config = json.loads((folder / CONFIG).read_text())
            net = make(config)
            net.load_state_dict(load_file(folder / WEIGHTS), strict=True)
            return cls(net.to(device).eval(), config, folder)
        except InputError:
            raise
        except Exception as error:  # JSON, keys, shapes, safetensors: whatever a damaged file makes of itself
            line = " ".join(str(error).split())[:200]
            fault = f"is not a {cls.kind.replace('_', ' ')} that this version reads ({line}); train it again"
            raise InputError(f"{folder}: {fault}") from error

    @cached_property
    def hash(self) -> str:
        """SHA-256 of config and weights, for provenance."""
        digest = hashlib.sha256()
        for name in (CONFIG, WEIGHTS):
            digest.update((self.folder / name).read_bytes())
        return digest.hexdigest()


class TrainedNet(StoredNet):
    """A trained network of images.

    Attributes:
        resolution: Side in px at which the network sees every image.
    """

    def __init__(self, net: nn.Module, config: Mapping[str, Any], folder: Path) -> None:
        super().__init__(net, config, folder)
        self.resolution: int = config["resolution"]

    @classmethod
    def load(cls, run: Path, build: Callable[..., nn.Module], device: str | torch.device) -> Self:
        """The network of a finished run.

        Args:
            run: Run folder, or its ``final`` folder itself.
            build: ``(name, n_classes, architecture, pretrained) -> nn.Module``.
            device: Where it shall work.

        Raises:
            InputError: As of `read`.
        """

        def make(config: Mapping[str, Any]) -> nn.Module:
            return build(config[cls.kind], len(config["classes"]), config["architecture"], pretrained=False)

        return cls.read(run, make, device)

    def resized(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 images of any size -> (B, 3, R, R) uint8."""
        return np.stack([resize_image(image, self.resolution).transpose(2, 0, 1) for image in images])
