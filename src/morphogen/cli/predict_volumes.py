"""What ``morphogen predict`` does with a segmenter of volumes: one NIfTI file for each volume, on its own grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from morphogen.cli.prediction_files import claim, eight_bits, finished, nifti, refuse_maps
from morphogen.data.images import stem
from morphogen.data.records import Record
from morphogen.data.volumes.files import is_volume_file
from morphogen.data.volumes.hdf5 import is_h5
from morphogen.data.volumes.presets import find_preset
from morphogen.data.volumes.readers import read_volumes
from morphogen.errors import InputError
from morphogen.files import write_bytes
from morphogen.progress import Stage, say
from morphogen.segmenters.diffcl.volume_predictor import VolumePredictor, VolumeSettings


def predict_volumes(
    run: Path, records: list[Record], out: Path, settings: VolumeSettings, probabilities: bool, device: str
) -> dict[str, Any]:
    """Write ``ID.nii.gz`` for every volume that an earlier call has left out.

    Args:
        run: Run folder of the segmenter.
        records: The volumes, as of `volume_records`.
        out: Folder to write.
        settings: How it shall predict.
        probabilities: Write the foreground's probability (255 = 1) instead of label ids.
        device: Where the networks work.

    Raises:
        InputError: No segmenter of volumes, settings that it does not have, volumes that it cannot segment, or a folder
            that holds something else.
    """
    predictor = VolumePredictor.load(run, device, settings)
    if probabilities:
        refuse_maps(run, predictor.classes)
        if settings.largest_component:
            raise InputError(
                "--largest-component: is of labels, and --probabilities writes none; leave one of them out"
            )
    for record in records:
        predictor.refuse(record)
    labels = {name: number for number, name in enumerate(predictor.classes)}
    claim(
        out,
        predictor.hash,
        predictor.sampling,
        {"probabilities": True} if probabilities else {"label_of_class": labels},
    )
    if any(is_h5(record.image) for record in records):
        say("HDF5 files say nothing of voxel sizes and directions: NIfTI files with the identity as affine are written")
    targets = {out / f"{record.id}.nii.gz": record for record in records}
    missing = {path: record for path, record in targets.items() if not finished(path)}
    with Stage("predicting", len(targets), start=len(targets) - len(missing)) as stage:
        for path, record in missing.items():
            if probabilities:
                made = eight_bits(predictor.probabilities(record)[1])
            else:
                made = predictor(record).astype(np.uint8)
            path.parent.mkdir(parents=True, exist_ok=True)  # lists may name volumes of folders in folders
            write_bytes(path, nifti(made, None if is_h5(record.image) else record.image))
            stage.advance()
    say(f"{len(targets)} {'probability maps' if probabilities else 'label maps'}, {len(missing)} of them new, in {out}")
    return {
        "out": str(out),
        "n": len(targets),
        "made": len(missing),
        "segmenter": predictor.config[predictor.kind],
        "method": predictor.config["method"],
        "sampling": predictor.sampling,
        "classes": list(predictor.classes),
        "hash": predictor.hash,
    }


def volume_records(volumes: Path, preset: str | None, part: str | None) -> list[Record]:
    """The volumes of a folder in any layout, or the one that a file holds; labels are not looked at.

    Args:
        volumes: Folder or file.
        preset: Benchmark that says where files lie and in which order their axes come.
        part: Part to take; all of them where None.

    Raises:
        InputError: No volumes, or none of that part.
    """
    if volumes.is_file():
        if not is_volume_file(volumes):
            raise InputError(f"{volumes}: is not a NIfTI or HDF5 file; name one, or a folder of volumes")
        name = stem(volumes)
        records = [Record(name, volumes, axes=find_preset(preset).axes if preset else None)]
    else:
        # with a rule stated no label is decoded to find one
        records = list(read_volumes(volumes, preset, mask_values={0: 0, 1: 1}))
    kept = [record for record in records if part in (None, record.split)]
    if not kept:
        raise InputError(f"{volumes}: has no {part} part; leave --part out, or name a folder with lists")
    return kept
