"""Writing a `Dataset` in the general ones of the layouts that `readers` reads.

Pictures are decoded and written as PNG (float images as TIFF), which keeps every grey level and drops EXIF data. A
binary mask is written as 0/255, others as their label ids; nnU-Net always gets label ids. Volumes stay volumes in
`folders` and `nnunet`, affine and grey levels included; the other layouts get their slices. records.csv keeps subjects,
classes, captions, splits and facts in every layout.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from morphogen.data.facts import FACTS
from morphogen.data.images import load_image, to_rgb_uint8, volume_shape
from morphogen.data.mask_values import default_classes
from morphogen.data.masks import apply_rule, label_volume, load_mask
from morphogen.data.records import Dataset, Record
from morphogen.data.split import Division, Fold, ids_hash
from morphogen.data.split_files import nnunet_splits
from morphogen.errors import InputError
from morphogen.files import naming
from morphogen.progress import track

if TYPE_CHECKING:
    from numpy.typing import NDArray

WRITTEN = ("folders", "nnunet", "imagefolder", "prompt-json")
_COLUMNS = ("id", "subject", "class", "caption", "split")


def write_dataset(dataset: Dataset, out: str | Path, layout: str) -> Path:
    """Write a data set into a new folder, which appears when it is complete.

    Args:
        dataset: What to write.
        out: A folder that does not exist or is empty.
        layout: ``folders``, ``nnunet``, ``imagefolder`` or ``prompt-json``.

    Returns:
        The folder.

    Raises:
        InputError: Unknown layout, the folder holds something, a file cannot be read, or the layout cannot hold it.
    """
    folder = Path(out)
    if layout not in WRITTEN:
        raise InputError(f"--to: {layout!r} is none of {', '.join(WRITTEN)}; choose one of them")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: holds something already; name a new or empty folder")
    volumes = layout in ("folders", "nnunet")
    items = _whole_volumes(dataset) if volumes else list(dataset)
    if layout == "nnunet":
        _check_nnunet(dataset)
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        beside.mkdir()
        with naming(folder):
            _write(dataset, items, beside, layout)
        if folder.exists():
            folder.rmdir()
        beside.replace(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def save_image(path: Path, image: NDArray[Any]) -> None:
    """(H, W) or (H, W, 3) uint8, (H, W) uint16 to a PNG; (H, W) float32 to a TIFF (by the suffix of `path`)."""
    Image.fromarray(np.ascontiguousarray(image)).save(path)


def save_mask(path: Path, labels: NDArray[Any], n_classes: int, as_labels: bool = False) -> None:
    """Label ids (H, W) below 256 as an 8-bit PNG: 0/255 where there are two classes, unless `as_labels`."""
    scale = 255 if n_classes == 2 and not as_labels else 1
    Image.fromarray((labels * scale).astype(np.uint8)).save(path)


def write_classes(folder: Path, classes: Iterable[str]) -> None:
    """classes.txt, where the names say more than that there is a background and a lesion."""
    names = tuple(classes)
    if names != default_classes(2):
        (folder / "classes.txt").write_text("\n".join(names) + "\n", encoding="utf-8")


def write_records_csv(folder: Path, records: Iterable[Record]) -> None:
    """records.csv with id, subject, class, caption, split, and a column for each of the facts that any record has."""
    rows = list(records)
    facts = [name for name in FACTS if any(name in r.facts for r in rows)]
    with (folder / "records.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow([*_COLUMNS, *facts])
        for r in rows:
            known = [r.facts.get(name, "") for name in facts]
            table.writerow([r.id, r.subject or "", r.label or "", r.caption or "", r.split or "", *known])


def _write(dataset: Dataset, items: list[Record], folder: Path, layout: str) -> None:
    volumes = layout in ("folders", "nnunet")
    common = _common_ending(items) if layout == "nnunet" else None
    rgb = common not in (None, ".nii.gz") and any(load_image(r).ndim == 3 for r in items)
    rows = []
    for record in track(items, "writing", len(items)):
        ending = common or _ending(record, volumes)
        image, mask = _names(record, layout, ending)
        for path in (image, mask):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
        _write_image(record, folder / image, ending, rgb)
        if record.mask is not None:
            _write_mask(record, dataset, folder / mask, layout == "nnunet")
        rows.append(_row(layout, record, image, mask))
    write_records_csv(folder, items)
    if layout == "nnunet":
        _describe_nnunet(dataset, items, folder, common, rgb)
    else:
        write_classes(folder, dataset.classes)
    manifest = {"imagefolder": "metadata.jsonl", "prompt-json": "prompt.json"}.get(layout)
    if manifest:
        _write_lines(folder / manifest, rows)
    origins = [{**r.origin, "id": r.id} for r in items if r.origin is not None]
    if origins:  # the hashes were those of other files
        _write_lines(folder / "manifest.jsonl", [{k: v for k, v in o.items() if k != "sha256"} for o in origins])


def _names(record: Record, layout: str, ending: str) -> tuple[str, str]:
    mask_ending = ending if ending != ".tif" or layout == "nnunet" else ".png"
    if layout == "nnunet":
        part = "Ts" if record.split == "test" else "Tr"
        return f"images{part}/{record.id}_0000{ending}", f"labels{part}/{record.id}{mask_ending}"
    return f"images/{record.id}{ending}", f"masks/{record.id}{mask_ending}"


def _row(layout: str, record: Record, image: str, mask: str) -> dict[str, Any]:
    held = mask if record.mask is not None else None
    if layout == "imagefolder":
        return {"image_file_name": image, "mask_file_name": held, "text": record.caption}
    return {"source": held, "target": image, "prompt": record.caption or ""}


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _ending(record: Record, volumes: bool) -> str:
    if record.plane is not None and volumes:
        return ".nii.gz"
    may_be_float = record.plane is not None or record.image.suffix.lower() in (".tif", ".tiff")
    return ".tif" if may_be_float and load_image(record).dtype == np.float32 else ".png"


def _common_ending(items: list[Record]) -> str:
    """The one file ending of an nnU-Net folder: TIFF as soon as one picture needs it."""
    endings = {_ending(record, volumes=True) for record in items}
    if len(endings) > 1 and ".nii.gz" in endings:
        raise InputError(f"{items[0].image}: volumes and pictures are mixed; convert them apart")
    return max(endings)  # .tif after .png


def _whole_volumes(dataset: Dataset) -> list[Record]:
    """The records, those of one volume replaced by the first of them under the volume's name."""
    items: dict[Path | str, Record] = {}
    slices: dict[Path, int] = {}
    for record in dataset:
        if record.plane is None:
            items[record.id] = record
            continue
        slices[record.image] = slices.get(record.image, 0) + 1
        items.setdefault(record.image, replace(record, id=case_of(record)))
    for path, n in slices.items():
        axis = items[path].plane
        if axis is not None and n != volume_shape(path)[axis[0]]:
            raise InputError(f"{path}: only {n} of its slices are given; convert whole volumes, or to imagefolder")
    return list(items.values())


