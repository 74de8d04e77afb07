"""Quality gates of a study: which synthetic pairs its arms train on.

Limits come from the training part alone (`morphogen.sampling.gates`). The gate segmenter learns on two thirds of it, by
subject (below five subjects: by groups of near-duplicates), and its overlaps on the last third set the limits of
adherence and agreement: on images that it has learnt, it would be too good. A generator that paints into images keeps
them all around the lesion by design, so that its copies are looked for among lesions with their surroundings.
The gate classifier learns on the whole training part, every class equally often; its limit is fixed.
What a study measures of its synthetic images (distances, adherence, audit) is measured on all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morphogen.data.lesions import lesions
from morphogen.data.pairs import Pairs
from morphogen.data.records import Dataset
from morphogen.data.split import ids_hash
from morphogen.errors import WorkError
from morphogen.locks import lock
from morphogen.progress import say
from morphogen.sampling.budgets import Budget
from morphogen.sampling.gates import (
    CLASSIFIED,
    SEGMENTED,
    Limit,
    Verdicts,
    class_scores,
    judge,
    overlap_scores,
    picture_scores,
    read_summary,
    recorded_scores,
    write_verdicts,
)
from morphogen.study.arms import OWN, Variant
from morphogen.study.bench import Bench
from morphogen.study.gate_judges import said_of_classifier, trained_classifier, trained_segmenter
from morphogen.study.generators import makes_masks, paints_into_images
from morphogen.study.independence import said_of_gate
from morphogen.study.recipe import StudyConfig
from morphogen.study.splits import Repetition
from morphogen.study.synthesis import (
    as_pictures,
    balanced,
    in_order_of_plan,
    read_synthetic,
    synthetic_folder,
    synthetic_pairs,
)

if TYPE_CHECKING:
    from morphogen.segmenters.task import PairSource
    from morphogen.study.cells import Predict, Tools


def kept_pairs(
    bench: Bench,
    repetition: Repetition,
    tools: Tools,
    variant: Variant = OWN,
    n: int | None = None,
    gated: bool = True,
) -> Dataset:
    """The synthetic pairs of one way of sampling that every gate of the study passes; all of them where it has none.

    Verdicts are written once, into manifest.jsonl and gates.json of the synthetic folder; all images stay there.

    Args:
        bench: The study.
        repetition: Whose pairs.
        tools: Train the gate segmenter.
        variant: Whose they are, and how they were sampled.
        n: Take the first n that pass, in the order of the plan, or all that there are and say so. Where classes are
            balanced, no more are taken of a class than it needs.
        gated: Leave out what a gate dropped.

    Raises:
        WorkError: The gates dropped every pair.
    """
    made = synthetic_pairs(bench, repetition, variant)
    found = _accepted(bench, repetition, made, tools, variant) if gated and bench.of(variant).config.gates else made
    if (pairs := balanced(bench, repetition, variant)) is not None:
        found = _of_classes(found, pairs, variant.of(repetition.label))
    if n is None:
        return found
    if len(found) < n:
        say(f"{variant.of(repetition.label)}: {len(found)} synthetic pairs are there, not {n}; all of them are taken")
    return _only(found, in_order_of_plan(found).ids[:n])


def _of_classes(found: Dataset, pairs: Budget, label: str) -> Dataset:
    """Of every class the first pairs in the order of the plan, as many as it is to have."""
    planned = in_order_of_plan(found)
    ids = {name: [record.id for record in planned if record.label == name] for name in pairs}
    for name, n in pairs.items():
        if len(ids[name]) < n:
            say(f"{label}: {len(ids[name])} synthetic pairs of {name} are there, not {n}; all of them are taken")
    return _only(found, [id_ for name, n in pairs.items() for id_ in ids[name][:n]])


def _only(found: Dataset, ids: Sequence[str]) -> Dataset:
    kept = set(ids)
    return found.where(lambda record: record.id in kept)


def _accepted(bench: Bench, repetition: Repetition, made: Dataset, tools: Tools, variant: Variant) -> Dataset:
    """Of the pairs that were made those that pass."""
    folder = synthetic_folder(bench, repetition, variant)
    found = _summary(bench, repetition, made, tools, variant)
    if not found["accepted"]:
        reasons = ", ".join(f"{gate} {n}" for gate, n in found["reasons"].items())
        fault = f"the quality gates dropped all {found['n']} synthetic pairs ({reasons})"
        raise WorkError(f"{folder}: {fault}; leave gates out, with another --out, or train the generator for longer")
    return read_synthetic(folder, bench.dataset).where(lambda record: not (record.origin or {})["dropped"])


def _summary(bench: Bench, repetition: Repetition, made: Dataset, tools: Tools, variant: Variant) -> dict[str, Any]:
    """The content of gates.json; judges the pairs unless that was done."""
    folder = synthetic_folder(bench, repetition, variant)
    with lock(bench.out / ".locks" / f"gates.{repetition.label}.lock", wait=True):
        if not _judged(folder, made, bench.of(variant).config.gates, repetition.train):
            write_verdicts(folder, verdicts(bench, repetition, made, tools, variant))
    return read_summary(folder) or {}


def gate_summary(bench: Bench, repetition: Repetition, tools: Tools, variant: Variant = OWN) -> dict[str, Any] | None:
    """How many pairs the gates accepted and rejected, and by which limits; None where the study has no gates.

    Where the pairs have several classes, ``by_class``: class -> ``n``, ``accepted``, ``reasons``.
    """
    if not bench.of(variant).config.gates:
        return None
    made = synthetic_pairs(bench, repetition, variant)
    found = _summary(bench, repetition, made, tools, variant)
    made = read_synthetic(synthetic_folder(bench, repetition, variant), bench.dataset)  # with what the gates said
    names = sorted({record.label for record in made if record.label})
    return {**found, "by_class": {name: _tally(made, name) for name in names}} if len(names) > 1 else found


def _tally(made: Dataset, name: str) -> dict[str, Any]:
    """What the gates did to the pairs of one class."""
    dropped = [(record.origin or {})["dropped"] for record in made if record.label == name]
    reasons = Counter(gate for gates in dropped for gate in gates)
    return {"n": len(dropped), "accepted": sum(not gates for gates in dropped), "reasons": dict(reasons)}


def _judged(folder: Path, made: Dataset, gates: Sequence[str], train: Sequence[str]) -> bool:
    """Whether the verdicts on all pairs are there, by these gates and these training images; gates.json comes last."""
    found = read_summary(folder)
    if found is None or found["gates"] != list(gates) or found.get("training") != ids_hash(train):
        return False
    return all("dropped" in (record.origin or {}) for record in made)


def verdicts(bench: Bench, repetition: Repetition, made: Dataset, tools: Tools, variant: Variant = OWN) -> Verdicts:
    """Judge the synthetic pairs of one repetition, sampled in one way, at working resolution.

    Raises:
        InputError: Too few training images for a limit, or a pair lacks the score of a gate.
    """
    theirs, resolution = bench.of(variant), bench.config.resolution
    gates = theirs.config.gates
    synthetic, train = Pairs(made, resolution), Pairs(bench.dataset.select(repetition.train), resolution)
    pictures, trained = as_pictures(synthetic.images()), as_pictures(train.images())
    rows = {record.id: dict(record.origin or {}) for record in made}
    scores: dict[str, Any] = {**recorded_scores(rows, made.ids, gates, made.root)}
    limits = [Limit.fixed(name) for name in scores]
    scores |= picture_scores(pictures, gates)
    limits += [Limit.of(name, values) for name, values in picture_scores(trained, gates).items()]
    if "copies" in gates:
        scores["nearness"] = _nearness(theirs, repetition, synthetic, train)
        limits.append(Limit.of_copies(len(train)))
    if wanted := [SEGMENTED[gate] for gate in gates if gate in SEGMENTED]:
        predict, held_out = trained_segmenter(bench, repetition, tools)
        ours, real = overlaps(predict, synthetic), overlaps(predict, held_out)
        scores |= {name: ours[name] for name in wanted}
        limits += [_overlap_limit(theirs.config, name, real[name]) for name in wanted]
    for name in (CLASSIFIED[gate] for gate in gates if gate in CLASSIFIED):
        classify = trained_classifier(bench, repetition, tools)
        scores[name] = class_scores(classify(pictures), made.records, made.root)
        limits.append(Limit.fixed(name))
    found = judge(gates, limits, synthetic.ids, scores, train.ids)
    found = replace(
        found,
        segmenter=said_of_gate(bench.config, repetition, variant.generator),
        classifier=said_of_classifier(bench.config, repetition),
    )
    say(f"{variant.of(repetition.label)}: the gates kept {len(found.kept)} of {len(synthetic)} synthetic pairs")
    return found


def _overlap_limit(config: StudyConfig, name: str, values: Sequence[float]) -> Limit:
    """Too close a fit is a copy's, where a lesion was painted for a mask; of pairs made together it is the aim."""
    limit = Limit.of(name, values)
    return replace(limit, high=None) if makes_masks(config) else limit


