"""Reading a folder of whole volumes, in whichever layout it is, into one `Dataset`.

| layout | what is there |
|---|---|
| `lists` | text files that name the volumes of each part (`lists.NAMES`), and one file or folder a name |
| `nnunet` | dataset.json, imagesTr, labelsTr, perhaps imagesTs and labelsTs; CASE_0000, CASE_0001, ... are channels |
| `folders` | images/ and masks/ (or labels/) with equal stems, or volumes alone (in images/ or in the folder itself) |

Files are NIfTI (.nii, .nii.gz) or HDF5 (.h5, .hdf5: arrays named image and label). Where the file of a listed name may
lie is said by the preset, else by `IMAGES`, its label by `LABELS`. A volume without a label is unlabelled, not faulty.
Beside any layout: records.csv and classes.txt, as in `data.readers`.

Headers alone are read here, and label values where no rule is known; `check.refuse_unreadable_volumes` decodes all.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from morphogen.data import nnunet
from morphogen.data.faults import Fault, FaultError, stop
from morphogen.data.images import is_image, is_volume, stem
from morphogen.data.mask_values import MaskRule, check_rule, default_classes
from morphogen.data.records import Dataset, Record
from morphogen.data.tables import apply_records_csv, inside, read_classes
from morphogen.data.volumes.files import is_volume_file
from morphogen.data.volumes.hdf5 import has_label, is_h5
from morphogen.data.volumes.labels import decide_label_values
from morphogen.data.volumes.lists import NAMES, Line, list_files, read_list, read_parts
from morphogen.data.volumes.presets import PRESETS, VolumePreset, find_preset
from morphogen.errors import InputError

IMAGES = (
    *("{id}.h5", "data/{id}.h5", "{id}.nii.gz", "{id}.nii", "images/{id}.nii.gz", "images/{id}.nii"),
    *("{id}/image.nii.gz", "{id}/image.nii", "{id}/*.h5"),
)
"""Where the file of a listed name may lie, without a preset; a star stands for the only file of that ending."""

LABELS = (
    *("masks/{id}.nii.gz", "masks/{id}.nii", "labels/{id}.nii.gz", "labels/{id}.nii"),
    *("{id}_label.nii.gz", "{id}_label.nii", "{id}/label.nii.gz", "{id}/label.nii"),
)
"""Where the label of a NIfTI volume may lie. An HDF5 file holds its own."""

_PARTS = ("train", "val", "test")


def find_volume_layout(path: str | Path, lists: str | Path | None = None) -> str:
    """Name of the layout of a folder of whole volumes.

    Args:
        path: The folder.
        lists: Folder of the lists, where they do not lie in it.

    Raises:
        InputError: Missing, not a folder, or none of the layouts.
    """
    root = Path(path)
    if not root.exists():
        raise InputError(f"{root}: does not exist; give the folder that holds the volumes")
    if not root.is_dir():
        raise InputError(f"{root}: is a file; give the folder that holds it")
    if list_files(Path(lists or root)):
        return "lists"
    if lists is not None:
        raise InputError(f"{lists}: holds no list of training volumes; name them in {' or '.join(NAMES['train'])}")
    if nnunet.recognise(root) and any(map(is_volume, (root / "imagesTr").iterdir())):
        return "nnunet"
    if any(map(is_volume_file, _image_folder(root).iterdir())):
        return "folders"
    remedy = "put NIfTI files into images/ and masks/, or name h5 or NIfTI files in train.list"
    raise InputError(f"{root}: holds no volumes; {remedy}")


def holds_volumes(path: str | Path) -> bool:
    """Whether a folder is of one of the layouts, told by names alone; never raises.

    Lists count where any name in them is that of an h5 or NIfTI file: lists of pictures are not of this kind. Faulty
    lists count too, where no pictures lie beside them: `read_volumes` says what is wrong with them.
    """
    root = Path(path)
    try:
        if find_volume_layout(root) != "lists":
            return True
    except (InputError, OSError):
        return False
    pictures = any(is_image(file) and not is_volume(file) for file in (*root.glob("*.*"), *root.glob("images/*.*")))
    try:
        files = list_files(root)
        patterns = (*IMAGES, *(pattern for preset in PRESETS.values() for pattern in preset.patterns))
        found = any(_find(root, line, patterns) is not None for file in files.values() for line in read_list(file))
        return found or not pictures
    except (InputError, OSError):
        return not pictures


def read_volumes(
    path: str | Path,
    preset: str | None = None,
    labelled: int | None = None,
    mask_values: Mapping[int, int] | None = None,
    lists: str | Path | None = None,
    without: Container[str] = (),
) -> Dataset:
    """Read a data set of whole volumes.

    Args:
        path: Its folder.
        preset: A benchmark of `presets.PRESETS`, which says where files lie and what their labels mean.
        labelled: Keep the labels of this many training volumes, the first labelled ones in their order, and hide the
            others. None: all that have one.
        mask_values: Raw value -> label id, where the rule is to be stated rather than taken from the preset, from
            dataset.json or from the values.
        lists: Folder of the lists, where they do not lie in `path`.
        without: Parts of the split that are left out before any label is opened: ``test`` where something trains.

    Returns:
        The records: train, val, then test, each in the order of its list; by id where there are no lists, and then all
        are train but nnU-Net's imagesTs and what records.csv says. `mask` is None where a volume is unlabelled.

    Raises:
        InputError: The first thing that is wrong: file, fault, remedy.

    Example:
        >>> data = read_volumes("LA", preset="la2018", labelled=8)  # doctest: +SKIP
        >>> len(data.annotated.where(lambda record: record.split == "train"))  # doctest: +SKIP
        8
    """
    chosen = None if preset is None else find_preset(preset)
    root, layout = Path(path), find_volume_layout(path, lists)
    if chosen is not None and layout != "lists":
        raise InputError(f"{root}: has none of the lists that {preset} is split by; add train.list and test.list")
    if layout == "lists":
        records = _listed(root, Path(lists or root), chosen)
    else:
        records = sorted({"nnunet": _nnunet, "folders": _folders}[layout](root), key=lambda record: record.id)
    records = apply_records_csv(root, records, stop)
    kept = [part for part in _PARTS if part not in without]
    records = [record for part in kept for record in records if record.split == part]
    if not records:
        raise InputError(f"{root}: holds no volumes but of the parts {', '.join(_PARTS)} that are left out; add some")
    if labelled is not None:
        records = _hide_labels(root, records, labelled)
    rule = _rule(root, records, chosen, mask_values)
    return Dataset(root.resolve().name, root, tuple(records), rule.classes, rule.values)


def _listed(root: Path, folder: Path, preset: VolumePreset | None) -> list[Record]:
    parts = read_parts(list_files(folder))
    patterns = preset.patterns if preset else IMAGES
    records = []
    for part, lines in parts.lines.items():
        for line in lines:
            record = replace(_record(root, line, patterns, preset), split=part)
            if line.id in parts.labelled and record.mask is None:
                told = parts.labelled[line.id]
                fault = f"{told.where} as labelled, but there is no label for {record.image}"
                raise FaultError(told.file, fault, "add it, or name the volume in the unlabelled list")
            records.append(replace(record, mask=None) if line.id in parts.unlabelled else record)
    return records


def _record(root: Path, line: Line, patterns: Iterable[str], preset: VolumePreset | None) -> Record:
    image = _find(root, line, patterns)
    if image is None:
        wanted = ", ".join(pattern.format(id=line.id) for pattern in patterns)
        fault = f"{line.where}, but {root} holds none of {wanted}"
        remedy = f"add it ({preset.source})" if preset else "add the file"
        raise FaultError(line.file, fault, f"{remedy} or remove the line")
    mask = (image if has_label(image) else None) if is_h5(image) else _find(root, line, LABELS)
    found = re.match(preset.subject, line.id) if preset and preset.subject else None
    name = re.sub(r"[/\\]", "_", line.id)  # the stem of what is written for it
    return Record(name, image, mask, subject=found[0] if found else name, axes=preset.axes if preset else None)


def _find(root: Path, line: Line, patterns: Iterable[str]) -> Path | None:
    """The first of the files that is there, never one outside of `root`."""
    for pattern in patterns:
        path = inside(root, pattern.format(id=line.id), line.file)
        if "*" in path.name:
            there = sorted(p for p in path.parent.glob(path.name) if is_volume_file(p)) if path.parent.is_dir() else []
            if len(there) > 1:
                fault = f"holds {len(there)} files {path.name}, of which one may be {line.id!r}"
                raise FaultError(path.parent, fault, "leave one, or name a preset")
            path = there[0] if there else path
        if path.is_file():
            return path
    return None


def _nnunet(root: Path) -> list[Record]:
    further: dict[str, list[Path]] = {}

    def keep(fault: Fault) -> None:
        """What a reader of single pictures refuses and a reader of volumes does not."""
        numbered = re.fullmatch(r"(.+)_(\d{4})", stem(fault.file))
        if numbered is None:
            stop(fault)
        elif int(numbered[2]):
            further.setdefault(f"{fault.file.parent}/{numbered[1]}", []).append(fault.file)

    records = []
    for record in nnunet.scan(root, keep):
        channels = further.pop(f"{record.image.parent}/{record.id}", [])
        for number, file in enumerate(channels, start=1):
            if not stem(file).endswith(f"_{number:04d}"):
                raise FaultError(file, f"comes where channel {number:04d} is missing", "add the missing file")
        split = record.split or "train"
        records.append(replace(record, channels=tuple(channels), split=split, subject=record.id))
    for files in further.values():
        raise FaultError(files[0], "has no channel 0000 beside it", "add the missing file, or remove this one")
    for record in records:
        if len(record.channels) != len(records[0].channels):
            fault = f"has {len(record.channels) + 1} channel files, {records[0].id} has {len(records[0].channels) + 1}"
            raise FaultError(record.image, fault, "give every case the same channels")
    return records


def _folders(root: Path) -> list[Record]:
    images = _by_stem(_image_folder(root))
    folder = next((root / name for name in ("masks", "labels") if (root / name).is_dir()), None)
    masks = {} if folder is None else _by_stem(folder)
    for name, path in masks.items():
        if name not in images:
            stop(Fault(path, "has no image of that stem", "add the image or remove the mask", fatal=False))
    records = []
    for name, path in images.items():
        mask = path if is_h5(path) and has_label(path) else masks.get(name)
        records.append(Record(name, path, mask, subject=name, split="train"))
    return records


def _by_stem(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in sorted(filter(is_volume_file, folder.iterdir())):
        if stem(path) in files:
            raise FaultError(path, f"has the stem of {files[stem(path)].name}", "rename or remove one of the two")
        files[stem(path)] = path
    return files


def _image_folder(root: Path) -> Path:
    return root / "images" if (root / "images").is_dir() else root


def _hide_labels(root: Path, records: list[Record], labelled: int) -> list[Record]:
    """The records, of whose training part only the first `labelled` labels are left."""
    if labelled < 1:
        raise InputError(f"labelled {labelled}: teaches nothing; give 1 or more")
    training = [record.id for record in records if record.split == "train" and record.mask is not None]
    if labelled > len(training):
        plural = "s" if len(training) != 1 else ""
        fault = f"has {len(training)} labelled training volume{plural}, not {labelled}"
        raise InputError(f"{root}: {fault}; ask for fewer, or label more")
    hidden = set(training[labelled:])
    return [replace(record, mask=None) if record.id in hidden else record for record in records]


def _rule(root: Path, records: list[Record], preset: VolumePreset | None, stated: Mapping[int, int] | None) -> MaskRule:
    classes = read_classes(root) or (preset.classes if preset else nnunet.declared_classes(root))
    if stated is not None:
        check_rule(stated)
        n = max(max(stated.values()) + 1, 2)
        return MaskRule(dict(stated), tuple(classes) if classes and len(classes) == n else default_classes(n))
    if preset is not None:
        return MaskRule(dict(preset.mask_values), preset.classes)
    return decide_label_values([record.mask for record in records if record.mask is not None], classes)
