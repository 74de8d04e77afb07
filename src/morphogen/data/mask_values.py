"""Which label a raw mask value means: decided once for a whole data set, and refused where it would be a guess."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from morphogen.data.faults import FaultError
from morphogen.data.images import image_size, is_volume, volume_shape
from morphogen.data.masks import MAX_CLASSES, value_counts
from morphogen.errors import InputError

PIXEL_BUDGET = 250_000_000
_BINARY_WHITES = (255, 65535)
_SMEAR_DARK, _SMEAR_BRIGHT = 32, 223
_SMEAR_BETWEEN = 0.02
_MAX_UNSTATED = 32  # more grey levels than this, without a gap, are a soft mask rather than classes


class MaskRule(NamedTuple):
    """Raw value -> label id, the class names by label id, and remarks worth a line."""

    values: dict[int, int]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()


def parse_mask_values(text: str) -> dict[int, int]:
    """``0=0,7=1,255=2`` as a mapping from raw value to label id.

    Raises:
        InputError: Not of that form, or label ids that are not 0..K-1.
    """
    try:
        rule = {int(raw): int(label) for raw, label in (pair.split("=") for pair in text.split(","))}
    except ValueError:
        raise InputError(f"--mask-values: {text!r} is not a rule; write it as 0=0,255=1") from None
    check_rule(rule)
    return rule


def check_rule(rule: Mapping[int, int]) -> None:
    """Refuse a rule whose label ids are not 0..K-1.

    Raises:
        InputError: A label id is left out, negative, or above 255.
    """
    labels = sorted(set(rule.values()))
    if len(labels) > MAX_CLASSES or labels != list(range(len(labels))):
        raise InputError(f"--mask-values: the label ids {_listed(labels)} are not 0 to K-1; number them without gaps")


def default_classes(n: int) -> tuple[str, ...]:
    """Names for n label ids, background first."""
    return ("background", "lesion") if n <= 2 else ("background", *(f"class {i}" for i in range(1, n)))


def sample_for_values(files: Sequence[Path]) -> list[Path]:
    """The files themselves, or an evenly spaced part of them where all together exceed `PIXEL_BUDGET` pixels.

    What is left out here is still read strictly, when it is loaded and by `check`.
    """
    files = list(dict.fromkeys(files))
    if not files:
        return files
    pixels = float(np.mean([_pixels(file) for file in files[:: max(1, len(files) // 16)]]))
    keep = max(1, int(PIXEL_BUDGET / max(pixels, 1.0)))
    if keep >= len(files):
        return files
    return [files[i] for i in np.unique(np.linspace(0, len(files) - 1, keep).round().astype(int))]


def _pixels(file: Path) -> int:
    return int(np.prod(volume_shape(file) if is_volume(file) else image_size(file)))


def decide_mask_values(files: Iterable[Path], classes: Sequence[str] | None = None) -> MaskRule:
    """Find the rule that reads these masks.

    Recognised: 0/1 and consecutive labels 0..K-1; 0/255 and 0/65535; and 0/255 smeared by JPEG (nearly all pixels hug
    the two ends), which is cut at 127 and noted.

    Args:
        files: Mask files; a volume counts as one.
        classes: Class names where the data state them; labels 0..K-1 need then not all occur.

    Returns:
        The rule.

    Raises:
        InputError: A file is unreadable, or the values are no labels; the line names the file, the values, the remedy.
    """
    return rule_from_counts({file: value_counts(file) for file in files}, classes)


def rule_from_counts(counts: Mapping[Path, Mapping[int, int]], classes: Sequence[str] | None = None) -> MaskRule:
    """`decide_mask_values` for value counts that have been read already."""
    total: Counter[int] = Counter()
    for count in counts.values():
        total.update(count)
    values = set(total)
    lossy = any(file.suffix.lower() in (".jpg", ".jpeg") for file in counts)
    if classes is not None and values <= set(range(len(classes))):
        return MaskRule({i: i for i in range(len(classes))}, tuple(classes))
    n = max(values, default=0) + 1
    if not lossy and values and 1 < n <= _MAX_UNSTATED and values == set(range(n)):
        return MaskRule({i: i for i in range(n)}, tuple(classes or default_classes(n)))
    if values == {1}:
        return MaskRule({0: 0, 1: 1}, tuple(classes or default_classes(2)))
    binary = classes is None or len(classes) == 2  # else which of the classes white is would be a guess
    for white in _BINARY_WHITES:
        if binary and values <= {0, white}:
            return MaskRule({0: 0, white: 1}, tuple(classes or default_classes(2)))
    if binary and _smeared(total, lossy):
        note = "the masks are 0/255 smeared by lossy compression; values above 127 are read as foreground"
        return MaskRule({v: int(v > 127) for v in range(256)}, tuple(classes or default_classes(2)), (note,))
    raise _refusal(counts, values)


def verify_mask_values(files: Iterable[Path], rule: Mapping[int, int]) -> None:
    """Refuse files with a value outside a stated rule.

    Raises:
        InputError: Names the first such file.
    """
    for file in files:
        unknown = sorted(set(value_counts(file)) - set(rule))
        if unknown:
            fault = f"holds {_values(unknown)}, which the stated rule does not cover"
            example = _example({*rule, *unknown})
            raise FaultError(file, fault, f"give a label to every value, e.g. --mask-values {example}")


def _smeared(total: Mapping[int, int], lossy: bool) -> bool:
    if min(total, default=0) < 0 or max(total, default=0) > 255:
        return False
    # A few labels beside 255 for "ignore" hug the ends too, but only compression spreads both.
    dark, bright = sum(v < _SMEAR_DARK for v in total), sum(v > _SMEAR_BRIGHT for v in total)
    if min(dark, bright) < (1 if lossy else 3):
        return False
    between = sum(n for v, n in total.items() if _SMEAR_DARK <= v <= _SMEAR_BRIGHT)
    return between <= _SMEAR_BETWEEN * sum(total.values())


def _refusal(counts: Mapping[Path, Mapping[int, int]], values: set[int]) -> FaultError:
    """Name the file to look at: the one that alone departs from what most files hold, else the one with most values."""
    kinds = Counter(frozenset(count) for count in counts.values())
    common = {v for kind, n in kinds.items() if n > len(counts) / 10 for v in kind}
    fits = [file for file, count in counts.items() if set(count) - common]
    file = (fits or sorted(counts, key=lambda f: -len(counts[f])))[0]
    held = sorted(counts[file])
    beside = "" if set(held) == values else f" ({_listed(sorted(values))} in all masks together)"
    if len(values) > 12:
        return FaultError(file, f"holds {_values(held)}, which are not labels", "save the masks as whole labels 0..K-1")
    remedy = f"state the rule with --mask-values {_example(values)}"
    return FaultError(file, f"holds {_values(held)}{beside}, which are not labels", remedy)


def _values(values: Sequence[int]) -> str:
    return f"the value{'s' if len(values) > 1 else ''} {_listed(values)}"


def _listed(values: Sequence[int]) -> str:
    shown = ", ".join(map(str, values[:8]))
    return shown if len(values) <= 8 else f"{shown}, ... ({len(values)} values)"


def _example(values: set[int]) -> str:
    return ",".join(f"{value}={label}" for label, value in enumerate(sorted(values)))
