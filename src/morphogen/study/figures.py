"""What the report draws: axes for its forest plots, the curve over sizes, and real beside synthetic pairs."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from morphogen.errors import InputError
from morphogen.study.classified import classes_in, confusion
from morphogen.study.compare import Group
from morphogen.study.kinds import CLASSIFICATION

if TYPE_CHECKING:
    from morphogen.data.records import Dataset

SHOWN = 216
"""Side in px of a picture in the page."""
CONTOUR = (80, 235, 255)
PALETTE = ("#5b6675", "#1f2a37", "#8fb8b4", "#0f6e6e", "#b08d57", "#7a4e7e", "#a0a7b1", "#3b6ea5", "#9a3324")


@dataclass(frozen=True)
class Axis:
    """A horizontal axis from `low` to `high` with 0 on it; `ticks` are round numbers."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        """Position in percent, 0 to 100."""
        return round(100 * (value - self.low) / (self.high - self.low), 3)

    def label(self, tick: float) -> str:
        """The tick with no more digits than the ticks' distance needs."""
        digits = max(0, -math.floor(math.log10(self.ticks[1] - self.ticks[0]) + 1e-9)) if len(self.ticks) > 1 else 3
        return f"{tick:+.{digits}f}".replace("-", "\u2212") if tick else "0"


def axis(values: Sequence[float]) -> Axis:
    """The axis that holds all `values` and 0, with a margin and ticks at 1, 2 or 5 times a power of ten."""
    low, high = min(0.0, *values), max(0.0, *values)
    span = (high - low) or 1.0
    low, high = low - 0.06 * span, high + 0.06 * span
    raw = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw)
    ticks = np.arange(math.ceil(low / step), math.floor(high / step) + 1) * step
    return Axis(low, high, tuple(float(tick) for tick in ticks))


def curve(groups: Sequence[Group]) -> str | None:
    """Mean Dice (of a classifier macro-F1) of every arm against the annotated pairs; None for fewer than two sizes.

    Args:
        groups: Of one judge and one test set.

    Returns:
        SVG as data URI.
    """
    sizes = [(group.n_annotated, group) for group in groups if group.n_annotated is not None]
    if len(sizes) < 2:
        return None
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"font.family": "DejaVu Sans", "font.size": 9, "svg.hashsalt": "morphogen"}):
        figure = Figure(figsize=(7, 3.4), layout="constrained")
        axes = figure.subplots()
        names = list(dict.fromkeys(arm for _, group in sizes for arm in group.arms))
        for number, arm in enumerate(names):
            shift = 1 + 0.02 * (number - (len(names) - 1) / 2)  # so that intervals stand side by side
            points = [(n * shift, group.means[arm][group.kind.headline]) for n, group in sizes if arm in group.arms]
            y = [e.mean for _, e in points]
            ends = [e.ci95 or (e.mean, e.mean) for _, e in points]
            bars = [[m - low for m, (low, _) in zip(y, ends, strict=True)]]
            bars += [[high - m for m, (_, high) in zip(y, ends, strict=True)]]
            style: dict[str, Any] = {
                "markersize": 4,
                "linewidth": 1.4,
                "elinewidth": 0.8,
                "color": PALETTE[number % len(PALETTE)],
            }
            axes.errorbar([x for x, _ in points], y, yerr=bars, fmt="o-", label=arm, **style)
        axes.set_xlabel("annotated pairs")
        axes.set_ylabel(groups[0].kind.noun)
        axes.set_xscale("log")
        axes.set_xticks([n for n, _ in sizes], [str(n) for n, _ in sizes], minor=False)
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return data_uri(buffer.getvalue(), "svg+xml")


def confusions(group: Group) -> str | None:
    """Confusion matrices of a classifier, one an arm, as an SVG data URI; None for a segmenter."""
    if group.kind is not CLASSIFICATION:
        return None
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    runs = {arm: [cell.scores for cell in group.runs(arm).values()] for arm in group.arms}
    classes = classes_in([rows for some in runs.values() for rows in some])
    across = min(3, len(runs))
    down, side = math.ceil(len(runs) / across), 1.1 + 0.62 * len(classes)
    with rc_context({"font.family": "DejaVu Sans", "font.size": 8, "svg.hashsalt": "morphogen"}):
        figure = Figure(figsize=(side * across + 0.9, side * down + 0.3), layout="constrained")
        for number, (arm, some) in enumerate(runs.items(), start=1):
            axes = figure.add_subplot(down, across, number)
            counts = confusion(some, classes)
            shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
            edges = np.arange(len(classes) + 1) - 0.5
            axes.pcolormesh(edges, edges, shares, cmap="Greens", vmin=0, vmax=1, edgecolors="white", linewidth=1)
            axes.set_aspect("equal")
            axes.invert_yaxis()
            for (row, column), n in np.ndenumerate(counts):
                ink = "white" if shares[row, column] > 0.6 else "black"
                words = f"{shares[row, column]:.2f}\n({n})"
                axes.text(column, row, words, ha="center", va="center", color=ink, fontsize=7)
            axes.set_title(arm, fontsize=8)
            axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
            axes.set_yticks(range(len(classes)), classes if (number - 1) % across == 0 else [""] * len(classes))
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return data_uri(buffer.getvalue(), "svg+xml")


