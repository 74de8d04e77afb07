"""Predicted volumes in NIfTI files, matched with the labels of a folder of volumes in any layout."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from morphogen.data.images import VOLUME_SUFFIXES, is_volume
from morphogen.data.mask_values import MaskRule
from morphogen.data.volumes.labels import decide_label_values
from morphogen.data.volumes.presets import find_preset
from morphogen.data.volumes.readers import read_volumes
from morphogen.errors import InputError
from morphogen.metrics.mask_files import MaskPairs, with_rule_of_predictions


def match_volumes(
    pred: Path,
    ref: Path,
    preset: str | None = None,
    part: str | None = None,
    mask_values: Mapping[int, int] | None = None,
    spacing: tuple[float, ...] | None = None,
) -> MaskPairs:
    """Match predictions with references by id.

    Args:
        pred: Folder with ID.nii.gz or ID.nii, directly or in ``masks/``. A file without a reference is left out, since
            `predict` segments unlabelled volumes too.
        ref: Folder of volumes as `read_volumes` reads it, of which the labelled ones are taken; or of NIfTI label maps
            alone, directly or in ``masks/``.
        preset: Benchmark of the references.
        part: ``train``, ``val`` or ``test`` of the references; all where None.
        mask_values: Raw value -> label id of the references, where the rule is to be stated rather than found.
        spacing: As in `MaskPairs`; where it is None and a preset states the voxel size, that one.

    Raises:
        InputError: A folder is missing or empty, a reference has no prediction, or values are no labels.
    """
    references, rule, left = _references(ref, preset, part, mask_values)
    if spacing is None and preset is not None:
        spacing = find_preset(preset).spacing
    folder = pred / "masks" if (pred / "masks").is_dir() else pred
    if not folder.is_dir():
        raise InputError(f"{pred}: is not a folder; give the folder that holds the predicted volumes")
    files = {}
    for name, file in sorted(references.items()):
        there = [folder / f"{name}{ending}" for ending in VOLUME_SUFFIXES if (folder / f"{name}{ending}").is_file()]
        if not there:
            remedy = "predict it, or name the --part that was predicted"
            raise InputError(f"{file}: has no prediction {name}.nii.gz in {folder}; {remedy}")
        if len(there) > 1:
            raise InputError(f"{there[1]}: shares its stem with {there[0].name}; remove one of the two")
        files[name] = (there[0], file)
    notes = [*rule.notes]
    if left:
        notes.append(f"volumes without a label, left out: {left}")
    if more := sum(map(is_volume, folder.rglob("*"))) - len(files):
        notes.append(f"predictions without a reference, left out: {more}")
    pairs = MaskPairs(files, None, rule.values, rule.classes, spacing, tuple(notes))
    return with_rule_of_predictions(pairs, rule)


def _references(
    ref: Path, preset: str | None, part: str | None, stated: Mapping[int, int] | None
) -> tuple[dict[str, Path], MaskRule, int]:
    """Label files by id, how they are read, and how many volumes have none."""
    alone = (ref / "masks").is_dir() and not (ref / "images").is_dir()
    data = read_volumes(ref / "masks" if alone and preset is None else ref, preset, mask_values=stated)
    records = [record for record in data if part in (None, record.split)]
    if not records:
        raise InputError(f"{ref}: has no {part} part; leave --part out, or name a folder with lists")
    if data.annotated.records:
        files = {record.id: record.mask for record in records if record.mask is not None}
        if not files:
            raise InputError(f"{ref}: has no label in its {part} part; name another --part")
        return files, MaskRule(dict(data.mask_values), data.classes), len(records) - len(files)
    files = {record.id: record.image for record in records}  # what a folder of label maps alone looks like
    if stated is not None:
        return files, MaskRule(dict(data.mask_values), data.classes), 0
    return files, decide_label_values(list(files.values())), 0
