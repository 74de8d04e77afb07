"""A trained segmenter of volumes at work on volumes of any size, on the grid of their files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray

from morphogen.data.records import Record
from morphogen.data.volumes.files import Volume, read_volume, shape_of
from morphogen.data.volumes.patches import pad, unpad
from morphogen.data.volumes.preparation import Preparation, prepare
from morphogen.errors import InputError
from morphogen.segmenters.diffcl.components import largest_component
from morphogen.segmenters.diffcl.diffusion import T
from morphogen.segmenters.diffcl.nets import TwoNets, Which, rebuild
from morphogen.training.net_files import StoredNet


@dataclass(frozen=True, kw_only=True)
class VolumeSettings:
    """How a volume is segmented; None for what the run's own config says.

    Attributes:
        network: ``cs``, ``ds``, or ``mean`` of their probabilities.
        steps: DDIM steps of the diffusion network, 1 to 1000.
        seed: Of the diffusion network's start noise, 0 where it is not stated.
        overlap: Part of a window's side that its neighbour shares, in [0, 1).
        stride: Voxels from a window to the next along each axis, in place of `overlap`, as protocols state it.
        windows: Windows that pass the networks together; changes the time and the memory alone.
        largest_component: Keep the largest connected part of every class.

    Raises:
        InputError: A value is out of range.
    """

    network: Which | None = None
    steps: int | None = None
    seed: int | None = None
    overlap: float = 0.5
    stride: tuple[int, int, int] | None = None
    windows: int = 4
    largest_component: bool = False

    def __post_init__(self) -> None:
        if self.steps is not None and not 1 <= self.steps <= T:
            raise InputError(f"--steps {self.steps}: must lie in 1 to {T}")
        if not 0 <= self.overlap < 1:
            raise InputError(f"--overlap {self.overlap}: must lie in 0 to 1, 1 excluded")
        if self.stride is not None and min(self.stride) < 1:
            raise InputError(f"--stride {' '.join(map(str, self.stride))}: must be 1 or more along every axis")
        if self.windows < 1:
            raise InputError(f"--batch-size {self.windows}: is not positive; give at least 1")


class VolumePredictor(StoredNet):
    """A trained segmenter of volumes.

    Attributes:
        net: Its `TwoNets`.
        patch: Sides of a window, in prepared voxels.
        preparation: What is done to a volume before the networks see it.
        channels: Of a volume.
        settings: How it predicts.

    Example:
        >>> predictor = VolumePredictor.load(Path("runs/la"))  # doctest: +SKIP
        >>> labels = predictor(read_volumes("LA", preset="la2018")[0])  # doctest: +SKIP
    """

    kind: ClassVar[str] = "volume_segmenter"
    net: TwoNets

    def __init__(self, net: TwoNets, config: Mapping[str, Any], folder: Path) -> None:
        super().__init__(net, config, folder)
        x, y, z = config["patch"]
        self.patch: tuple[int, int, int] = (x, y, z)
        prepared: dict[str, Any] = {
            name: tuple(v) if isinstance(v, list) else v for name, v in config["preparation"].items()
        }
        self.preparation = Preparation(**prepared)
        self.channels: int = config["networks"]["cs"]["in_channels"]
        self._own = VolumeSettings(network=config["network"], steps=config["steps"])
        net.refuse(config["network"])
        self.settings = VolumeSettings()

    @classmethod
    def load(
        cls, run: Path, device: str | torch.device = "cpu", settings: VolumeSettings | None = None
    ) -> VolumePredictor:
        """The segmenter of a finished run.

        Args:
            run: Run folder, or its ``final`` folder itself.
            device: Where it shall work.
            settings: How it shall predict; the run's own way where left out.

        Raises:
            InputError: `run` holds no finished segmenter of volumes, its files are damaged, or it cannot predict so.
        """
        predictor = cls.read(run, rebuild, device)
        return predictor if settings is None else predictor.with_settings(settings)

    def with_settings(self, settings: VolumeSettings) -> Self:
        """Change how it predicts; returns itself.

        Raises:
            InputError: The run lacks that network, or a setting is of the diffusion network, which is not asked.
        """
        network = settings.network or self.config["network"]
        self.net.refuse(network)
        if settings.stride is not None and any(s > side for s, side in zip(settings.stride, self.patch, strict=True)):
            words, patch = (" ".join(map(str, numbers)) for numbers in (settings.stride, self.patch))
            raise InputError(f"--stride {words}: leaves gaps between windows of {patch}; give at most these sides")
        stated = next((name for name in ("steps", "seed") if getattr(settings, name) is not None), None)
        if network == "cs" and stated is not None:
            remedy = "leave it out" if self.net.ds is None else "add --network ds or mean, or leave it out"
            raise InputError(f"--{stated}: is of the diffusion network, and cs predicts; {remedy}")
        self.settings = settings
        return self

    @property
    def network(self) -> Which:
        """The network that predicts."""
        chosen = self.settings.network or self._own.network
        assert chosen is not None
        return chosen

    @property
    def steps(self) -> int:
        """DDIM steps of the diffusion network."""
        chosen = self.settings.steps or self._own.steps
        assert chosen is not None
        return chosen

    @property
    def seed(self) -> int:
        """Of the diffusion network's start noise."""
        return self.settings.seed or 0

    @property
    def sampling(self) -> dict[str, Any]:
        """The settings that a prediction depends on."""
        noise = {} if self.network == "cs" else {"steps": self.steps, "seed": self.seed}
        component = {"largest_component": True} if self.settings.largest_component else {}
        stride = self.settings.stride
        step = {"overlap": self.settings.overlap} if stride is None else {"stride": list(stride)}
        return {"network": self.network, **noise, **step, **component}

    @property
    def _overlap(self) -> float | tuple[float, ...]:
        """Of windows, along all axes or along each; half a voxel more keeps a stride what it is when it is cut off."""
        if self.settings.stride is None:
            return self.settings.overlap
        return tuple(max(0.0, 1 - (s + 0.5) / side) for s, side in zip(self.settings.stride, self.patch, strict=True))

    def __call__(self, case: Record | Volume) -> NDArray[np.int64]:
        """(X, Y, Z) int64 label ids: the class of the largest of `probabilities`, of equal ones the lowest."""
        labels: NDArray[np.int64] = self.probabilities(case).argmax(axis=0)
        return largest_component(labels) if self.settings.largest_component else labels

    def probabilities(self, case: Record | Volume) -> NDArray[np.float32]:
        """Class probabilities on the grid of the file.

        Where the prepared volume is smaller than a window, it is padded as patches are in training, and the margins
        are cut off again.

        Args:
            case: A record, whose files are read, or a volume that was.

        Returns:
            (K, X, Y, Z) float32, axes in the order of the file (of a `Volume`, in its own).

        Raises:
            InputError: A file is unreadable, or has other channels than the volumes that were trained on.
        """
        volume = read_volume(case) if isinstance(case, Record) else case
        self._refuse_channels(f"{case.image}:" if isinstance(case, Record) else "the volume", len(volume.image))
        prepared = prepare(volume, None, self.preparation)
        image, _, margins = pad(prepared.image, None, self.patch)
        on_grid = unpad(self._of_windows(image), margins)
        found = prepared.restore(on_grid)
        if isinstance(case, Record) and case.axes is not None:
            back = np.argsort(case.axes)
            return np.ascontiguousarray(found.transpose(0, *(1 + back)))
        return found

    def refuse(self, record: Record) -> None:
        """Refuse a record whose files cannot be segmented (headers only).

        Raises:
            InputError: No readable 3D volume, or other channels than those that were trained on.
        """
        self._refuse_channels(f"{record.image}:", 1 + len(record.channels))
        for file in (record.image, *record.channels):
            shape_of(file)

    def _refuse_channels(self, name: str, held: int) -> None:
        if held != self.channels:
            fault = f"{name} has {held} channel{'s' if held > 1 else ''}, {self.folder} was trained on {self.channels}"
            raise InputError(f"{fault}; give the channels that it was trained on")

    def _of_windows(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """(C, x, y, z) -> (K, x, y, z), both prepared and no smaller than a window."""
        device, chosen = next(self.net.parameters()).device, self.settings
        given = torch.from_numpy(image)[None].to(device)
        made = self.net.probabilities(
            given, self.patch, self.network, self.steps, self.seed, self._overlap, chosen.windows
        )
        found: NDArray[np.float32] = made[0].cpu().numpy()
        return found
