"""From the grid and units of a file to those of a network, and back.

In order: clip and scale of the intensities (by MONAI; statistics of a channel over its whole volume, before any
resampling), axes to RAS, resampling. Grids are aligned by their outer edges, so n voxels become
``round(n * spacing / target)``, and the way back is the same geometry read the other way. Images are smoothed before
they are made smaller, by a Gaussian of (s - 1) / 2 voxels for a factor s (the rule of skimage and MONAI; edge voxels
are repeated outside, where MONAI's `Resize` takes zeros and so darkens the border), then taken linearly. Labels: the
class whose indicator is largest after linear interpolation, which keeps thin structures that nearest neighbour breaks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from morphogen.data.volumes.files import Volume
from morphogen.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Normalise = Literal["zscore", "minmax", "none"]


@dataclass(frozen=True)
class Preparation:
    """What is done to a volume before a network sees it.

    Attributes:
        spacing: Voxel size wanted along the prepared axes, in mm; in voxels of the file where it states no size. None:
            as the file has it.
        window: (low, high) in the file's units: clipped, and scaled to [0, 1] (a CT window; -125, 275 for abdomen).
        normalise: Then, each channel over its whole volume: ``zscore`` to mean 0 and deviation 1, ``minmax`` to [0, 1],
            ``none``.
        percentiles: First of all, clip each channel to these two of its own percentiles, in 0..100.
        reorient: Turn NIfTI volumes so that their axes run to the right, to the front and upwards (RAS); undone by
            `Prepared.restore`. HDF5 volumes know no directions and stay.

    Raises:
        InputError: A value is out of range.
    """

    spacing: tuple[float, float, float] | None = None
    window: tuple[float, float] | None = None
    normalise: Normalise = "zscore"
    percentiles: tuple[float, float] | None = None
    reorient: bool = True

    def __post_init__(self) -> None:
        for name in ("spacing", "window", "percentiles"):
            if isinstance(getattr(self, name), list):  # as JSON brings them back
                object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.spacing is not None and not (len(self.spacing) == 3 and all(0 < s < np.inf for s in self.spacing)):
            raise InputError(f"spacing {self.spacing}: is no voxel size; give three numbers above 0, in mm")
        ends = self.window
        if ends is not None and not (len(ends) == 2 and -np.inf < ends[0] < ends[1] < np.inf):
            raise InputError(f"window {ends}: is no window; give its lower and its upper end")
        ends = self.percentiles
        if ends is not None and not (len(ends) == 2 and 0 <= ends[0] < ends[1] <= 100):
            raise InputError(f"percentiles {ends}: are no two percentiles; give two in 0 to 100, e.g. 0.5 99.5")
        if self.normalise not in get_args(Normalise):
            raise InputError(f"normalise {self.normalise}: choose one of {', '.join(get_args(Normalise))}")


@dataclass(frozen=True, eq=False)
class Prepared:
    """A volume as a network sees it.

    Attributes:
        image: (C, x, y, z) float32.
        label: (x, y, z) uint8 label ids, or None where the volume has none.
        shape: (X, Y, Z) of the file.
        spacing: Size of a prepared voxel in mm, or None where the file states none.
        turn: (3, 2) as nibabel's orientations: the prepared axis that each axis of the file became, and its direction;
            None where none was turned.
    """

    image: NDArray[np.float32]
    label: NDArray[np.uint8] | None
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float] | None = None
    turn: NDArray[np.float64] | None = None

    def restore(self, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        """Maps on the prepared grid, brought to the grid of the file by linear interpolation.

        Args:
            probabilities: (K, x, y, z) float32.

        Returns:
            (K, X, Y, Z) float32; sums over K are kept. Exactly the input where nothing was resampled or turned.
        """
        if self.turn is None:
            return _resized(probabilities, self.shape)
        import nibabel.orientations as orientations

        grid = tuple(self.shape[axis] for axis in np.argsort(self.turn[:, 0]))
        back = orientations.ornt_transform(orientations.axcodes2ornt("RAS"), self.turn)
        return _turned(_resized(probabilities, grid), back)


def prepare(volume: Volume, label: NDArray[np.int64] | None, preparation: Preparation) -> Prepared:
    """A volume and its label on the grid and in the units of a network.

    Args:
        volume: As of `files.read_volume`.
        label: (X, Y, Z) label ids in 0..255 on its grid, or None.
        preparation: What is to be done.
    """
    image = _scaled(volume.image, preparation)
    kept = None if label is None else label.astype(np.uint8)
    spacing, turn = volume.spacing, None
    if preparation.reorient and volume.affine is not None:
        import nibabel.orientations as orientations

        found = orientations.io_orientation(volume.affine)
        if not np.array_equal(found, orientations.axcodes2ornt("RAS")):
            turn = found
            image = _turned(image, turn)
            kept = None if kept is None else _turned(kept[None], turn)[0]
            if spacing is not None:
                x, y, z = (spacing[axis] for axis in np.argsort(turn[:, 0]))
                spacing = (x, y, z)
    if preparation.spacing is not None:
        stated = spacing or (1.0, 1.0, 1.0)
        before = image.shape[1:]
        sizes = zip(before, stated, preparation.spacing, strict=True)
        size = tuple(max(1, round(n * s / target)) for n, s, target in sizes)
        image = _resized(image, size, smooth=True)
        kept = None if kept is None else _resized_label(kept, size)
        if spacing is not None:
            x, y, z = (s * n / m for s, n, m in zip(stated, before, size, strict=True))
            spacing = (x, y, z)
    return Prepared(image, kept, volume.shape, spacing, turn)


def _scaled(image: NDArray[np.float32], preparation: Preparation) -> NDArray[np.float32]:
    """(C, X, Y, Z) -> the same in the units of a network, by MONAI's transforms, each channel by itself."""
    from monai import transforms  # takes seconds to import

    steps: list[Any] = []
    if preparation.percentiles is not None:
        steps.append(transforms.ClipIntensityPercentiles(*preparation.percentiles, channel_wise=True))
    if preparation.window is not None:
        low, high = preparation.window
        steps.append(transforms.ScaleIntensityRange(low, high, b_min=0.0, b_max=1.0, clip=True))
    if preparation.normalise == "zscore":
        steps.append(transforms.NormalizeIntensity(channel_wise=True))
    elif preparation.normalise == "minmax":
        steps.append(transforms.ScaleIntensity(minv=0.0, maxv=1.0, channel_wise=True))
    scaled = image.copy()  # some of them work in place
    for step in steps:
        scaled = step(scaled)
    return np.asarray(scaled, dtype=np.float32)


