"""Find damaged and contradictory volumes before a training begins, not after an hour of it."""

from __future__ import annotations

import numpy as np

from morphogen.data.faults import Fault, FaultError, stop
from morphogen.data.records import Dataset
from morphogen.data.volumes.files import read_label, read_volume, refuse_other_geometry
from morphogen.errors import InputError
from morphogen.progress import track


def refuse_unreadable_volumes(dataset: Dataset, foreground: bool = True) -> None:
    """Decode every file once.

    Args:
        dataset: What will be trained or tested on.
        foreground: Whether the labelled volumes that are trained on must hold more than background. A class that none
            of them shows is noted.

    Raises:
        InputError: A file cannot be read or holds NaN; image, channels and label have other grids; a volume has another
            number of channels than the first; a label value has no rule; no label that is trained on has foreground.
    """
    channels, seen = None, np.zeros(len(dataset.classes), dtype=bool)
    for record in track(dataset.records, "reading volumes"):
        refuse_other_geometry(record)
        n = len(read_volume(record).image)
        if channels not in (None, n):
            fault = f"has {n} channel{'s' if n > 1 else ''}, {dataset[0].image.name} has {channels}"
            raise FaultError(record.image, fault, "give every volume the same channels")
        channels = n
        if record.mask is None:
            continue
        present = np.flatnonzero(np.bincount(read_label(record, dataset.mask_values).ravel()))
        if present[-1] >= len(dataset.classes):
            fault = f"holds the label {present[-1]}, the classes are {', '.join(dataset.classes)}"
            raise FaultError(record.mask, fault, "name every class, or state the rule with --mask-values")
        if record.split in (None, "train"):
            seen[present] = True
    if not foreground or any(seen[1:]):
        missing = [name for name, there in zip(dataset.classes[1:], seen[1:], strict=True) if foreground and not there]
        if missing:
            fault = f"shows no {' and no '.join(missing)} in any label that is trained on"
            stop(Fault(dataset.root, fault, "label more volumes", fatal=False))
        return
    raise InputError(f"{dataset.root}: has no foreground in any label; check the labels, or state --mask-values")
