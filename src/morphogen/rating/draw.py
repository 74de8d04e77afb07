"""Which images are shown, as pictures that differ in nothing but what they show.

All become RGB pixels of one size and are written anew as PNG, so that neither format, compression, metadata nor size
tells where a picture comes from. An id is a hash of seed and pixels: it follows from what is shown, never from the
origin, and the order of the ids says nothing about it.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from morphogen.data.images import image_size, load_rgb
from morphogen.data.records import Record
from morphogen.errors import InputError
from morphogen.metrics.pictures import find_pictures
from morphogen.progress import track

SYNTHETIC, REAL = "synthetic", "real"
ORIGINS = (SYNTHETIC, REAL)
Size = tuple[int, int]


@dataclass(frozen=True)
class Picture:
    """One drawn image.

    Attributes:
        id: What the page calls it.
        png: Its pixels.
        origin: ``synthetic`` or ``real``.
        record: Id within its folder.
        file: Where it was read from.
        native: (height, width) before it was brought to the common size.
    """

    id: str
    png: bytes
    origin: str
    record: str
    file: Path
    native: Size


@dataclass(frozen=True)
class Drawing:
    """What a page shows.

    Attributes:
        pictures: Ordered by id.
        repeats: Id of a second showing -> id of the picture.
        size: (height, width) of all pictures.
        notes: What the user should know about the draw.
    """

    pictures: tuple[Picture, ...]
    repeats: dict[str, str]
    size: Size
    notes: tuple[str, ...]

    @property
    def study(self) -> str:
        """16 hex digits that name this page: two pages share them only if they show the same."""
        text = "\n".join(sorted([f"{p.id} {hashlib.sha256(p.png).hexdigest()}" for p in self.pictures]))
        return _hash(f"{text}\n{sorted(self.repeats.items())}")[:16]


def draw(syn: Path, real: Path, n: int, repeats: int, seed: int) -> Drawing:
    """Draw `n` images of each folder, or as many as the smaller one holds.

    Args:
        syn: Folder with the synthetic images, in any layout.
        real: Folder with the real ones.
        n: Images of each kind.
        repeats: Pictures that are shown a second time.
        seed: Of the draw.

    Raises:
        InputError: A folder is missing or empty, both are the same, a file cannot be read, or a number is out of range.
    """
    if n < 1:
        raise InputError(f"--n: {n} images cannot be rated; give 1 or more")
    found = {SYNTHETIC: find_pictures(syn), REAL: find_pictures(real)}
    if syn.resolve() == real.resolve():
        raise InputError(f"{real}: is the folder of the synthetic images too; give that of the real ones")
    taken = min(n, *map(len, found.values()))
    if not 0 <= repeats <= 2 * taken:
        raise InputError(f"--repeats: {repeats} of {2 * taken} pictures cannot be shown twice; give 0 to {2 * taken}")
    chosen = [
        (origin, record)
        for stream, (origin, records) in enumerate(found.items())
        for record in _chosen(records, taken, np.random.default_rng([seed, stream]))
    ]
    size = _common_size([record for origin, record in chosen if origin == SYNTHETIC])
    pictures = _pictures(chosen, size, seed)
    again = np.random.default_rng([seed, len(found)]).permutation(len(pictures))[:repeats]
    second = {_hash(f"{seed} again {pictures[i].id}")[:12]: pictures[i].id for i in again}
    short = [f"{n} images of each kind were asked for, {taken} are there of both"] if taken < n else []
    return Drawing(tuple(pictures), second, size, (*short, *_notes(pictures, size)))


def _chosen(records: Sequence[Record], n: int, rng: np.random.Generator) -> list[Record]:
    return [records[i] for i in sorted(rng.permutation(len(records))[:n])]


def _common_size(synthetic: Sequence[Record]) -> Size:
    """The most frequent size, the smaller of two equally frequent ones."""
    sizes = Counter(image_size(record.image, record.plane) for record in synthetic)
    return min(sizes, key=lambda size: (-sizes[size], size))


def _pictures(chosen: Sequence[tuple[str, Record]], size: Size, seed: int) -> list[Picture]:
    pictures, seen = [], Counter[bytes]()
    for origin, record in track(chosen, "reading images", len(chosen)):
        native, png = _png(record, size)
        seen[png] += 1  # of equal pictures nobody can tell the origin, and their ids must differ
        name = _hash(f"{seed} {seen[png]} {hashlib.sha256(png).hexdigest()}")[:12]
        pictures.append(Picture(name, png, origin, record.id, record.image, native))
    return sorted(pictures, key=lambda picture: picture.id)


def _png(record: Record, size: Size) -> tuple[Size, bytes]:
    """Size of the file's image, and PNG of its pixels at `size`, by a plain antialiased resize where that differs."""
    image = Image.fromarray(load_rgb(record))
    native = image.height, image.width
    if native != size:
        image = image.resize((size[1], size[0]), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return native, buffer.getvalue()


def _notes(pictures: Sequence[Picture], size: Size) -> list[str]:
    """What may tell real from synthetic although it says nothing about realism."""
    height, width = size
    notes = []
    enlarged = [p for p in pictures if p.native[0] < height or p.native[1] < width]
    if enlarged:
        notes.append(f"{_count(enlarged)} were enlarged to {width} x {height} px, and blur may give them away")
    squeezed = [p for p in pictures if p.native[0] * width != p.native[1] * height]
    if squeezed:
        notes.append(f"{_count(squeezed)} had another aspect than {width} x {height} px and were squeezed to it")
    real = {p.png for p in pictures if p.origin == REAL}
    copies = sum(p.png in real for p in pictures if p.origin == SYNTHETIC)
    if copies:
        notes.append(f"{copies} synthetic pictures equal a real one in every pixel; run morphogen audit")
    return notes


def _count(pictures: Sequence[Picture]) -> str:
    counts = Counter(picture.origin for picture in pictures)
    return " and ".join(f"{counts[o]} {o}" for o in ORIGINS if counts[o]) + " pictures"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
