"""Two folders of mask files, matched by stem and read by rules that are decided before anything is scored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from morphogen.data.faults import FaultError
from morphogen.data.images import is_image, is_volume, open_image, stem
from morphogen.data.mask_values import (
    MaskRule,
    check_rule,
    default_classes,
    rule_from_counts,
    sample_for_values,
    verify_mask_values,
)
from morphogen.data.masks import MAX_CLASSES, apply_rule, label_volume, raw_mask, value_counts
from morphogen.data.volumes.files import is_volume_file, raw_label
from morphogen.data.volumes.hdf5 import is_h5
from morphogen.errors import InputError
from morphogen.metrics.geometry import same_place, spacing_of

MANY_VALUES = 12
"""More values than this, and a file is taken for probabilities rather than for labels."""
Counts = Mapping[Path, Mapping[int, int]]
"""File -> raw value -> number of pixels."""


@dataclass(frozen=True)
class MaskPair:
    """One prediction and its reference: arrays of one shape; a volume of one slice has two axes.

    Attributes:
        id: Stem of the files.
        pred: Label map; uint8 grey values where probabilities are compared.
        ref: Label map.
        spacing: Size of a pixel along each axis in mm; distances are in px where None.
    """

    id: str
    pred: np.ndarray
    ref: np.ndarray
    spacing: tuple[float, ...] | None


@dataclass(frozen=True)
class MaskPairs:
    """Matched mask files.

    Attributes:
        files: Stem -> (prediction, reference), ordered by stem.
        pred_values: Raw value -> label id of the predictions; None where they are probabilities.
        ref_values: Likewise of the references.
        classes: Class names by label id.
        spacing: Size of a pixel in mm, one number for every axis or one per axis; () for distances in px; None: px for
            pictures, what the header says for volumes, whose headers must then agree.
        notes: What was noticed while the rules were decided.
    """

    files: Mapping[str, tuple[Path, Path]]
    pred_values: Mapping[int, int] | None
    ref_values: Mapping[int, int]
    classes: tuple[str, ...]
    spacing: tuple[float, ...] | None = None
    notes: tuple[str, ...] = ()

    @property
    def volumes(self) -> bool:
        """Whether the files are volumes."""
        return any(is_volume_file(ref) for _, ref in self.files.values())

    @property
    def in_mm(self) -> bool:
        """Whether distances can be had in mm."""
        return all(is_volume(ref) for _, ref in self.files.values()) if self.spacing is None else bool(self.spacing)

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[MaskPair]:
        """Read the pairs one by one; errors as in `read`."""
        return map(self.read, self.files)

    def read(self, name: str) -> MaskPair:
        """Read one pair.

        Raises:
            InputError: A file is unreadable, holds a value without a rule, differs from its partner in size, or is a
                volume that lies elsewhere than its partner.
        """
        pred_file, ref_file = self.files[name]
        pred = _grey(pred_file) if self.pred_values is None else _labels(pred_file, self.pred_values)
        ref = _labels(ref_file, self.ref_values)
        if pred.shape != ref.shape:
            sizes = f"is {_size(pred)}, its reference {ref_file} is {_size(ref)}"
            raise InputError(f"{pred_file}: {sizes}; predict at the size of the reference")
        spacing = self._spacing(pred_file, ref_file, ref.ndim)
        if ref.ndim == 3 and ref.shape.count(1) == 1:  # a slice: in 3D all of it would be surface
            flat = ref.shape.index(1)
            pred, ref = pred.squeeze(flat), ref.squeeze(flat)
            spacing = None if spacing is None else spacing[:flat] + spacing[flat + 1 :]
        return MaskPair(name, pred, ref, spacing)

    def _spacing(self, pred_file: Path, ref_file: Path, axes: int) -> tuple[float, ...] | None:
        if self.spacing is None:
            if not is_volume(ref_file):
                return None
            same_place(pred_file, ref_file)
            return spacing_of(ref_file)
        if len(self.spacing) not in (0, 1, axes):
            fault = f"--spacing: has {len(self.spacing)} numbers, {ref_file} has {axes} axes"
            raise InputError(f"{fault}; give one number, or one for each axis")
        return self.spacing * (axes if len(self.spacing) == 1 else 1) or None


def match_masks(
    pred: Path,
    ref: Path,
    mask_values: Mapping[int, int] | None = None,
    spacing: tuple[float, ...] | None = None,
    probabilities: bool = False,
) -> MaskPairs:
    """Match two folders.

    Args:
        pred: Folder with predicted masks, in ``masks/`` or directly.
        ref: Folder with reference masks, likewise.
        mask_values: Raw value -> label id of the references, where the rule is to be stated rather than found.
            Predictions follow it too, unless they hold label ids.
        spacing: As in `MaskPairs`.
        probabilities: The predictions are 8-bit grey maps of the foreground's probability.

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
    files = {name: (predictions[name], references[name]) for name in sorted(references)}
    _one_kind(files)
    rule = _ref_rule([ref_file for _, ref_file in files.values()], mask_values)
    notes = tuple(f"references: {note}" for note in rule.notes)
    pairs = MaskPairs(files, None, rule.values, rule.classes, spacing, notes)
    if probabilities:
        if pairs.volumes or len(rule.classes) != 2:
            found = "volumes" if pairs.volumes else f"{len(rule.classes)} classes"
            raise InputError(f"{ref}: holds {found}; --probabilities compares pictures of two classes")
        return pairs
    return with_rule_of_predictions(pairs, rule)


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


