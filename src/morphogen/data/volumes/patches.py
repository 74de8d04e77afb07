"""Patches of volumes (and of images: everything here works for two and for three spatial axes).

Where a volume is smaller than a patch it is padded on both sides alike, the image by each channel's own minimum (air
in CT, the dark surrounding in MR, whatever the intensities were scaled to; the published code pads with 0, which in a
z-scored image is a grey), the label by background.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from morphogen.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Augmentation = Literal["none", "turns", "strong"]
Margins = tuple[tuple[int, int], ...]

_STRONG_P, _STRONG_DRAWN = 0.7, 2
_EPS = 1e-8


def pad(
    image: NDArray[np.float32], label: NDArray[Any] | None, size: Sequence[int]
) -> tuple[NDArray[np.float32], NDArray[Any] | None, Margins]:
    """Make a volume at least as large as a patch; the odd voxel goes to the end.

    Args:
        image: (C, *S).
        label: (*S), or None.
        size: Of the patch, one number an axis.

    Returns:
        Image, label, and what was added before and after along each axis: what `unpad` takes away again.
    """
    missing = [max(0, wanted - there) for wanted, there in zip(size, image.shape[1:], strict=True)]
    margins = tuple((n // 2, n - n // 2) for n in missing)
    if not any(missing):
        return image, label, margins
    grown = [np.pad(channel, margins, constant_values=channel.min()) for channel in image]
    return np.stack(grown), None if label is None else np.pad(label, margins), margins


def unpad(values: NDArray[Any], margins: Margins) -> NDArray[Any]:
    """(..., *S) without the margins that `pad` has added to its last axes."""
    ends = zip(margins, values.shape[values.ndim - len(margins) :], strict=True)
    where: tuple[Any, ...] = (..., *(slice(before, n - after) for (before, after), n in ends))
    return values[where]


def crop(
    image: NDArray[np.float32], label: NDArray[Any] | None, size: Sequence[int], start: Sequence[int]
) -> tuple[NDArray[np.float32], NDArray[Any] | None]:
    """Copies of a patch.

    Args:
        image: (C, *S), no smaller than the patch.
        label: (*S), or None.
        size: Of the patch.
        start: Its first voxel.

    Returns:
        (C, *size) and (*size), or None.
    """
    where = tuple(slice(first, first + n) for first, n in zip(start, size, strict=True))
    return image[(slice(None), *where)].copy(), None if label is None else label[where].copy()


def draw_start(
    shape: Sequence[int],
    size: Sequence[int],
    rng: np.random.Generator,
    label: NDArray[Any] | None = None,
    foreground: float = 0.0,
) -> tuple[int, ...]:
    """First voxel of a random patch: evenly from all that fit.

    Args:
        shape: Of the volume, no smaller than the patch.
        size: Of the patch.
        rng: Draws.
        label: (*shape); its foreground is what `foreground` speaks of.
        foreground: Probability that the patch is laid around a voxel of foreground instead, drawn evenly (as near to
            the middle of the patch as the border allows); without foreground or label it is as if 0.
    """
    free = [there - wanted for there, wanted in zip(shape, size, strict=True)]
    if min(free) < 0:
        raise ValueError(f"a patch of {tuple(size)} does not fit into {tuple(shape)}: pad first")
    if foreground and label is not None and rng.random() < foreground:
        held = np.flatnonzero(label)
        if held.size:
            middle = np.unravel_index(int(held[rng.integers(held.size)]), label.shape)
            placed = zip(map(int, middle), size, free, strict=True)
            return tuple(min(max(at - n // 2, 0), last) for at, n, last in placed)
    return tuple(int(rng.integers(n + 1)) for n in free)


def augment(
    image: NDArray[np.float32], label: NDArray[Any] | None, kind: str, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[Any] | None]:
    """A patch as another one of its kind might look.

    ``turns``: one of the eight turns and reflections of the first two axes, drawn evenly; of the four that keep the
    shape where these axes have unequal lengths. (The published code flips after every turn, so that its networks see
    reflected patches only.) ``strong``: that, and `strong` on the image. ``none``: as it is. Pancreas is trained with
    ``none``: turns and flips put it where no body has it, and lower the Dice by much (HiLab-git/DTC, issue 10).

    Args:
        image: (C, *S).
        label: (*S), or None.
        kind: One of `Augmentation`.
        rng: Draws.

    Returns:
        Both, contiguous.

    Raises:
        InputError: There is no such kind.
    """
    if kind not in get_args(Augmentation):
        raise InputError(f"augmentation {kind}: choose one of {', '.join(get_args(Augmentation))}")
    if kind == "none":
        return image, label
    square = image.shape[1] == image.shape[2]
    quarters = int(rng.integers(4)) if square else 2 * int(rng.integers(2))
    flip = bool(rng.integers(2))
    image = _turned(image, quarters, flip, 1)
    label = None if label is None else _turned(label, quarters, flip, 0)
    return (strong(image, rng) if kind == "strong" else image), label


def strong(image: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Two of four changes of intensity, drawn per patch, each done with probability 0.7.

    They are those of GenericSSL (get_StrongAug: three drawn of these and of rotation and scaling): Gaussian blur of 0.7
    to 1.3 voxels; intensities times 0.7 to 1.3; contrast about the mean times 0.7 to 1.3, clipped to the range that the
    patch had; gamma 0.7 to 1.3 with mean and deviation kept. Each channel by itself, the label not at all.

    Args:
        image: (C, *S), in any units.
        rng: Draws.
    """
    changes = (_blur, _brighten, _contrast, _gamma)
    for change in (changes[i] for i in rng.permutation(len(changes))[:_STRONG_DRAWN]):
        if rng.random() < _STRONG_P:
            amount = float(rng.uniform(0.7, 1.3))
            image = np.stack([change(channel, amount) for channel in image]).astype(np.float32)
    return image


