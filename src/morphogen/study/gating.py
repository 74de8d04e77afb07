"""Quality gates of a study: which synthetic pairs its arms train on.

Limits come from the training part alone (`morphogen.sampling.gates`). The gate segmenter learns on two thirds of it, by
subject (below five subjects: by groups of near-duplicates), and its Dice on the last third sets the limit of adherence:
on images that it has learnt, it would be too good.
What a study measures of its synthetic images (distances, adherence, audit) is measured on all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morphogen.data.pairs import Pairs
from morphogen.data.records import Dataset
from morphogen.data.split import ids_hash, take_validation
from morphogen.errors import WorkError
from morphogen.progress import say
from morphogen.sampling.gates import Limit, Verdicts, dice_score, judge, picture_scores, read_summary, write_verdicts
from morphogen.study.bench import Bench
from morphogen.study.locks import lock
from morphogen.study.recipe import StudyConfig
from morphogen.study.splits import Repetition
from morphogen.study.synthesis import architecture_of, as_pictures, read_synthetic, synthetic_folder, synthetic_pairs

if TYPE_CHECKING:
    from morphogen.segmenters.task import PairSource
    from morphogen.study.cells import Predict, Tools

SEED_OF_GATE = 2000
"""Added to the repetition's seed, so that the gate segmenter is no judge of an arm, nor that of adherence."""
HELD_OUT = 1 / 3
"""Part of the training images that the gate segmenter does not learn on."""


def kept_pairs(bench: Bench, repetition: Repetition, tools: Tools) -> Dataset:
    """The synthetic pairs that every gate of the study passes; all of them where it has none.

    Verdicts are written once, into manifest.jsonl and gates.json of the synthetic folder; all images stay there.

    Raises:
        WorkError: The gates dropped every pair.
    """
    made = synthetic_pairs(bench, repetition)
    if not bench.config.gates:
        return made
    folder = synthetic_folder(bench, repetition)
    with lock(bench.out / ".locks" / f"gates.{repetition.label}.lock", wait=True):
        if not _judged(folder, made, bench.config.gates, repetition.train):
            write_verdicts(folder, verdicts(bench, repetition, made, tools))
    found = read_summary(folder) or {}
    if not found["accepted"]:
        reasons = ", ".join(f"{gate} {n}" for gate, n in found["reasons"].items())
        fault = f"the quality gates dropped all {found['n']} synthetic pairs ({reasons})"
        raise WorkError(f"{folder}: {fault}; leave gates out, with another --out, or train the generator for longer")
    return read_synthetic(folder, bench.dataset).where(lambda record: not (record.origin or {})["dropped"])


def gate_summary(bench: Bench, repetition: Repetition, tools: Tools) -> dict[str, Any] | None:
    """How many pairs the gates accepted and rejected, and by which limits; None where the study has no gates."""
    if not bench.config.gates:
        return None
    kept_pairs(bench, repetition, tools)
    return read_summary(synthetic_folder(bench, repetition))


def _judged(folder: Path, made: Dataset, gates: Sequence[str], train: Sequence[str]) -> bool:
    """Whether the verdicts on all pairs are there, by these gates and these training images; gates.json comes last."""
    found = read_summary(folder)
    if found is None or found["gates"] != list(gates) or found.get("training") != ids_hash(train):
        return False
    return all("dropped" in (record.origin or {}) for record in made)


def verdicts(bench: Bench, repetition: Repetition, made: Dataset, tools: Tools) -> Verdicts:
    """Judge the synthetic pairs of one repetition at working resolution.

    Raises:
        InputError: Too few training images for a limit.
    """
    gates, resolution = bench.config.gates, bench.config.resolution
    synthetic, train = Pairs(made, resolution), Pairs(bench.dataset.select(repetition.train), resolution)
    pictures, real = as_pictures(synthetic.images()), as_pictures(train.images())
    scores: dict[str, Any] = picture_scores(pictures, gates)
    limits = [Limit.of(name, values) for name, values in picture_scores(real, gates).items()]
    if "copies" in gates:
        scores["nearness"] = _nearness(bench, repetition, synthetic, train)
        limits.append(Limit.of_copies(len(train)))
    if "adherence" in gates:
        predict, held_out = _gate_segmenter(bench, repetition, tools)
        scores["dice"] = dices(predict, synthetic)
        limits.append(Limit.of("dice", dices(predict, held_out)))
    found = judge(gates, limits, synthetic.ids, scores, train.ids)
    found = replace(found, segmenter=_described(bench.config, repetition))
    say(f"{repetition.label}: the gates kept {len(found.kept)} of {len(synthetic)} synthetic pairs")
    return found


def _described(config: StudyConfig, repetition: Repetition) -> dict[str, Any] | None:
    """Who the gate segmenter is, and whether the judge of adherence has its architecture."""
    from morphogen.segmenters import resolve

    if "adherence" not in config.gates:
        return None
    (name, options), judge = gate_architecture(config), config.judges[0]
    judged = judge.partition("+")[0]
    same = name == judged and resolve(name, options) == resolve(judged, architecture_of(judge, config))
    seed = SEED_OF_GATE + repetition.seed
    return {"name": name, "architecture": options, "seed": seed, "architecture_of_the_judge_of_adherence": same}


def _nearness(bench: Bench, repetition: Repetition, synthetic: Pairs, train: Pairs) -> Any:
    """As the audit of the study has it: the same images, features and subjects."""
    from morphogen.audit.memorisation import Reference
    from morphogen.study.audits import audited
    from morphogen.study.quality import image_set

    subjects = [bench.splits.subjects[i] for i in repetition.train]
    real = audited(image_set(train.ids, train.images()), subjects)
    return Reference(real).judge(audited(image_set(synthetic.ids, synthetic.images()))).nearness


def _gate_segmenter(bench: Bench, repetition: Repetition, tools: Tools) -> tuple[Predict, Pairs]:
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
    """The gate segmenter: a U-Net of another encoder than the judge of adherence, the study's first judge, has.

    It is the U-Net from scratch, or where the judge is that one, the one on an ImageNet encoder if its weights are
    installed. Else both are one architecture, with seeds of their own.
    """
    from morphogen.metrics.weights import available
    from morphogen.segmenters import resolve

    name, options = config.judges[0].partition("+")[0], architecture_of(config.judges[0], config)
    scratch = name == "unet" and resolve(name, options)["encoder"] == "scratch"
    return "unet", {"encoder": "lite0" if scratch and available("lite0") else "scratch"}


def dices(predict: Predict, pairs: PairSource) -> list[float]:
    """Dice of each pair's image against its mask, mean over foreground classes, at working resolution."""
    n_classes, values = len(pairs.dataset.classes), []
    for i in range(len(pairs)):
        image, mask = pairs[i]
        values.append(dice_score(predict(as_pictures([image]))[0], mask, n_classes))
    return values
