"""Everything that is wrong with a data set, at once, and what it looks like.

Fatal faults stop a study: files that cannot be read, sizes or partners that do not fit, mask values that are no labels,
paths that leave the folder, unknown or repeated ids, no foreground at all. The others are notes: empty masks, EXIF
rotation, near-duplicates, subjects in two parts of a stated split, masks without an image.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from morphogen.data.duplicates import near_duplicate_pairs, signatures_of, thumbnail
from morphogen.data.faults import Fault, FaultError
from morphogen.data.fingerprint import Fingerprint
from morphogen.data.images import exif_orientation, load_image
from morphogen.data.mask_values import MaskRule, check_rule, default_classes, rule_from_counts
from morphogen.data.masks import load_mask, value_counts
from morphogen.data.nnunet import declared_classes
from morphogen.data.readers import scan
from morphogen.data.records import Record
from morphogen.data.split import ids_hash
from morphogen.data.tables import read_classes
from morphogen.progress import track

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MOST_VALUE_FAULTS = 20


@dataclass
class CheckReport:
    """`n` readable records, what they look like, and every fault, fatal ones first."""

    n: int
    image_sizes: dict[str, int]
    classes: tuple[str, ...]
    faults: list[Fault] = field(default_factory=list)
    fingerprint: dict[str, Any] = field(default_factory=dict)

    @property
    def fatal(self) -> list[Fault]:
        """The faults that stop a study."""
        return [fault for fault in self.faults if fault.fatal]

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "n": self.n,
            "image_sizes": self.image_sizes,
            "classes": list(self.classes),
            "faults": [
                {"file": str(f.file), "fault": f.fault, "remedy": f.remedy, "fatal": f.fatal} for f in self.faults
            ],
            "fingerprint": self.fingerprint,
        }


def check_dataset(path: str | Path, mask_values: Mapping[int, int] | None = None) -> CheckReport:
    """Read every pixel of a data set and report.

    Args:
        path: Its folder.
        mask_values: Raw mask value -> label id, where it is to be stated.

    Raises:
        InputError: The folder is missing, empty or in no known layout.
    """
    root = Path(path)
    faults: list[Fault] = []
    records = scan(root, sink=faults.append)
    rule = _rule(root, records, mask_values, faults)
    figures = Fingerprint(rule.classes)
    thumbnails: dict[int, NDArray[np.float32]] = {}
    known = {fault.file for fault in faults if fault.fatal}
    for index, record in enumerate(track(records, "checking", len(records))):
        try:
            thumbnails[index] = _check_image(record, figures, faults)
            if record.mask is not None and record.mask not in known and rule.values:
                _check_mask(record, rule, figures, faults)
        except FaultError as error:
            faults.append(error.fault)
    readable = [records[i] for i in thumbnails]
    faults += _duplicates(root, readable, list(thumbnails.values())) + _parted_subjects(root, records)
    if not any(f.fatal for f in faults) and any(r.mask for r in records) and not _any_foreground(figures):
        faults.append(Fault(root, "has no foreground in any mask", "check the masks, or state --mask-values"))
    seen = {str(fault): fault for fault in faults}
    ordered = sorted(seen.values(), key=lambda fault: not fault.fatal)
    return CheckReport(len(readable), dict(figures.sizes), rule.classes, ordered, _summary(readable, figures))


def _summary(records: Sequence[Record], figures: Fingerprint) -> dict[str, Any]:
    return {
        "n_annotated": sum(record.mask is not None for record in records),
        "n_subjects": len({record.subject for record in records if record.subject}),
        "ids_sha256": ids_hash(record.id for record in records),
        **figures.result(),
    }


def _any_foreground(figures: Fingerprint) -> bool:
    return any(area["n_images"] for area in figures.result()["class_areas"].values())


def _rule(root: Path, records: Sequence[Record], stated: Mapping[int, int] | None, faults: list[Fault]) -> MaskRule:
    """The rule for the masks; files that do not fit one are faults, and the others decide it."""
    counts = {}
    for file in dict.fromkeys(record.mask for record in records if record.mask is not None):
        try:
            counts[file] = value_counts(file)
        except FaultError as error:
            faults.append(error.fault)
    classes = read_classes(root) or declared_classes(root)
    if stated is not None:
        check_rule(stated)
        return MaskRule(dict(stated), default_classes(max(stated.values()) + 1))
    for _ in range(_MOST_VALUE_FAULTS):
        try:
            rule = rule_from_counts(counts, classes)
        except FaultError as error:
            faults.append(error.fault)
            del counts[error.fault.file]
            continue
        faults += [Fault(root, note, "save them as PNG to be sure", fatal=False) for note in rule.notes]
        return rule
    return MaskRule({}, tuple(classes or default_classes(2)))


def _check_image(record: Record, figures: Fingerprint, faults: list[Fault]) -> NDArray[np.float32]:
    image = load_image(record)
    figures.add_image(image)
    if image.dtype == np.float32 and not np.isfinite(image).all():
        faults.append(Fault(record.image, "holds NaN or infinite values", "replace them", fatal=False))
    if record.plane is None and exif_orientation(record.image) != 1:
        fault = f"carries the EXIF orientation {exif_orientation(record.image)}"
        remedy = "save it upright, as its mask is, without the tag"
        faults.append(Fault(record.image, fault, remedy, fatal=False))
    return thumbnail(record)


def _check_mask(record: Record, rule: MaskRule, figures: Fingerprint, faults: list[Fault]) -> None:
    labels = load_mask(record, rule.values)
    figures.add_mask(labels)
    if record.plane is None and record.mask is not None and not labels.any():
        faults.append(Fault(record.mask, "is empty", "make sure that the image shows no lesion", fatal=False))


def _duplicates(root: Path, records: Sequence[Record], thumbnails: list[NDArray[np.float32]]) -> list[Fault]:
    """A note for every near-duplicate pair that parts in a stated split, and one for all the others."""
    if not records:
        return []
    pairs = [(records[i], records[j]) for i, j in near_duplicate_pairs(signatures_of(np.stack(thumbnails)))]
    pairs = [(a, b) for a, b in pairs if a.plane is None or a.image != b.image]
    faults = [
        Fault(a.image, f"({a.split}) is a near-duplicate of {b.id} ({b.split})", "put both into one split", fatal=False)
        for a, b in pairs
        if a.split != b.split
    ]
    within = [(a, b) for a, b in pairs if a.split == b.split]
    parted = [(a, b) for a, b in within if a.subject and b.subject and a.subject != b.subject]
    for a, b in parted:
        fault = f"(subject {a.subject}) is a near-duplicate of {b.id} (subject {b.subject})"
        faults.append(Fault(a.image, fault, "give both one subject", fatal=False))
    if len(within) > len(parted):
        a, b = next(pair for pair in within if pair not in parted)
        fault = f"holds {len(within) - len(parted)} pairs of near-duplicates, {a.id} and {b.id} among them"
        faults.append(Fault(root, fault, "nothing to do: `data split` keeps them together", fatal=False))
    return faults


def _parted_subjects(root: Path, records: Sequence[Record]) -> list[Fault]:
    splits: dict[str, set[str]] = defaultdict(set)
    for record in records:
        if record.subject and record.split:
            splits[record.subject].add(record.split)
    both = sorted(subject for subject, held in splits.items() if len(held) > 1)
    if not both:
        return []
    fault = f"states a split that parts {len(both)} subjects, {both[0]} among them"
    return [Fault(root, fault, "split by subject: drop the split column", fatal=False)]