def draw_patch(
    image: NDArray[np.float32],
    label: NDArray[Any] | None,
    size: Sequence[int],
    rng: np.random.Generator,
    kind: str = "none",
    foreground: float = 0.0,
) -> tuple[NDArray[np.float32], NDArray[Any] | None]:
    """A random patch of a volume of any size: padded, cut out and augmented.

    Args:
        image: (C, *S).
        label: (*S), or None.
        size: Of the patch.
        rng: Draws; the same one gives the same patch.
        kind: As of `augment`.
        foreground: As of `draw_start`.

    Returns:
        (C, *size) and (*size), or None.
    """
    image, label, _ = pad(image, label, size)
    start = draw_start(image.shape[1:], size, rng, label, foreground)
    return augment(*crop(image, label, size, start), kind, rng)


def _turned(values: NDArray[Any], quarters: int, flip: bool, first: int) -> NDArray[Any]:
    turned = np.rot90(values, quarters, (first, first + 1))
    return np.ascontiguousarray(np.flip(turned, first) if flip else turned)


def _blur(values: NDArray[np.float32], amount: float) -> NDArray[np.float32]:
    from scipy.ndimage import gaussian_filter

    blurred: NDArray[np.float32] = gaussian_filter(values, amount, mode="nearest")
    return blurred


def _brighten(values: NDArray[np.float32], amount: float) -> NDArray[np.float32]:
    return values * np.float32(amount)


def _contrast(values: NDArray[np.float32], amount: float) -> NDArray[np.float32]:
    mean = values.mean()
    return ((values - mean) * np.float32(amount) + mean).clip(values.min(), values.max())


def _gamma(values: NDArray[np.float32], amount: float) -> NDArray[np.float32]:
    low, extent = values.min(), max(float(np.ptp(values)), _EPS)
    curved = ((values - low) / extent) ** np.float32(amount)
    return (curved - curved.mean()) / max(float(curved.std()), _EPS) * values.std() + values.mean()
