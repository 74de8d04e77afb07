"""What a data set looks like in numbers: intensities, areas of the classes, components per image."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

PERCENTILES = (0.5, 5, 50, 95, 99.5)
_SAMPLE = 4096


@dataclass
class Fingerprint:
    """Collects image by image; `result` sums up.

    Intensities come from at most 4096 evenly spaced pixels an image. A component is a set of pixels of one class that
    touch by an edge or a corner.
    """

    classes: Sequence[str]
    sizes: Counter[str] = field(default_factory=Counter)
    types: Counter[str] = field(default_factory=Counter)
    _pixels: dict[int, list[NDArray[np.float64]]] = field(default_factory=lambda: defaultdict(list))
    _areas: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    _components: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))

    def add_image(self, image: NDArray[Any]) -> None:
        """Count (H, W) or (H, W, C) pixels."""
        self.sizes[f"{image.shape[1]}x{image.shape[0]}"] += 1
        flat = image.reshape(image.shape[0] * image.shape[1], -1)
        self.types[f"{image.dtype} x {flat.shape[1]}"] += 1
        step = -(-len(flat) // _SAMPLE)
        for channel in range(flat.shape[1]):
            self._pixels[channel].append(flat[::step, channel].astype(np.float64))

    def add_mask(self, labels: NDArray[np.int64]) -> None:
        """Count (H, W) label ids."""
        from scipy import ndimage

        for index in range(1, len(self.classes)):
            where = labels == index
            self._areas[index].append(float(where.mean()))
            self._components[index].append(int(ndimage.label(where, np.ones((3, 3)))[1]) if where.any() else 0)

    def result(self) -> dict[str, Any]:
        """JSON values; areas are fractions of the image and, like components, over the images that hold the class."""
        return {
            "images": dict(self.types),
            "intensities": {str(c): _spread(np.concatenate(p)) for c, p in sorted(self._pixels.items())},
            "class_areas": {self.classes[i]: _present(a) for i, a in self._areas.items()},
            "components": {self.classes[i]: _present(n) for i, n in self._components.items()},
        }


def _spread(values: NDArray[np.float64]) -> dict[str, float]:
    values = values[np.isfinite(values)]
    if not values.size:
        return {}
    percentiles = {f"p{p:g}": float(v) for p, v in zip(PERCENTILES, np.percentile(values, PERCENTILES), strict=True)}
    return {"mean": float(values.mean()), "std": float(values.std()), **percentiles}


def _present(values: Sequence[float]) -> dict[str, float]:
    held = np.array([v for v in values if v > 0], dtype=np.float64)
    return {"n_images": len(held), **_spread(held)}
