"""Images without a lesion, to paint lesions into: the run's own, made of its training images, or a folder of the user.

| source | what |
|---|---|
| ``removed`` | a training image whose lesions the generator itself has painted away |
| ``regions`` | the largest part of a training image, of its shape, that is lit and holds no lesion |
| ``lesion-free`` | a training image whose mask is empty, as it is |
| ``folder`` | an image of a folder that the user gave |

A frame is not taken where it is blurred, full of glare or mostly dark (`morphogen.data.picture_quality`), or where
its lesions leave too little. ``normals.jsonl`` has a row for every image, those that were not taken included.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from morphogen.data.field_of_view import field_of_view
from morphogen.data.images import is_image, is_volume, load_rgb, stem
from morphogen.data.pairs import native_mask, refuse_unreadable
from morphogen.data.picture_quality import quality
from morphogen.data.readers import read_dataset
from morphogen.data.records import Dataset, Record
from morphogen.data.regions import largest_region
from morphogen.data.split import ids_hash
from morphogen.errors import InputError, WorkError
from morphogen.files import write_text
from morphogen.progress import say, track
from morphogen.sampling.manifest import CLAIM, append_rows, claim_folder, encode_png, write_file
from morphogen.training.rng import numpy_rng, seed_of

OWN_SOURCES = ("removed", "regions")
ROWS = "normals.jsonl"
MOST = 1000
"""Images of a folder that are looked at; of more, a seeded choice of so many."""
MOST_LESION = 0.3
"""Share of the field of view beyond which a lesion is not painted away: too little is left to go by."""
LEAST_SIDE = 0.4
"""Smallest part of a training image that is taken as a region, relative to its sides."""
_MARGIN = 0.03
"""Distance of a region from a lesion, relative to the shorter side of the image."""
_BATCH = 8

Row = dict[str, Any]


class Remover(Protocol):
    """A sampler that can paint lesions away."""

    hash: str

    def remove(self, images: list[np.ndarray], masks: list[np.ndarray], seeds: list[int]) -> list[np.ndarray]:
        """(H, W, 3) uint8 images without what lies under their (H, W) masks."""
        ...


@dataclass(frozen=True)
class _Candidate:
    """An image that may become a normal one, its mask where a lesion is to be removed, and its row."""

    image: np.ndarray
    lesion: np.ndarray | None
    row: Row


def check_normals(source: str, data: Dataset) -> None:
    """Refuse what `make_normals` would refuse, before there is anything to paint with.

    Args:
        source: One of `OWN_SOURCES`, or a folder.
        data: The training images.

    Raises:
        InputError: `source` is no folder of pictures, or holds a damaged one; or no training image can be painted into.
    """
    if source not in OWN_SOURCES:
        refuse_unreadable(_folder(Path(source)), foreground=False)
        return
    rows = []
    for record in (annotated := data.annotated):
        rows.append(_candidate(record, annotated, source, 0).row)
        if not rows[-1]["rejected"]:
            return
    other = next(name for name in OWN_SOURCES if name != source)
    raise InputError(
        f"{data.root}: none of its {len(rows)} images can be painted into ({_counts(rows)}); try --preset "
        f"normals={other}, or give a folder of images without a lesion: --preset normals=FOLDER"
    )


def make_normals(sampler: Remover, data: Dataset, source: str, folder: Path, seed: int) -> Dataset:
    """Make, or find made, the images without a lesion: ``images/ID.png`` and ``normals.jsonl``.

    What is there is kept, and what is missing is made in the batches of an undisturbed run, so a restart ends with the
    same bytes.

    Args:
        sampler: Paints lesions away; used for ``removed`` alone.
        data: The training images; those with a mask are used.
        source: One of `OWN_SOURCES`, or a folder of images without a lesion, which are copied.
        folder: Where to write.
        seed: Seed of the run.

    Returns:
        The images that were taken, as `read_normals` gives them.

    Raises:
        InputError: `folder` holds something else, or `source` is no folder of pictures.
        WorkError: No image could be taken.
    """
    data = data.annotated if source in OWN_SOURCES else _folder(Path(source))
    kind = source if source in OWN_SOURCES else "folder"
    maker = {"generator_hash": sampler.hash} if kind == "removed" else {}
    claim_folder(folder, {"normals": kind, "seed": seed, "records": ids_hash(data.ids), **maker})
    (folder / "images").mkdir(exist_ok=True)
    rows = _rows(folder)
    batches = [data.records[i : i + _BATCH] for i in range(0, len(data), _BATCH)]
    batches = [batch for batch in batches if not all(_is_there(folder, rows.get(record.id)) for record in batch)]
    for batch in track(batches, "normal images"):
        made = _finished(sampler, [_candidate(record, data, kind, seed) for record in batch])
        for candidate in made:
            if not candidate.row["rejected"]:
                png = encode_png(candidate.image)
                candidate.row["sha256"] = hashlib.sha256(png).hexdigest()
                write_file(_file(folder, candidate.row), png)
        append_rows(folder / ROWS, [candidate.row for candidate in made])
    if batches:  # one row an image, in order, however often the work was stopped
        rows = _rows(folder)
        write_text(folder / ROWS, "".join(json.dumps(rows[id_], sort_keys=True) + "\n" for id_ in data.ids))
    return read_normals(folder)


def read_normals(folder: Path) -> Dataset:
    """The images of a folder that can be painted into.

    Of a folder that `make_normals` wrote these are the images that were taken. Of any other, in which pictures lie
    directly or in images/, they are those whose quality allows it and for which masks/ holds no lesion.

    Returns:
        Records without masks, ordered by id; ``origin`` holds ``source``, and ``image``, the id of the image that it
        was made of.

    Raises:
        InputError: There is no such folder, it holds no pictures, one cannot be read, none can be painted into, or
            `make_normals` was stopped there.
        WorkError: None of the run's own images was taken.
    """
    if (folder / CLAIM).is_file():
        own = list(_rows(folder).values())
        if json.loads((folder / CLAIM).read_text())["records"] != ids_hash(row["id"] for row in own):
            raise InputError(f"{folder}: is not finished; run the same `morphogen train` again")
        taken = tuple(_record(folder, row) for row in _taken(folder, own))
        if not taken:
            raise WorkError(_nothing(folder, own))
        return Dataset(folder.name, folder, taken)
    data = _folder(folder)
    rows = {record.id: _candidate(record, data, "folder", 0).row for record in track(data.records, "looking at images")}
    found = data.select([row["id"] for row in _taken(folder, list(rows.values()))])
    if not len(found):
        raise InputError(_nothing(folder, list(rows.values())))
    origins = {id_: {"source": "folder", "image": id_, "field": row["field"]} for id_, row in rows.items()}
    return replace(found, records=tuple(replace(r, mask=None, origin=origins[r.id]) for r in found))


def read_pictures(folder: Path) -> Dataset:
    """All pictures of a folder, whatever they show, for lesions that are to lie at a place of the user's choice.

    Returns:
        Records without masks, ordered by file name, with the files' stems as ids.

    Raises:
        InputError: There is no such folder, or it holds no pictures, or volumes.
    """
    files = _pictures(folder, "images to paint into")
    records = (Record(stem(path), path, origin={"source": "folder", "image": stem(path)}) for path in files)
    return Dataset(folder.name, folder, tuple(records))


def _candidate(record: Record, data: Dataset, kind: str, seed: int) -> _Candidate:
    """Look at one image: what is to be made of it, or why it is not taken."""
    image = load_rgb(record)
    lesion = np.zeros(image.shape[:2], dtype=bool) if record.mask is None else native_mask(record, data) > 0
    field = field_of_view(image)
    covered = float((lesion & field).sum() / max(1, field.sum()))
    row: Row = {"id": record.id, "image": record.id, "subject": record.subject, "source": kind, "lesion": covered}
    reasons: list[str] = []
    if kind == "regions":
        margin = max(2, round(_MARGIN * min(lesion.shape)))
        box = largest_region(field & ~_grown(lesion, margin), LEAST_SIDE)
        reasons += ["no region without a lesion"] if box is None else []
        if box is not None:
            image, field = image[box], field[box]
            row["box"] = [box[0].start, box[1].start, box[0].stop, box[1].stop]
    elif kind == "removed":
        row["seed"] = seed_of(seed, "normal", record.id)
        row["source"] = kind if lesion.any() else "lesion-free"
        reasons += ["large lesion"] if covered > MOST_LESION else []
    elif lesion.any():
        reasons.append("lesion in its mask")
    found = quality(image, field)
    row |= {"field": found["field"], "sharpness": found["sharpness"], "glare": found["glare"]}
    row["rejected"] = [*reasons, *found["reasons"]]
    return _Candidate(image, lesion if row["source"] == "removed" else None, row)


def _finished(sampler: Remover, candidates: Sequence[_Candidate]) -> list[_Candidate]:
    """The candidates, with the lesions painted away from those that are taken."""
    chosen = [c for c in candidates if c.lesion is not None and not c.row["rejected"]]
    if not chosen:
        return list(candidates)
    images = [np.ascontiguousarray(c.image) for c in chosen]
    lesions = [c.lesion.astype(np.int64) for c in chosen if c.lesion is not None]
    painted = sampler.remove(images, lesions, [c.row["seed"] for c in chosen])
    made = {c.row["id"]: replace(c, image=image) for c, image in zip(chosen, painted, strict=True)}
    return [made.get(c.row["id"], c) for c in candidates]


def _pictures(root: Path, what: str = "images without a lesion") -> list[Path]:
    """The picture files of a user's folder, which shall hold `what`; they lie directly in it or in images/.

    Raises:
        InputError: It does not exist, is a file, or holds no pictures, or volumes.
    """
    remedy = f"give a folder of {what}"
    if not root.is_dir():
        raise InputError(f"{root}: {'is a file' if root.exists() else 'does not exist'}; {remedy}")
    inner = root / "images" if (root / "images").is_dir() else root
    files = sorted(path for path in inner.iterdir() if is_image(path) and path.is_file())
    if not files:
        raise InputError(f"{inner}: {'holds no images' if any(inner.iterdir()) else 'is empty'}; {remedy}")
    for path in files:
        if is_volume(path):
            raise InputError(f"{path}: is a volume; {remedy}, as pictures")
    return files


def _folder(root: Path) -> Dataset:
    """The pictures of a user's folder, at most `MOST` of them; with masks where it has any.

    Raises:
        InputError: As `_pictures`.
    """
    files = _pictures(root)
    data = read_dataset(root) if (root / "masks").is_dir() else None
    records = data.records if data is not None else tuple(Record(stem(path), path) for path in files)
    if len(records) > MOST:
        chosen = sorted(numpy_rng(0, "normals", len(records)).permutation(len(records))[:MOST].tolist())
        say(f"{root}: {MOST} of its {len(records)} images are looked at")
        records = tuple(records[i] for i in chosen)
    return Dataset(root.name, root, records) if data is None else replace(data, records=records)


def _taken(folder: Path, rows: Sequence[Row]) -> list[Row]:
    """The rows that were not rejected; the user is told of the others."""
    taken = [row for row in rows if not row["rejected"]]
    if 0 < len(taken) < len(rows):
        say(f"{folder}: {len(taken)} of {len(rows)} images can be painted into; not taken: {_counts(rows)}")
    return taken


def _nothing(folder: Path, rows: Sequence[Row]) -> str:
    return (
        f"{folder}: none of its {len(rows)} images can be painted into ({_counts(rows)}); "
        "give a folder of images without a lesion with --images, or --preset normals=FOLDER"
    )


def _counts(rows: Sequence[Row]) -> str:
    reasons = Counter(reason for row in rows for reason in row["rejected"])
    return ", ".join(f"{reason} {n}" for reason, n in sorted(reasons.items()))


def _rows(folder: Path) -> dict[str, Row]:
    """The rows by id, those torn by a kill left out."""
    try:
        lines = (folder / ROWS).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    rows: dict[str, Row] = {}
    for line in lines:
        try:
            row = json.loads(line)
            rows[row["id"]] = row
        except (ValueError, TypeError, KeyError):
            continue
    return rows


def _is_there(folder: Path, row: Row | None) -> bool:
    if row is None or row["rejected"]:
        return row is not None
    try:
        return hashlib.sha256(_file(folder, row).read_bytes()).hexdigest() == row["sha256"]
    except FileNotFoundError:
        return False


def _file(folder: Path, row: Row) -> Path:
    return folder / "images" / f"{row['id']}.png"


def _record(folder: Path, row: Row) -> Record:
    origin = {key: row[key] for key in ("source", "image", "field")}
    return Record(row["id"], _file(folder, row), subject=row["subject"], origin=origin)


def _grown(lesion: np.ndarray, margin: int) -> np.ndarray:
    """(H, W) bool: all pixels at most `margin` away from a lesion."""
    from scipy.ndimage import distance_transform_edt

    return np.asarray(distance_transform_edt(~lesion) <= margin) if lesion.any() else lesion