def _one_kind(files: Mapping[str, tuple[Path, Path]]) -> None:
    """Refuse pictures beside volumes: distances in px and in mm have no mean."""
    every = [file for pair in files.values() for file in pair]
    for file in every:
        if is_volume(file) != is_volume(every[0]):
            raise InputError(
                f"{file}: a picture beside volumes, or the reverse ({every[0]}); compare them one kind a time"
            )


def _ref_rule(files: list[Path], stated: Mapping[int, int] | None) -> MaskRule:
    sample = sample_for_values(files)
    if stated is None:
        return rule_from_counts(_counted(sample, value_counts))
    check_rule(stated)
    verify_mask_values(sample, stated)
    return MaskRule(dict(stated), default_classes(max(stated.values()) + 1))


def with_rule_of_predictions(pairs: MaskPairs, ref: MaskRule) -> MaskPairs:
    """The pairs with how their predictions are read, found in these.

    Args:
        pairs: Their predictions are label maps; `pred_values` is still None.
        ref: How the references are read.

    Raises:
        InputError: A prediction is unreadable, or its values are neither label ids nor those of the references.
    """
    counts = _counted(sample_for_values([pred for pred, _ in pairs.files.values()]), _label_counts)
    rule = _pred_rule(counts, ref)
    notes = (*pairs.notes, *(f"predictions: {note}" for note in rule.notes))
    return replace(pairs, pred_values=rule.values, classes=max(ref.classes, rule.classes, key=len), notes=notes)


def _pred_rule(counts: Counts, ref: MaskRule) -> MaskRule:
    """Label ids, or the values of the references; predictions of few images need not hold every class."""
    values = {value for count in counts.values() for value in count}
    known = {0: 0, 255: 1} if ref.notes else ref.values  # smeared references say nothing of soft predictions
    if values <= set(known):
        if values <= set(range(len(ref.classes))) and any(known[value] != value for value in values):
            raise _two_meanings(counts, values)
        return MaskRule(dict(known), ref.classes)
    if len(ref.classes) < len(values) <= MAX_CLASSES // 8 and values == set(range(len(values))):
        names = (*ref.classes, *default_classes(len(values))[len(ref.classes) :])  # classes that no reference knows
        return MaskRule({value: value for value in values}, names)
    try:
        rule = rule_from_counts(counts, ref.classes)
    except FaultError as error:
        if len(values) > MANY_VALUES:
            raise _soft(counts) from None
        # --mask-values is about the references, which the other errors of this rule advise
        listed = ", ".join(map(str, sorted(ref.values)))
        remedy = (
            f"save the predictions as labels 0 to {len(ref.classes) - 1}, or with the references' values ({listed})"
        )
        raise InputError(f"{error.fault.file}: {error.fault.fault}; {remedy}") from None
    if rule.notes and any(file.suffix.lower() not in (".jpg", ".jpeg") for file in counts):
        raise _soft(counts)
    return rule


def _two_meanings(counts: Counts, values: set[int]) -> InputError:
    """Predictions that may be label ids (as `predict` writes them) or values of the references, with other meanings."""
    file = max(counts, key=lambda key: len(counts[key]))
    fault = f"its values {', '.join(map(str, sorted(values)))} are labels, and by --mask-values other labels"
    return InputError(f"{file}: {fault}; save the references as labels 0 to K-1, and leave --mask-values out")


def _soft(counts: Counts) -> InputError:
    file = max(counts, key=lambda key: len(counts[key]))
    fault = f"holds {len(counts[file])} grey values, probabilities rather than labels"
    return InputError(f"{file}: {fault}; compare such maps with --probabilities, or save labels")


def _counted(files: list[Path], count: Callable[[Path], dict[int, int]]) -> Counts:
    with ThreadPoolExecutor() as pool:  # decoding happens outside Python's lock
        return dict(zip(files, pool.map(count, files), strict=True))


def _label_counts(file: Path) -> dict[int, int]:
    try:
        return value_counts(file)
    except FaultError as error:
        if error.fault.fault.startswith("is not a label map"):
            remedy = "save labels as whole grey values, or probabilities as 8-bit PNG for --probabilities"
            raise InputError(f"{file}: {error.fault.fault}; {remedy}") from None
        raise


def _labels(file: Path, rule: Mapping[int, int]) -> np.ndarray:
    if is_volume(file) or is_h5(file):
        return apply_rule(raw_label(file) if is_h5(file) else label_volume(file), rule, file)
    with open_image(file) as image:
        grey = np.asarray(image) if image.mode == "L" else None
    if grey is None:
        return apply_rule(raw_mask(file), rule, file)
    labels = np.array([rule.get(value, 255) for value in range(256)], dtype=np.uint8)[grey]
    if len(rule) < 256 and labels.max() == 255:
        apply_rule(grey.astype(np.int64), rule, file)  # says which value has no rule
    return labels


def _grey(file: Path) -> np.ndarray:
    """(H, W) uint8 probabilities.

    Raises:
        InputError: Unreadable, or not grey with 8 bits.
    """
    with open_image(file) as image:
        if image.mode not in ("L", "1"):
            raise FaultError(
                file, f"is no 8-bit grey map of probabilities (mode {image.mode})", "save round(255 p) as a grey PNG"
            )
        return np.array(image.convert("L"))


def _size(mask: np.ndarray) -> str:
    if mask.ndim == 2:
        return f"{mask.shape[1]} x {mask.shape[0]} px"
    return " x ".join(map(str, mask.shape)) + " voxels"
