"""The audits that every study makes of its synthetic images: copies of training images, leakage, duplicates.

The memorisation audit sees what the generator saw, and real images outside the test part that it did not see. Leakage
is about the test part: its images are compared with others here, which is counted, but nothing is chosen by them, and
no score is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from morphogen.audit.nearest import ImageSet as Audited
from morphogen.data.duplicates import grey_thumbnail
from morphogen.errors import InputError
from morphogen.progress import say
from morphogen.study.arms import OWN, Variant
from morphogen.study.bench import AUDIT, Bench
from morphogen.study.generators import uses_foundation
from morphogen.study.recipe import OWN_TEST
from morphogen.study.splits import Repetition
from morphogen.study.synthesis import as_pictures, foundation_card, generator_run, synthetic_rows

if TYPE_CHECKING:
    from morphogen.study.quality import ImageSet

MOST_PAIRS = 24
"""Closest pairs that are kept."""
MOST_GROUPS = 24
"""Groups of duplicates that are kept."""


def audits(
    bench: Bench, repetition: Repetition, sets: Mapping[str, ImageSet], picture: Path, variant: Variant = OWN
) -> dict[str, Any]:
    """All audits of one repetition.

    Args:
        bench: The study.
        repetition: Whose images.
        sets: ``synthetic``, ``train`` and ``held_out`` of `morphogen.study.quality.image_sets`.
        picture: Where the closest pairs are drawn.
        variant: Whose the synthetic ones are, and how they were sampled.

    Returns:
        ``memorisation`` (empty where the training images do not differ), ``leakage`` and ``duplicates``.
    """
    from morphogen.audit.duplicates import duplicates

    synthetic = audited(sets["synthetic"])
    twins = duplicates(synthetic.ids, synthetic.thumbnails, audited(sets["train"]).thumbnails)
    return {
        "memorisation": copies(bench, repetition, sets, picture),
        "leakage": leaks(bench, repetition, synthetic, variant),
        "duplicates": {**twins, "groups": twins["groups"][:MOST_GROUPS]},
    }


def audited(images: ImageSet, subjects: Sequence[str] | None = None) -> Audited:
    """The images as the audit wants them."""
    thumbnails = [grey_thumbnail(image) for image in as_pictures(images.images)]
    return Audited(images.ids, np.array(thumbnails, np.float32).reshape(-1, 32, 32), images.features, subjects)


def copies(bench: Bench, repetition: Repetition, sets: Mapping[str, ImageSet], picture: Path) -> dict[str, Any]:
    """Which synthetic images are nearer to one that the generator saw than real images are.

    Empty where the training images do not differ, so that nothing says what is near.
    """
    from morphogen.audit.figure import draw_pairs
    from morphogen.audit.memorisation import memorisation

    of = bench.splits.subjects
    real, held_out = (audited(sets[name], [of[i] for i in sets[name].ids]) for name in ("train", "held_out"))
    try:
        found = memorisation(audited(sets["synthetic"]), real, held_out)
    except InputError as error:  # real images without a difference: no reason to lose the study
        say(f"no audit of {repetition.label}: {error}")
        return {}
    shown = {
        name: dict(zip(sets[name].ids, as_pictures(sets[name].images), strict=True)) for name in ("synthetic", "train")
    }
    draw_pairs(found["pairs"], shown["synthetic"].__getitem__, shown["train"].__getitem__, picture)
    return {**found, "pairs": found["pairs"][:MOST_PAIRS]}


def leaks(bench: Bench, repetition: Repetition, synthetic: Audited, variant: Variant = OWN) -> dict[str, Any]:
    """Whether the test part was used: by the synthetic pairs, by the generator, by its foundation, by a sibling."""
    from morphogen.audit.parts import Origin, Part, leakage, recorded_ids

    def part(name: str, ids: Sequence[str]) -> Part:
        return Part.of(name, bench.dataset.select(ids), bench.splits.subjects)

    train, validation = part("train", repetition.train), part("validation", repetition.validation)
    rest = part("pool", (*repetition.extra, *repetition.pool))
    test = bench.dataset.select(repetition.test)
    bench.count_read(f"{AUDIT}.{repetition.label}", OWN_TEST, len(test))
    learnt = recorded_ids(generator_run(bench.of(variant), repetition)) or repetition.train
    founded = uses_foundation(bench.of(variant).config)
    card = foundation_card(bench.of(variant).config) if founded else None
    origin = Origin(synthetic_rows(bench, repetition, variant), learnt, card, founded)
    return leakage(synthetic, origin, train, [validation, rest], (part("test", repetition.test), test))
