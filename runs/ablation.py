"""The component ablation of Siamese-Diffusion (the paper's Table 5, 6 and Fig. 7) on `tiny`, as cells of studies.

    python runs/ablation.py OUT $MORPHOGEN_DATA/polyps/cvc_clinicdb           # again to continue; processes share it
    python runs/ablation.py OUT $MORPHOGEN_DATA/polyps/cvc_clinicdb --table

60 annotated frames a fold, as in `morphogen study --annotated 60`, whose splits these are. Every row starts from a hint
path that was trained on phantoms for the same 1200 steps: the shipped one where the hint is dense, one made first where
it is plain. Every row takes 400 steps on the foundation as shipped (no adaptation). ControlNet and the whole method run
on all folds, the other rows on fold 0 alone, which is exploratory. The segmenter learns from the real pairs and one
synthetic pair a mask, painted for the real masks, but in the last two rows for random transforms of them. Image
measures are of three further samples a real mask. About two hours on two CPU cores.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from morphogen.data.pairs import Pairs
from morphogen.files import write_json
from morphogen.foundation.model import HINT, find_folder
from morphogen.generators.siamese import model as siamese
from morphogen.generators.siamese.pretrain_hint import pretrain_hint
from morphogen.locks import lock
from morphogen.metrics.features import extract
from morphogen.metrics.kid import kid
from morphogen.sampling.plan import plan_jobs
from morphogen.sampling.runner import run_jobs
from morphogen.study.bench import Bench
from morphogen.study.cells import JudgeRun, Predict, default_tools, run_training
from morphogen.study.plan import trainings
from morphogen.study.quality import mean_dice
from morphogen.study.recipe import OWN_TEST, StudyConfig
from morphogen.study.run import freeze, prepare
from morphogen.study.splits import Repetition
from morphogen.study.stats import difference, estimate, mean_over_images
from morphogen.study.synthesis import as_pictures, read_synthetic

SIDE, PER_MASK, HINT_STEPS, MOST_REFERENCES = 64, 3, 1200, 250

REAL = Path(__file__).parents[1] / "results" / "cvc_clinicdb-60" / "cells"
"""Cells of the same folds and frames without synthetic pairs (docs/results.md)."""


@dataclass(frozen=True)
class Row:
    """One row: the preset that says what is trained, the hint, and how the segmenter's masks are made."""

    name: str
    preset: str
    hint: str = "dense"
    folds: int = 1
    mask_transform: str = "identity"
    per_mask: int = 1


ROWS = (
    Row("ControlNet", "ablation-1", "plain", folds=5),
    Row("full", "ablation-8", folds=5),
    Row("+DHI", "ablation-2"),
    Row("+OA", "ablation-3", "plain"),
    Row("+L_c", "ablation-4", "plain"),
    Row("+OA+L_c", "ablation-5", "plain"),
    Row("+DHI+OA (w_c = 0)", "ablation-6"),
    Row("+DHI+L_c", "ablation-7"),
    Row("full, w_c = 2", "ablation-8+w_c=2"),
    Row("full, random masks", "ablation-8", mask_transform="random"),
    Row("full, random masks x 3", "ablation-8", mask_transform="random", per_mask=3),
)


def folder_of(row: Row) -> str:
    return "".join(c if c.isalnum() else "-" for c in row.name).strip("-").lower()


def foundation_with(hint: str, out: Path) -> Path:
    """`tiny` with a hint path of this kind, made on phantoms."""
    folder = out / f"tiny-{hint}"
    with lock(out / f".{hint}.lock", wait=True):
        if not folder.exists():
            beside = folder.with_suffix(".tmp")
            shutil.copytree(find_folder("tiny"), beside, dirs_exist_ok=True)
            if hint == "plain":
                shutil.rmtree(beside / HINT, ignore_errors=True)
                pretrain_hint(beside, out / "plain-hint", HINT_STEPS, hint=hint)
            beside.rename(folder)
    return folder


def bench_of(row: Row, out: Path, data: Path) -> Bench:
    preset = f"{foundation_with(row.hint, out)}+{row.preset}+init=pretrained"
    bench = prepare(
        StudyConfig(
            data=data, out=out / folder_of(row), annotated=60, arms=("syn-geo",), preset=preset, adapt_steps=0,
            seeds=row.folds if row.folds < 5 else None, mask_transform=row.mask_transform, per_mask=row.per_mask,
        )
    )  # fmt: skip
    freeze(bench)
    return bench


def generator(bench: Bench, fold: Repetition) -> Path:
    return bench.out / "runs" / f"generator.siamese.{fold.label}"


def unused(bench: Bench, fold: Repetition) -> list[str]:
    """Frames of the training part that no generator and no segmenter of the table sees."""
    return sorted([*fold.extra, *fold.pool])


def adherence_judge(bench: Bench, fold: Repetition, out: Path) -> Predict:
    """A U-Net on frames that the rows do not use; rows of one fold share it."""
    pairs, nothing = Pairs(bench.dataset.select(unused(bench, fold)), SIDE), Pairs(bench.dataset.select(()), SIDE)
    job = JudgeRun(
        judge="unet", architecture={}, train=[pairs], validation=nothing, augmentation="geometric", steps=300, batch=16,
        seed=7, out=out / "judges" / fold.label,
    )  # fmt: skip
    tools = default_tools()
    with lock(out / f".judge.{fold.label}.lock", wait=True):
        return tools.load(tools.train(job), "cpu")


