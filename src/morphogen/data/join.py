"""Two data sets as one, so that synthetic pairs drop in beside real ones."""

from __future__ import annotations

from dataclasses import replace

from morphogen.data.records import Dataset
from morphogen.errors import InputError


def join(first: Dataset, second: Dataset) -> Dataset:
    """Records of `first`, then those of `second`; name, root and class names are those of `first`.

    Raises:
        InputError: An id is in both, or the two have other classes or read one mask value as different labels.
    """
    common = set(first.mask_values) & set(second.mask_values)
    for value in sorted(v for v in common if first.mask_values[v] != second.mask_values[v]):
        fault = f"reads the mask value {value} as another label than {first.root}"
        raise InputError(f"{second.root}: {fault}; give both the same --mask-values")
    refuse_other_classes(first, second)
    return replace(
        first, records=first.records + second.records, mask_values={**first.mask_values, **second.mask_values}
    )


def refuse_other_classes(first: Dataset, second: Dataset) -> None:
    """Refuse label ids that mean something else in `second`; names that only one of the two knows may differ.

    Raises:
        InputError: Another number of classes, or a class of both under another label id.
    """
    if len(first.classes) != len(second.classes):
        fault = f"has {len(second.classes)} classes, {first.root} has {len(first.classes)}"
        raise InputError(f"{second.root}: {fault}; give both the same classes.txt")
    for label, name in enumerate(first.classes):
        if name in second.classes and second.classes.index(name) != label:
            fault = f"numbers the class {name!r} {second.classes.index(name)}, {first.root} numbers it {label}"
            raise InputError(f"{second.root}: {fault}; give both the same classes.txt")