def case_of(record: Record) -> str:
    """Name of the volume that a slice belongs to."""
    return record.id.rsplit("_z", 1)[0]


def _write_image(record: Record, path: Path, ending: str, rgb: bool) -> None:
    if ending == ".nii.gz":
        _copy_volume(record.image, path)
        return
    image = load_image(record)
    if rgb and image.dtype != np.uint8:
        raise InputError(f"{record.image}: has more than 8 bits, others are RGB; convert the two kinds apart")
    if rgb:
        image = to_rgb_uint8(image)
    save_image(path, image.astype(np.float32) if ending == ".tif" and image.ndim == 2 else image)


def _copy_volume(source: Path, path: Path) -> None:
    if source.name.lower().endswith(".gz"):
        shutil.copyfile(source, path)
        return
    with source.open("rb") as raw, gzip.open(path, "wb") as packed:
        shutil.copyfileobj(raw, packed)


def _write_mask(record: Record, dataset: Dataset, path: Path, as_labels: bool) -> None:
    if path.name.endswith(".nii.gz") and record.mask is not None:
        import nibabel

        labels = apply_rule(label_volume(record.mask), dataset.mask_values, record.mask)
        source: Any = nibabel.load(record.mask)
        made: Any = nibabel.Nifti1Image  # nibabel's classes carry no types
        nibabel.save(made(labels.astype(np.uint8), source.affine), path)
        return
    save_mask(path, load_mask(record, dataset.mask_values), len(dataset.classes), as_labels)


def _check_nnunet(dataset: Dataset) -> None:
    for record in dataset:
        if record.mask is None and record.split != "test":
            raise InputError(f"{record.image}: has no mask, which nnU-Net's training images need; leave it out")


def _describe_nnunet(dataset: Dataset, items: list[Record], folder: Path, ending: str | None, rgb: bool) -> None:
    described = {
        "channel_names": {"0": "R", "1": "G", "2": "B"} if rgb else {"0": "grey"},
        "labels": {name: i for i, name in enumerate(dataset.classes)},
        "numTraining": sum(r.split != "test" for r in items),
        "file_ending": ending,
    }
    (folder / "dataset.json").write_text(json.dumps(described, indent=1), encoding="utf-8")
    parts = {name: tuple(r.id for r in dataset if r.split == name) for name in ("train", "val", "test")}
    if parts["train"] and parts["val"]:
        fold = Fold(parts["train"], parts["test"], parts["val"])
        division = Division("given", "stated", 0, ids_hash(dataset.ids), (), (fold,))
        (folder / "splits_final.json").write_text(json.dumps(nnunet_splits(division, dataset), indent=1))
