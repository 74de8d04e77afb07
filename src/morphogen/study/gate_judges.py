"""The networks of a study's gates: a segmenter and a classifier of seeds of their own, trained on real pairs alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from morphogen.data.pairs import Pairs
from morphogen.data.split import take_validation
from morphogen.sampling.gates import CLASSIFIED
from morphogen.study.bench import Bench
from morphogen.study.kinds import classifiers_among, judge_of_masks
from morphogen.study.recipe import StudyConfig
from morphogen.study.splits import Repetition
from morphogen.study.synthesis import architecture_of

if TYPE_CHECKING:
    from morphogen.study.cells import Predict, Tools

SEED_OF_GATE = 2000
"""Added to the repetition's seed, so that the gate segmenter is no judge of an arm, nor that of adherence."""
HELD_OUT = 1 / 3
"""Part of the training images that the gate segmenter does not learn on."""


def trained_segmenter(bench: Bench, repetition: Repetition, tools: Tools) -> tuple[Predict, Pairs]:
    """The gate segmenter, trained, and the training pairs that it has not learnt on."""
    from morphogen.study.cells import JudgeRun

    config, seed = bench.config, SEED_OF_GATE + repetition.seed
    learnt, held_out = take_validation(bench.dataset, repetition.train, HELD_OUT, seed)
    name, architecture = gate_architecture(config)
    job = JudgeRun(
        judge=name,
        architecture=architecture,
        train=[Pairs(bench.dataset.select(learnt), config.resolution)],
        validation=Pairs(bench.dataset.select(()), config.resolution),
        augmentation="geometric",
        steps=config.steps,
        batch=config.train_batch_size,
        seed=seed,
        out=bench.out / "runs" / f"gate.{name}.{repetition.label}",
    )
    predict = tools.load(tools.train(job), config.device)
    return predict, Pairs(bench.dataset.select(held_out), config.resolution)


def gate_architecture(config: StudyConfig) -> tuple[str, dict[str, Any]]:
    """The gate segmenter: the stated one, else a U-Net of another encoder than the study's first segmenter has.

    The U-Net is the one from scratch, or where that judges, the one on an ImageNet encoder if its weights are
    installed. Else both are one architecture, with seeds of their own.
    """
    from morphogen.metrics.weights import available
    from morphogen.segmenters import resolve

    if config.gate_segmenter is not None:
        return config.gate_segmenter.partition("+")[0], architecture_of(config.gate_segmenter, config)
    judge = judge_of_masks(config.judges)
    name, options = judge.partition("+")[0], architecture_of(judge, config)
    scratch = name == "unet" and resolve(name, options)["encoder"] == "scratch"
    return "unet", {"encoder": "lite0" if scratch and available("lite0") else "scratch"}


def trained_classifier(bench: Bench, repetition: Repetition, tools: Tools) -> Predict:
    """The gate classifier, trained on all real training pairs and on nothing else."""
    from morphogen.study.cells import JudgeRun

    config, seed, name = bench.config, SEED_OF_GATE + repetition.seed, gate_classifier(bench.config)
    job = JudgeRun(
        judge=name,
        architecture={},
        train=[Pairs(bench.dataset.select(repetition.train), config.resolution)],
        validation=Pairs(bench.dataset.select(()), config.resolution),
        augmentation="geometric",
        steps=config.steps,
        batch=config.train_batch_size,
        seed=seed,
        out=bench.out / "runs" / f"gate.{name}.{repetition.label}",
        recipe={"classes": bench.image_classes, "class_balance": 1.0},
    )
    return tools.load(tools.train(job), config.device)


def gate_classifier(config: StudyConfig) -> str:
    """The gate classifier: another one than the study's first classifier, so far as that can be.

    It is the small one, or where the judge is that one, the one on ImageNet weights if these are installed and its
    strides divide the resolution. Else both are one architecture, with seeds of their own.
    """
    from morphogen.classifiers import entry
    from morphogen.metrics.weights import available

    judges = [judge.partition("+")[0] for judge in classifiers_among(config.judges)[:1]]
    fits = config.resolution % entry("lite0").multiple == 0
    return "lite0" if judges == ["small"] and fits and available("lite0") else "small"


def said_of_classifier(config: StudyConfig, repetition: Repetition) -> dict[str, Any] | None:
    if not {*CLASSIFIED} & {*config.gates}:
        return None
    return {"name": gate_classifier(config), "seed": SEED_OF_GATE + repetition.seed}
