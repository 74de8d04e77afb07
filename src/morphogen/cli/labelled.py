"""The data of a classifier: images with their classes; masks are not looked at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from morphogen.errors import InputError

if TYPE_CHECKING:
    from morphogen.data.records import Dataset


def read_labelled(path: Path, without: tuple[str, ...] = ()) -> Dataset:
    """The images of a folder, without their masks.

    Args:
        path: The folder, in any layout.
        without: Parts of a stated split to leave out.

    Raises:
        InputError: There are none, or no image has a class.
    """
    from morphogen.data.readers import scan, without_gaps
    from morphogen.data.records import Dataset
    from morphogen.data.tables import without_dropped

    found = [record for record in scan(path, sink=without_gaps) if record.split not in without]
    if not found:
        raise InputError(f"{path}: holds {' and '.join(without)} records only; give data with a training part")
    if not any(record.label for record in found):
        raise InputError(f"{path}: states no classes; give them in the column class of records.csv (id,class)")
    kept = without_dropped(path, found)
    return Dataset(path.resolve().name, path, tuple(replace(record, mask=None) for record in kept))