@dataclass(frozen=True)
class Beside:
    """One synthetic pair beside the real pair whose mask it was made from; `real` is None where that is not at hand.

    `dropped` names the quality gates that it failed, `normal` is the image that it was painted into, where it was. A
    pair whose mask the generator made itself stands beside `plain`, its image without the outline, and has the `prompt`
    that it was made of.
    """

    synthetic: str
    real: str | None
    synthetic_id: str
    source_id: str | None
    label: str
    dropped: tuple[str, ...] = ()
    normal: str | None = None
    plain: str | None = None
    prompt: str | None = None


def pairs(out: Path, config: Mapping[str, Any], most: int = 9) -> list[Beside]:
    """Up to `most` synthetic pairs, evenly spread over repetitions and masks, each beside its real source.

    One that has none, since the generator made its mask, stands beside its image without the outline. All are shown at
    the resolution of the generator, enlarged; the line is the outline of the mask.
    """
    folders = sorted(path.parent for path in (out / "synthetic").glob("*/manifest.jsonl"))
    real, shown = _real_data(config), list[Beside]()
    for number, folder in enumerate(folders):
        share = most // len(folders) + (number < most % len(folders))
        rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
        share = min(share, len(rows))
        offset = (number + 0.5) / len(folders)  # another mask in every repetition, where they have the same ones
        chosen = (np.arange(share) + offset) * len(rows) / max(share, 1)
        shown += [_beside(folder, rows[int(i)], real, config.get("generator", "*")) for i in chosen]
    return shown


def _beside(folder: Path, row: Mapping[str, Any], real: Dataset | None, own: str) -> Beside:
    image, mask = (_read(folder / part / f"{row['id']}.png") for part in ("images", "masks"))
    source = row.get("source_mask")
    picture = None
    if real is not None and source in real.ids:
        picture = _real(real, source, image.shape[:2])
    dropped = tuple(row.get("dropped", ()))
    nothing = np.zeros_like(mask)
    normal = _normal(folder, row, nothing, own)
    plain, prompt = (outlined(image, nothing), row.get("prompt")) if source is None else (None, None)
    return Beside(outlined(image, mask), picture, row["id"], source, folder.name, dropped, normal, plain, prompt)


def _normal(folder: Path, row: Mapping[str, Any], nothing: NDArray[np.uint8], own: str) -> str | None:
    """The image that a pair was painted into, of those that its generator, else the study's `own`, made for itself."""
    stated = (row.get("origin") or {}).get("normal")
    if not stated:
        return None
    runs, (label, *options) = folder.parents[1] / "runs", folder.name.split("+")
    name = next((word.removeprefix("generator=") for word in options if word.startswith("generator=")), own)
    found = sorted(runs.glob(f"generator.{name}.{label}/normals/images/{stated['id']}.png"))
    return outlined(_read(found[0]), nothing) if found else None


def _real(real: Dataset, source: str, size: tuple[int, ...]) -> str:
    """A real pair at the square size of a synthetic one, or as it is where that has the size of real images."""
    if size[0] != size[1]:
        from morphogen.data.images import load_rgb
        from morphogen.data.pairs import native_mask

        record = real.select([source])[0]
        return outlined(load_rgb(record), native_mask(record, real).astype(np.uint8))
    from morphogen.data.pairs import Pairs

    pixels, labels = Pairs(real.select([source]), size[0])[0]
    return outlined(pixels.transpose(1, 2, 0), labels)


def _read(path: Path) -> NDArray[np.uint8]:
    from PIL import Image

    with Image.open(path, formats=["PNG"]) as image:
        return np.asarray(image)


def _real_data(config: Mapping[str, Any]) -> Dataset | None:
    """The study's own images, or None where they have been moved: a report can be made without them."""
    from morphogen.data.readers import read_dataset

    try:
        return read_dataset(Path(config["data"])) if "data" in config else None
    except (InputError, OSError):
        return None


def outlined(image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> str:
    """PNG data URI of the image with the outline of its mask.

    Args:
        image: (H, W, 3).
        mask: (H, W), any values: a line is drawn wherever the value changes.
    """
    from PIL import Image
    from skimage.segmentation import find_boundaries

    scale = SHOWN / max(mask.shape)
    size = (round(mask.shape[1] * scale), round(mask.shape[0] * scale))
    picture = np.array(
        Image.fromarray(np.ascontiguousarray(image)).convert("RGB").resize(size, Image.Resampling.BICUBIC)
    )
    large = np.asarray(Image.fromarray(np.ascontiguousarray(mask)).resize(size, Image.Resampling.NEAREST))
    picture[find_boundaries(large, mode="thick")] = CONTOUR
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG", optimize=True)
    return data_uri(buffer.getvalue(), "png")


def closest(out: Path, audit: Mapping[str, Any]) -> tuple[str, str] | None:
    """The repetition with the highest rate of flagged images, and the audit's picture of its closest pairs."""
    rates = {name: float(found["memorisation"]["rate"]) for name, found in audit.items() if found.get("memorisation")}
    label = max(rates, key=rates.__getitem__, default=None)
    picture = out / "images" / f"{label}-closest.png"
    return (label, data_uri(picture.read_bytes(), "png")) if label is not None and picture.exists() else None


def data_uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