def measure(bench: Bench, fold: Repetition, out: Path) -> None:
    """KID, LPIPS and adherence of `PER_MASK` samples a real mask; one JSON."""
    from morphogen.metrics.lpips import lpips

    path = bench.out / "images" / f"{fold.label}.json"
    with lock(path.with_suffix(".lock"), wait=False) as held:
        if not held or path.exists():
            return
        train = bench.dataset.select(fold.train)
        sampler, folder = siamese.load(generator(bench, fold)), bench.out / "measured" / fold.label
        run_jobs(sampler, plan_jobs(train, PER_MASK, "identity", 1000 + fold.seed, None, size=SIDE), folder)
        made, real = Pairs(read_synthetic(folder, bench.dataset), SIDE), Pairs(train, SIDE)
        theirs = np.random.default_rng(fold.seed).permutation(unused(bench, fold))[:MOST_REFERENCES]
        reference = Pairs(bench.dataset.select(sorted(theirs.tolist())), SIDE)
        features, wanted = (extract(as_pictures(some.images())) for some in (made, reference))
        where = {record.id: k for k, record in enumerate(train)}
        partners = [where[record.origin["source_mask"]] for record in made.dataset]
        judge = adherence_judge(bench, fold, out)
        distance = kid(features, wanted, seed=fold.seed)
        found = {
            "n": len(made), "n_reference": len(reference), "kid": distance.full, "kid_std": distance.std,
            "lpips_vgg16": float(lpips(made.images(), real.images()[partners]).mean()),
            "adherence": mean_dice(judge, made), "adherence_on_real": mean_dice(judge, real),
        }  # fmt: skip
        write_json(path, found)


def found_in(folder: Path, pattern: str = "*.json") -> dict[str, dict[str, Any]]:
    """The JSON files of a folder, by repetition."""
    return {
        next(word for word in path.name.split(".") if word.startswith("fold")): json.loads(path.read_text())
        for path in sorted(folder.glob(pattern))
    }


def line(
    name: str, folds: Sequence[str], cells: dict[str, Any], control: dict[str, Any], images: dict[str, Any]
) -> str:
    """A row of a table over some folds; Dice beside that of ControlNet, paired by image."""
    measures = "| | |"
    if all(fold in images for fold in folds):
        kid_, lpips_, follows = (mean(images[f][of] for f in folds) for of in ("kid", "lpips_vgg16", "adherence"))
        measures = f"{1000 * kid_:.1f} | {lpips_:.3f} | {follows:.3f} |"
    mine, theirs = (
        [{i: (s["subject"], s["dice"]) for i, s in some[fold]["scores"].items()} for fold in folds]
        for some in (cells, control)
    )
    against = ""
    if cells is not control:
        found = estimate(difference(mine, theirs))
        low, high = found.ci95 or (float("nan"), float("nan"))
        against = f"{found.mean:+.3f} ({low:+.3f} to {high:+.3f})"
    return f"| {name} | {measures} {mean_over_images(mine):.3f} | {against} |"


def table(out: Path) -> None:
    """Markdown of what there is: the rows of all folds, then those of fold 0."""
    names = ("row", "KID x 1000", "LPIPS", "adherence", "Dice", "Dice minus ControlNet's")
    head = f"| {' | '.join(names)} |\n{'|---' * len(names)}|"
    control = found_in(out / folder_of(ROWS[0]) / "cells")
    real = found_in(REAL, "real-geo.*.json")
    for folds in ([f"fold{k}" for k in range(5)], ["fold0"]):
        print(f"\n{', '.join(folds)}\n\n{head}")
        print(line("no synthetic pairs", folds, real, control, {}))
        for row in ROWS:
            cells, images = (found_in(out / folder_of(row) / part) for part in ("cells", "images"))
            if all(fold in cells and fold in control for fold in folds):
                print(line(row.name, folds, control if row is ROWS[0] else cells, control, images))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--rows", nargs="+", choices=[row.name for row in ROWS])
    parser.add_argument("--train-only", action="store_true")
    options = parser.parse_args()
    if options.table:
        return table(options.out)
    if options.data is None:
        parser.error("give the folder of CVC-ClinicDB")
    options.out.mkdir(parents=True, exist_ok=True)
    whole = options.out / folder_of(ROWS[1])
    for fold in range(5):
        for row in ROWS:
            if fold >= row.folds or row.name not in (options.rows or [row.name]):
                continue
            bench = bench_of(row, options.out, options.data)
            repetition = bench.splits.repetitions[fold]
            if row.preset == ROWS[1].preset and not generator(bench, repetition).exists():
                made = whole / generator(bench, repetition).relative_to(bench.out)
                if (made / "final").exists():  # the same generator, for other masks
                    shutil.copytree(made, generator(bench, repetition))
            (cell,) = trainings(bench.splits, ("syn-geo",), ("unet",), (OWN_TEST,), f"*.{repetition.label}.*")
            run_training(bench, cell, default_tools())
            if row.mask_transform == "identity" and not options.train_only:
                measure(bench, repetition, options.out)


if __name__ == "__main__":
    main()
