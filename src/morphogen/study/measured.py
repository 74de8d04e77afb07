"""What was measured of a study's synthetic images, by generator (the JSON files in ``images/``).

A file names its generator where that is not the study's own; None stands for that one here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from morphogen.study.arms import find

Images = Mapping[str, Mapping[str, Any]]
"""Label of a repetition, with its generator and way of sampling -> content of its file."""


def measured(images: Images, generator: str | None = None) -> dict[str, Any]:
    """Of each repetition the images of a generator that were measured: as it makes them, before any other sampling."""
    found: dict[tuple[Any, Any], str] = {}
    for name in sorted(images, key=lambda name: ("sampling" in images[name], name)):
        if {"distances", "adherence"} & {*images[name]} and images[name].get("generator") == generator:
            found.setdefault((images[name].get("fold"), images[name].get("seed")), name)
    return {name: images[name] for name in images if name in found.values()}


def known(images: Images) -> list[str | None]:
    """The generators whose images were measured, the study's own first."""
    found = {values.get("generator") for values in images.values() if {"distances", "adherence"} & {*values}}
    return [*({None} & found), *sorted(name for name in found if name is not None)]


def of_arm(images: Images, arm: str) -> list[str | None]:
    """The generators whose pairs an arm trains on; one that no file names is the study's own."""
    ours, there = find(arm), known(images)
    names = ours.generators if ours else ()
    return list(dict.fromkeys(name if name in there else None for name in names)) or [None]


def adherence_of(images: Images, generators: Iterable[str | None] = (None,)) -> tuple[float, float] | None:
    """Dice of the independent segmenter on synthetic images and on real ones, means over repetitions and generators;
    None where it was not measured."""
    rows = [values for generator in generators for values in measured(images, generator).values()]
    found = [values["adherence"] for values in rows if values.get("adherence")]
    if not found:
        return None
    on_synthetic, on_real = ([float(one[name]) for one in found] for name in ("dice", "dice_on_real"))
    return sum(on_synthetic) / len(found), sum(on_real) / len(found)


def judges_of_adherence(images: Images, own: str) -> dict[str, Any]:
    """Who judged the adherence of each generator, and the segmenter that it has learnt with, where it has.

    Args:
        images: As in results.json.
        own: Name of the study's own generator.

    Returns:
        Generator -> ``judges``, more than one where repetitions are of several versions, and perhaps ``learnt_with`` as
        of `morphogen.study.independence.said_of_loss`; those whose adherence was measured.
    """
    found: dict[str, Any] = {}
    for name in known(images):
        said = [values["adherence"] for values in measured(images, name).values() if values.get("adherence")]
        learnt = [one["learnt_with"] for one in said if "learnt_with" in one]
        if said:
            found[name or own] = {"judges": sorted({one["judge"] for one in said})}
            found[name or own] |= {"learnt_with": learnt[0]} if learnt else {}
    return found


def side_by_side(images: Images, audit: Mapping[str, Any], own: str) -> dict[str, Any]:
    """``generators``: what was measured of each, where there are several; else empty.

    Args:
        images: As in results.json.
        audit: As in results.json.
        own: Name of the study's own generator.

    Returns:
        Generator -> ``repetitions``, ``pairs`` and ``accepted`` (by the gates, None without any; sums over
        repetitions), ``kid`` and ``fid`` of unfiltered images, ``adherence`` and ``adherence_on_real``, ``copies``
        (share of images that are flagged as near-copies); means over repetitions, None where not measured.
    """
    names = known(images)
    if len(names) < 2:
        return {}
    return {"generators": {name or own: _row(measured(images, name), audit) for name in names}}


def _row(found: Images, audit: Mapping[str, Any]) -> dict[str, Any]:
    rows = [values.get("distances", {}).get("rows", {}).get("synthetic") for values in found.values()]
    distances = [row for row in rows if row]
    audits = [audit.get(label, {}) for label in found]
    gates = [sections["gates"] for sections in audits if sections.get("gates")]
    both = adherence_of({label: {**values, "generator": None} for label, values in found.items()})
    return {
        "repetitions": len(found),
        "pairs": sum(int(values["n_synthetic"]) for values in found.values()),
        "accepted": sum(int(one["accepted"]) for one in gates) if gates else None,
        "kid": _mean([row["kid"]["mean"] for row in distances]),
        "fid": _mean([row["fid"] for row in distances]),
        "adherence": both[0] if both else None,
        "adherence_on_real": both[1] if both else None,
        "copies": _mean([one["memorisation"]["rate"] for one in audits if one.get("memorisation")]),
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
