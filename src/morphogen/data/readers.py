"""Reading a folder of images, in whichever layout it is, into one `Dataset`.

| layout | what is there |
|---|---|
| `folders` | images/ and masks/ with equal stems, or images alone (in images/ or in the folder itself) |
| `nnunet` | dataset.json, imagesTr, labelsTr, perhaps imagesTs and labelsTs |
| `imagefolder` | metadata.jsonl with `image_file_name` or `file_name`, `mask_file_name`, `text` |
| `prompt-json` | prompt.json, JSON lines with `source` (the mask), `target` (the image), `prompt` |
| `ham10000` | HAM10000_metadata.csv, HAM10000_images_part_1, ..., a folder of `*_segmentation.png` (`isic.py`) |
| `isic2018` | ISIC2018_Task1-2_Training_Input, ISIC2018_Task3_Training_Input, ... and their ground truth (`isic.py`) |

Beside any of them: records.csv (id, subject, class, caption, split; site or localization, age, sex, texture; other
columns are ignored), classes.txt (a class name a line, background first), manifest.jsonl (provenance of synthetic
pairs).
Only headers are read here, and the masks' values; what is deeper belongs to `check`. NIfTI volumes become one record a
slice along the third axis, slices without foreground included.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from morphogen.data import folders, isic, manifests, nnunet
from morphogen.data.faults import Fault, FaultError, Sink, stop
from morphogen.data.images import fits, image_size, is_volume, volume_shape
from morphogen.data.mask_values import (
    MaskRule,
    check_rule,
    decide_mask_values,
    default_classes,
    sample_for_values,
    verify_mask_values,
)
from morphogen.data.records import Dataset, Record
from morphogen.data.tables import add_origins, apply_records_csv, read_classes, without_dropped
from morphogen.errors import InputError

SLICE_AXIS = 2


@dataclass(frozen=True)
class _Layout:
    recognise: Callable[[Path], bool]
    scan: Callable[[Path, Sink], list[Record]]


LAYOUTS: Mapping[str, _Layout] = {
    "nnunet": _Layout(nnunet.recognise, nnunet.scan),
    "imagefolder": _Layout(manifests.recognise_imagefolder, manifests.scan_imagefolder),
    "prompt-json": _Layout(manifests.recognise_prompt_json, manifests.scan_prompt_json),
    "ham10000": _Layout(isic.recognise_ham10000, isic.scan_ham10000),
    "isic2018": _Layout(isic.recognise_isic2018, isic.scan_isic2018),
    "folders": _Layout(folders.recognise, folders.scan),
}


def find_layout(root: Path) -> str:
    """Name of the layout in a folder.

    Raises:
        InputError: Missing, not a folder, or none of the layouts.
    """
    if not root.exists():
        raise InputError(f"{root}: does not exist; give the folder that holds images/ and masks/")
    if not root.is_dir():
        raise InputError(f"{root}: is a file; give the folder that holds it")
    for name, layout in LAYOUTS.items():
        if layout.recognise(root):
            return name
    fault = "holds no images" if any(root.iterdir()) else "is empty"
    raise InputError(f"{root}: {fault}; put images into images/ and their masks, with equal stems, into masks/")


def read_dataset(
    path: str | Path,
    layout: str = "auto",
    mask_values: Mapping[int, int] | None = None,
    annotated_only: bool = False,
) -> Dataset:
    """Read a data set.

    Args:
        path: Its folder.
        layout: One of `LAYOUTS`, or ``auto``.
        mask_values: Raw mask value -> label id, where the rule is to be stated rather than found.
        annotated_only: Leave images without a mask out, instead of refusing a folder where some have one and some not.

    Returns:
        The records, ordered by id; synthetic pairs that a quality gate dropped are not among them.

    Raises:
        InputError: The first thing that is wrong: file, fault, remedy.
    """
    root = Path(path)
    records = without_dropped(root, scan(root, layout, without_gaps if annotated_only else stop))
    if annotated_only:
        records = [record for record in records if record.mask is not None]
        if not records:
            raise InputError(f"{root}: holds no image with a mask; add masks/ with the stems of images/")
    rule = mask_rule(root, records, mask_values)
    for note in rule.notes:
        stop(Fault(root, note, "save them as PNG to be sure", fatal=False))
    return Dataset(root.resolve().name, root, tuple(records), rule.classes, rule.values)


def scan(root: Path, layout: str = "auto", sink: Sink = stop) -> list[Record]:
    """Records of a folder, ordered by id, with what is wrong sent to `sink`; faulty records are left out if it returns.

    Raises:
        InputError: Nothing can be read at all, or `sink` raised.
    """
    found = find_layout(root)
    if layout not in ("auto", *LAYOUTS):
        raise InputError(f"--layout: {layout!r} is none of {', '.join(('auto', *LAYOUTS))}; choose one of them")
    chosen = found if layout == "auto" else layout
    if not LAYOUTS[chosen].recognise(root):
        raise InputError(f"{root}: is not in the layout {chosen}; it looks like {found}")
    records = LAYOUTS[chosen].scan(root, sink)
    if not records:
        raise InputError(f"{root}: holds no readable images; add PNG, JPEG, TIFF, BMP or NIfTI files")
    records = add_origins(root, apply_records_csv(root, records, sink), sink)
    good = [part for record in records for part in _checked(record, sink)]
    return sorted(good, key=lambda record: record.id)


def mask_rule(root: Path, records: Sequence[Record], stated: Mapping[int, int] | None = None) -> MaskRule:
    """The rule for the masks of these records: stated, declared by the layout, or found in the files.

    Raises:
        InputError: The values are no labels, or fall outside the rule.
    """
    classes = read_classes(root) or nnunet.declared_classes(root)
    files = sample_for_values([record.mask for record in records if record.mask is not None])
    if stated is not None:
        check_rule(stated)
        verify_mask_values(files, stated)
        n = max(max(stated.values()) + 1, 2)
        return MaskRule(dict(stated), tuple(classes) if classes and len(classes) == n else default_classes(n))
    return decide_mask_values(files, classes)


def without_gaps(fault: Fault) -> None:
    """As `stop`, but an image without a mask is no fault."""
    if not fault.fault.startswith(folders.NO_MASK):
        stop(fault)


def _checked(record: Record, sink: Sink) -> list[Record]:
    """The record, or the slices of its volume, if the headers of image and mask agree."""
    try:
        if not is_volume(record.image):
            if record.mask is not None and is_volume(record.mask):
                raise FaultError(record.mask, "is a volume, its image is not", "give both in one format")
            if not fits(record):
                raise _sizes_differ(record.mask or record.image, record)
            if record.mask is None:
                image_size(record.image)
            return [record]
        shape = volume_shape(record.image)
        if record.mask is not None and (not is_volume(record.mask) or volume_shape(record.mask) != shape):
            raise FaultError(record.mask, f"does not have the shape {shape} of its image", "resample one of the two")
    except FaultError as error:
        sink(error.fault)
        return []
    return [
        replace(record, id=f"{record.id}_z{i:03d}", subject=record.subject or record.id, plane=(SLICE_AXIS, i))
        for i in range(shape[SLICE_AXIS])
    ]


def _sizes_differ(mask: Path, record: Record) -> FaultError:
    height, width = image_size(mask)
    image_height, image_width = image_size(record.image)
    fault = f"is {width} x {height} pixels, its image {image_width} x {image_height}"
    return FaultError(mask, fault, "resize the mask with nearest neighbour, or take the matching file")
