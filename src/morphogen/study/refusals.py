"""What a study refuses before anything is written, once its data is read and divided."""

from __future__ import annotations

from typing import Any

from morphogen.data.pairs import refuse_unreadable
from morphogen.errors import InputError
from morphogen.generators import GENERATORS
from morphogen.sampling.budgets import Budget
from morphogen.sampling.gates import INTO_IMAGES
from morphogen.study.arms import arm
from morphogen.study.bench import Bench
from morphogen.study.generators import generator_config, others, paints_into_images, scores_for, study_of
from morphogen.study.image_classes import refuse_classes
from morphogen.study.independence import judge_of_adherence
from morphogen.study.kinds import CLASSIFICATION, SEGMENTATION, kind_of, room_of
from morphogen.study.quality import variants
from morphogen.study.splits import Repetition
from morphogen.study.synthesis import architecture_of, balanced, candidates, card_of, foundations


def refuse(bench: Bench) -> None:
    """Find now, and not after the first generator, what would fail later.

    Raises:
        InputError: Gates, generators, judges or ways to learn without masks that do not fit the data; damaged files;
            test images that the foundation knows.
    """
    _refuse_for_gates(bench)
    _refuse_for_semi(bench)
    _refuse_leaks(bench)
    for some in (bench.dataset, *bench.tests.values()):
        refuse_unreadable(some)
    _refuse_for_generator(bench)
    _refuse_for_judges(bench)


def _refuse_for_gates(bench: Bench) -> None:
    """Gates take their limits from training images, or what the generator notes: find now that there is too little."""
    config = bench.config
    studies = [config, *(study_of(config, name) for name in others(config, config.arms))]
    for gate in (gate for gate in config.gates if not any(scores_for(one, gate) for one in studies)):
        what = "paint into images" if gate in INTO_IMAGES else "make masks of its own"
        fault = f"{config.generator} does not {what}, so that its pairs state no score for it"
        raise InputError(f"--gates {gate}: {fault}; leave that gate out")
    for repetition in bench.splits.repetitions if bench.config.gates else ():
        if len(repetition.train) < 2:
            fault = f"{repetition.label} trains on a single image, which sets no limits"
            raise InputError(f"--gates {' '.join(bench.config.gates)}: {fault}; annotate more, or leave the gates out")


def _refuse_for_semi(bench: Bench) -> None:
    """Find now that there is nothing to learn from without masks, or that a judge cannot be taught so."""
    config = bench.config
    methods = {one.name: one.semi for one in map(arm, config.arms) if one.semi}
    if not methods:
        return
    from morphogen.segmenters.diffcl.config import SemiConfig
    from morphogen.segmenters.diffcl.pictures import refuse_resolution, refuse_student

    for repetition in bench.splits.repetitions:
        if not len(bench.unannotated(repetition)):
            fault = f"--annotated {config.annotated or 'all'} leaves no unannotated training image in"
            remedy = "lower --annotated or leave the arm out"
            raise InputError(f"--arms {next(iter(methods))}: {fault} {repetition.label}; {remedy}")
    for name, method in methods.items():
        stated: dict[str, Any] = {"method": method, "train_batch_size": config.train_batch_size}
        try:
            refuse_resolution(config.resolution, SemiConfig(**stated))
            for judge in (judge for judge in config.judges if kind_of(judge) is SEGMENTATION):
                architecture, n_classes = architecture_of(judge, config), len(bench.dataset.classes)
                refuse_student(judge.partition("+")[0], architecture, n_classes, f"--judges {judge}")
        except InputError as error:
            raise InputError(f"--arms {name}: {error}") from None


def _refuse_classes_of(bench: Bench, repetition: Repetition, pairs: Budget) -> None:
    """Those that the study's generator can make no pair of, though they are to have some; `bench` is of its study."""
    if pairs:
        settings = generator_config(bench.config, repetition.seed)
        GENERATORS[bench.config.generator].check_classes(bench.dataset.select(repetition.train), settings, pairs.keys())


def _refuse_leaks(bench: Bench) -> None:
    """Refuse test images that the foundation was trained on, and further test sets that hold images of the study.

    Raises:
        InputError: There are such images, or no such foundation.
    """
    from morphogen.audit.leakage import refuse_overlaps
    from morphogen.data.duplicates import signatures

    for name in foundations(bench.config):
        card, tested = card_of(name), {i for repetition in bench.splits.repetitions for i in repetition.test}
        for dataset in (bench.dataset.select(sorted(tested)), *bench.tests.values()):
            refuse_overlaps(dataset, card, f"the foundation {name}")
    if bench.tests:
        ours = {"sets": {bench.dataset.name: {"training_ids": [], "phashes": signatures(bench.dataset).hashes}}}
        for dataset in bench.tests.values():
            refuse_overlaps(dataset, ours, "this study")


def _refuse_for_generator(bench: Bench) -> None:
    """Find now, and not after the arms without synthetic pairs, what the generators would refuse."""
    shown = {i for repetition in bench.splits.repetitions for i in repetition.train}
    for variant in {v.generator: v for v in variants(bench.config, bench.config.arms)}.values():
        config, stated = bench.of(variant).config, dict[str, Any]()
        if paints_into_images(config):  # its prompts are no part of its training
            stated["prompt"] = config.prompt
        entry, settings = GENERATORS[config.generator], generator_config(config, 0)
        entry.check_transform(settings, config.mask_transform)
        entry.check(bench.dataset.select(sorted(shown)), settings, **stated)
    _refuse_for_balance(bench)


def _refuse_for_balance(bench: Bench) -> None:
    """Find now that the classes of a repetition cannot be balanced as an arm asks for, by images or by generator."""
    for repetition in bench.splits.repetitions:
        for variant in variants(bench.config, bench.config.arms):
            try:
                candidates(bench, repetition, variant)
                _refuse_classes_of(bench.of(variant), repetition, balanced(bench, repetition, variant) or {})
            except InputError as error:
                raise InputError(f"{repetition.label}: {error}") from None


def _refuse_for_judges(bench: Bench) -> None:
    """Find now, and not after the first generator, a judge that cannot be built: its pretrained weights are missing.

    Or one that cannot work at the study's resolution, or with the classes of its images. The stated segmenter of the
    gates and the judges of adherence are among them here.
    """
    import torch

    from morphogen.classifiers import refuse_size as refuse_multiple
    from morphogen.segmenters import build, resolve
    from morphogen.segmenters.any_size import refuse_size
    from morphogen.segmenters.pretrained import NONE

    refuse_classes(bench)
    n_classes = len(bench.dataset.classes)
    stated = [bench.config.gate_segmenter] if bench.config.gate_segmenter else []
    generators = {variant.generator for variant in variants(bench.config, bench.config.arms)}
    stated += sorted({judge_of_adherence(bench.config, name) for name in generators})
    for judge in dict.fromkeys([*bench.config.judges, *stated]):
        name, architecture = judge.partition("+")[0], architecture_of(judge, bench.config)
        if kind_of(judge) is CLASSIFICATION:
            refuse_multiple(name, bench.config.resolution)
            room_of(judge).build(name, len(bench.image_classes), architecture)
            continue
        resolved = resolve(name, architecture)
        if resolved.get("weights", NONE) != NONE:
            build(name, n_classes, architecture)
        if "networks" in resolved:  # known without weights, which may be large
            with torch.device("meta"):
                refuse_size(build(name, n_classes, resolved, pretrained=False), bench.config.resolution)
