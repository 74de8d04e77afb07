"""Two folders of mask files, matched by stem and read by rules that are decided before anything is scored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from morphogen.data.images import is_image, is_volume, stem
from morphogen.data.mask_values import (
    MaskRule,
    check_rule,
    decide_mask_values,
    default_classes,
    sample_for_values,
    verify_mask_values,
)
from morphogen.data.masks import apply_rule, label_volume, raw_mask
from morphogen.errors import InputError


@dataclass(frozen=True)
class MaskPair:
    """One prediction and its reference: label maps of one shape; `spacing` in mm for volumes, else None."""

    id: str
    pred: np.ndarray
    ref: np.ndarray
    spacing: tuple[float, ...] | None


@dataclass(frozen=True)
class MaskPairs:
    """Matched mask files.

    Attributes:
        files: Stem -> (prediction, reference), ordered by stem.
        pred_values: Raw value -> label id of the predictions.
        ref_values: Likewise of the references.
        classes: Class names by label id.
    """

    files: Mapping[str, tuple[Path, Path]]
    pred_values: Mapping[int, int]
    ref_values: Mapping[int, int]
    classes: tuple[str, ...]

    @property
    def in_mm(self) -> bool:
        """Whether distances are in mm (volumes) rather than px."""
        return any(is_volume(ref) for _, ref in self.files.values())

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[MaskPair]:
        """Read the pairs one by one.

        Raises:
            InputError: A file is unreadable, holds a value without a rule, or differs in size from its partner.
        """
        for name, (pred_file, ref_file) in self.files.items():
            pred, ref = _read(pred_file, self.pred_values), _read(ref_file, self.ref_values)
            if pred.shape != ref.shape:
                sizes = f"is {_size(pred)}, its reference {ref_file} is {_size(ref)}"
                raise InputError(f"{pred_file}: {sizes}; predict at the size of the reference")
            yield MaskPair(name, pred, ref, _spacing(ref_file))


def match_masks(pred: Path, ref: Path, mask_values: Mapping[int, int] | None = None) -> MaskPairs:
    """Match two folders.

    Args:
        pred: Folder with predicted masks, in ``masks/`` or directly.
        ref: Folder with reference masks, likewise.
        mask_values: Raw value -> label id of the references, where the rule is to be stated rather than found.
            Predictions follow it too, unless they hold label ids.

    Raises:
        InputError: A folder is missing or empty, a file has no partner, or values are no labels.
    """
    predictions, references = find_masks(pred), find_masks(ref)
    for name in sorted(references.keys() - predictions.keys()):
        raise InputError(
            f"{references[name]}: has no prediction in {pred}; predict it, or leave it out of the references"
        )
    for name in sorted(predictions.keys() - references.keys()):
        raise InputError(f"{predictions[name]}: has no reference in {ref}; add it, or remove the prediction")
    ref_rule = _ref_rule(list(references.values()), mask_values)
    pred_rule = _pred_rule(list(predictions.values()), ref_rule)
    classes = max(ref_rule.classes, pred_rule.classes, key=len)
    files = {name: (predictions[name], references[name]) for name in sorted(references)}
    return MaskPairs(files, pred_rule.values, ref_rule.values, classes)


def find_masks(folder: Path) -> dict[str, Path]:
    """Mask files by stem: those of ``folder/masks`` where it exists, else of the folder.

    Raises:
        InputError: Missing, without masks, or two files share a stem.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: is not a folder; give the folder that holds the masks")
    inner = folder / "masks" if (folder / "masks").is_dir() else folder
    found: dict[str, Path] = {}
    for file in sorted(inner.iterdir()):
        if is_image(file):
            if stem(file) in found:
                raise InputError(f"{file}: shares its stem with {found[stem(file)].name}; remove one of the two")
            found[stem(file)] = file
    if not found:
        raise InputError(f"{inner}: holds no masks; give the folder with the PNG or NIfTI files")
    return found


def _ref_rule(files: list[Path], stated: Mapping[int, int] | None) -> MaskRule:
    if stated is None:
        return decide_mask_values(sample_for_values(files))
    check_rule(stated)
    verify_mask_values(sample_for_values(files), stated)
    return MaskRule(dict(stated), default_classes(max(stated.values()) + 1))


def _pred_rule(files: list[Path], ref: MaskRule) -> MaskRule:
    """Label ids, or the values of the references; predictions of few images need not hold every class."""
    sample = sample_for_values(files)
    try:
        verify_mask_values(sample, ref.values)
    except InputError:
        return decide_mask_values(sample, ref.classes)
    return ref


def _read(file: Path, rule: Mapping[int, int]) -> np.ndarray:
    return apply_rule(label_volume(file) if is_volume(file) else raw_mask(file), rule, file)


def _spacing(file: Path) -> tuple[float, ...] | None:
    if not is_volume(file):
        return None
    import nibabel

    header: Any = nibabel.load(file).header
    return tuple(float(step) for step in header.get_zooms()[:3])


def _size(mask: np.ndarray) -> str:
    if mask.ndim == 2:
        return f"{mask.shape[1]} x {mask.shape[0]} px"
    return " x ".join(map(str, mask.shape)) + " voxels"