def _nearness(bench: Bench, repetition: Repetition, synthetic: Pairs, train: Pairs) -> Any:
    """As the audit of the study has it: the same features and subjects, and the same images or their lesions."""
    from morphogen.audit.memorisation import Reference
    from morphogen.study.audits import audited
    from morphogen.study.quality import image_set

    subjects = [bench.splits.subjects[i] for i in repetition.train]
    shown = lesions if paints_into_images(bench.config) else Pairs.images
    real = audited(image_set(train.ids, shown(train)), subjects)
    return Reference(real).judge(audited(image_set(synthetic.ids, shown(synthetic)))).nearness


def overlaps(predict: Predict, pairs: PairSource) -> dict[str, list[float]]:
    """``dice`` and ``iou`` of each pair's image against its mask, means over foreground classes, at working size."""
    n_classes, values = len(pairs.dataset.classes), dict[str, list[float]]({"dice": [], "iou": []})
    for i in range(len(pairs)):
        image, mask = pairs[i]
        for name, value in overlap_scores(predict(as_pictures([image]))[0], mask, n_classes).items():
            values[name].append(value)
    return values


def dices(predict: Predict, pairs: PairSource) -> list[float]:
    """Dice of each pair's image against its mask, mean over foreground classes, at working resolution."""
    return overlaps(predict, pairs)["dice"]
