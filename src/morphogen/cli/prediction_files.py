"""The folder that ``morphogen predict`` writes: whose it is, and the files in it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morphogen.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MANIFEST = "predictions.json"


def claim(out: Path, digest: str, sampling: Mapping[str, Any], meaning: Mapping[str, Any]) -> None:
    """Make `out` the folder of one segmenter's predictions of one kind, or refuse to mix two.

    Args:
        out: New, empty, or of an earlier call.
        digest: Hash of the segmenter.
        sampling: The settings that its predictions depend on.
        meaning: What the files say: ``{"probabilities": True}``, or which value stands for which class.

    Raises:
        InputError: It holds something else.
    """
    from morphogen.files import write_json

    path = out / MANIFEST
    maps = bool(meaning.get("probabilities"))
    try:
        if path.exists():
            note = json.loads(path.read_text())
            if note["hash"] != digest:
                raise InputError(f"{out}: holds the predictions of another segmenter; name another --out")
            if note.get("probabilities", False) != maps:
                held = "labels" if maps else "probability maps"
                raise InputError(f"{out}: holds {held} of this segmenter; name another --out")
            if note.get("sampling", {}) != sampling:
                raise InputError(f"{out}: holds predictions with other settings; name another --out")
            return
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: is not the note of an earlier call; name another --out") from error
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: holds other files; name a new or empty --out folder")
    out.mkdir(parents=True, exist_ok=True)
    write_json(path, {"hash": digest, **meaning, **({"sampling": sampling} if sampling else {})})


def refuse_maps(run: Path, classes: tuple[str, ...]) -> None:
    """Refuse probability maps of more than two classes.

    Raises:
        InputError: There are more.
    """
    if len(classes) != 2:
        fault = f"{run}: tells {len(classes)} classes apart"
        raise InputError(f"{fault}; --probabilities writes the one foreground of two, so leave it out")


def finished(path: Path) -> bool:
    """Whether an earlier call wrote this mask; it was renamed into place whole, so decoding it is proof enough."""
    from morphogen.data.images import is_volume
    from morphogen.data.masks import label_volume, raw_mask

    try:
        (label_volume if is_volume(path) else raw_mask)(path)
    except InputError:
        return False
    return True


def eight_bits(values: NDArray[np.float32], scale: float = 1.0) -> NDArray[np.uint8]:
    """Values in [0, scale] -> the same in 0 to 255."""
    import numpy as np

    return np.round(255 * (values / scale).clip(0, 1)).astype(np.uint8)


def nifti(values: NDArray[np.uint8], like: Path | None) -> bytes:
    """A compressed NIfTI file.

    Args:
        values: (X, Y, Z).
        like: The NIfTI volume in whose place it lies: affine, both of the header's transforms and the units are its.
            None: the affine is the identity.
    """
    import nibabel
    import numpy as np

    made: Any = nibabel.Nifti1Image  # nibabel's classes carry no types
    if like is None:
        image = made(values, np.eye(4))
    else:
        source: Any = nibabel.load(like)
        image = made(values, source.affine)
        for form in ("qform", "sform"):
            try:
                matrix, code = getattr(source, f"get_{form}")(coded=True)
            except ValueError:  # a quaternion that is none; nobody could read it, and the affine is kept
                continue
            getattr(image, f"set_{form}")(matrix, int(code))
        image.header.set_xyzt_units(*source.header.get_xyzt_units())
    return gzip.compress(image.to_bytes(), mtime=0)