def _turned(values: NDArray[Any], turn: NDArray[np.float64]) -> NDArray[Any]:
    """(C, X, Y, Z) with its last three axes turned."""
    import nibabel.orientations as orientations

    turned = orientations.apply_orientation(np.moveaxis(values, 0, -1), turn)
    return np.ascontiguousarray(np.moveaxis(turned, -1, 0))


def _resized(values: NDArray[np.float32], size: Sequence[int], smooth: bool = False) -> NDArray[np.float32]:
    """(C, X, Y, Z) to (C, *size), linearly."""
    shape = values.shape[1:]
    if tuple(size) == shape:
        return values
    import torch
    from scipy.ndimage import gaussian_filter

    made = np.empty((len(values), *size), dtype=np.float32)
    sigma = [max(0.0, (n / m - 1) / 2) for n, m in zip(shape, size, strict=True)]
    for index, channel in enumerate(values):  # one by one: a whole CT in all classes would not fit into memory twice
        if smooth and any(sigma):
            channel = gaussian_filter(channel, sigma, mode="nearest")
        given = torch.from_numpy(np.ascontiguousarray(channel, dtype=np.float32))[None, None]
        made[index] = torch.nn.functional.interpolate(given, tuple(size), mode="trilinear", align_corners=False)[0, 0]
    return made


def _resized_label(label: NDArray[np.uint8], size: Sequence[int]) -> NDArray[np.uint8]:
    """(X, Y, Z) to `size`: the class of the largest interpolated indicator.

    Of equal ones it is that of the nearest voxel: halving a volume meets many ties, and were they background, every
    structure would shrink.
    """
    if tuple(size) == label.shape:
        return label
    places = [((np.arange(m) + 0.5) * n / m).astype(int) for n, m in zip(label.shape, size, strict=True)]
    nearest = label[np.ix_(*places)]
    made, best = np.zeros(tuple(size), dtype=np.uint8), np.zeros(tuple(size), dtype=np.float32)
    for index in np.unique(label):
        indicator = _resized((label == index)[None].astype(np.float32), size)[0]
        better = (indicator > best) | ((indicator == best) & (nearest == index))
        made[better], best[better] = index, indicator[better]
    return made
