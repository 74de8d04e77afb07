"""Who measures mask adherence: a segmenter of another architecture than any that a generator has learnt to please.

It is the study's first segmenter. Of a generator that learns with a segmenter (the refinement of ArSDM, the alignment
of `dual`) whose architecture that one has, it is the study's next one that has another; where there is none, another
network takes its place for that generator alone, one that the gates do not ask either, if there is any. So the judge
depends on generator, judges and gates, and stays the same when arms join a study. The judges of arms are what they are:
of those that have the architecture of such a segmenter the study says so.
"""

from __future__ import annotations

from typing import Any

from morphogen.generators import GENERATORS
from morphogen.sampling.gates import SEGMENTED
from morphogen.study.gate_judges import SEED_OF_GATE, gate_architecture
from morphogen.study.generators import generator_config, study_of
from morphogen.study.kinds import SEGMENTATION, judge_of_masks, kind_of
from morphogen.study.recipe import StudyConfig
from morphogen.study.splits import Repetition
from morphogen.study.synthesis import architecture_of

FURTHER = ("unet", "sanet+size=14+weights=none")
"""Take the place of the study's own segmenters. Both need no download; a generator has one segmenter at most."""

Architecture = tuple[str, dict[str, Any]]
"""A segmenter and all its options; but not where its first weights are from, which train on."""


def segmenter_of_loss(config: StudyConfig, generator: str | None = None) -> str | None:
    """The segmenter that a loss of a generator asks, in the words of a judge; None where there is none.

    Args:
        config: The study.
        generator: Whose; None for the study's own.

    Raises:
        InputError: The generator has no such preset.
    """
    theirs = study_of(config, generator)
    return GENERATORS[theirs.generator].segmenter_of_loss(generator_config(theirs, 0))


def judge_of_adherence(config: StudyConfig, generator: str | None = None) -> str:
    """The judge, of a seed of its own, that measures the adherence of a generator's images.

    Args:
        config: The study.
        generator: Whose; None for the study's own.

    Raises:
        InputError: A judge has no such option.
    """
    first, loss = judge_of_masks(config.judges), segmenter_of_loss(config, generator)
    if loss is None or not _alike(config, first, loss):
        return first
    ours = [judge for judge in config.judges if kind_of(judge) is SEGMENTATION]
    free = [judge for judge in (*ours, *FURTHER) if not _alike(config, judge, loss)]
    gate = _plain(*gate_architecture(config)) if _gated(config) else None
    return next((judge for judge in free if _architecture(config, judge) != gate), free[0])


def judges_that_resemble(config: StudyConfig, generator: str | None = None) -> list[str]:
    """The judges of arms that have the architecture of the segmenter that a generator learns with.

    Raises:
        InputError: A judge has no such option.
    """
    loss = segmenter_of_loss(config, generator)
    ours = [judge for judge in config.judges if kind_of(judge) is SEGMENTATION]
    return [judge for judge in ours if loss is not None and _alike(config, judge, loss)]


def said_of_gate(config: StudyConfig, repetition: Repetition, generator: str | None = None) -> dict[str, Any] | None:
    """Who the gate segmenter is, and whether the judge of adherence has its architecture; None where no gate asks one.

    Raises:
        InputError: One of them has no such option.
    """
    if not _gated(config):
        return None
    name, options = gate_architecture(config)
    same = _plain(name, options) == _architecture(config, judge_of_adherence(config, generator))
    seed = SEED_OF_GATE + repetition.seed
    return {"name": name, "architecture": options, "seed": seed, "architecture_of_the_judge_of_adherence": same}


def said_of_loss(config: StudyConfig, generator: str | None = None) -> dict[str, Any]:
    """``learnt_with``: the segmenter of a generator's loss, and which judges of arms resemble it; else empty.

    Raises:
        InputError: A judge has no such option.
    """
    loss = segmenter_of_loss(config, generator)
    if loss is None:
        return {}
    return {"learnt_with": {"segmenter": loss, "judges_of_its_architecture": judges_that_resemble(config, generator)}}


def _gated(config: StudyConfig) -> bool:
    """Whether a gate asks a segmenter."""
    return bool({*SEGMENTED} & {*config.gates})


def _alike(config: StudyConfig, one: str, other: str) -> bool:
    return _architecture(config, one) == _architecture(config, other)


def _architecture(config: StudyConfig, judge: str) -> Architecture:
    return _plain(judge.partition("+")[0], architecture_of(judge, config))


def _plain(name: str, options: dict[str, Any]) -> Architecture:
    from morphogen.segmenters import resolve

    return name, {option: value for option, value in resolve(name, options).items() if option != "weights"}
