"""Solvers and numbers of steps of Siamese-Diffusion on real masks: KID and adherence; see docs/LOG.md.

    python runs/sampler_steps.py OUT $MORPHOGEN_DATA/polyps/cvc_clinicdb ddim-50 dpm-20 dpm-15 dpm-12 dpm-8

After `runs/ablation.py OUT ...`, whose generator of the whole method and whose judge it takes, both of fold 0. Four
samples for each of the 48 real masks, on the same noise; KID is against 250 frames that the generator never saw.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from ablation import MOST_REFERENCES, ROWS, SIDE, adherence_judge, bench_of, generator, unused

from morphogen.data.pairs import Pairs
from morphogen.generators.siamese import model
from morphogen.metrics.features import extract
from morphogen.metrics.kid import kid
from morphogen.sampling.plan import plan_jobs
from morphogen.sampling.runner import run_jobs
from morphogen.study.quality import mean_dice
from morphogen.study.synthesis import as_pictures, read_synthetic


def main() -> None:
    out = Path(sys.argv[1])
    bench = bench_of(ROWS[1], out, Path(sys.argv[2]))
    fold = bench.splits.repetitions[0]
    judge, train = adherence_judge(bench, fold, out), bench.dataset.select(fold.train)
    theirs = np.random.default_rng(0).permutation(unused(bench, fold))[:MOST_REFERENCES]
    real = extract(as_pictures(Pairs(bench.dataset.select(sorted(theirs.tolist())), SIDE).images()))
    print("| sampler | KID x 1000 | adherence |\n|---|---|---|")
    for name in sys.argv[3:]:
        solver, steps = name.split("-")
        sampler = model.load(generator(bench, fold)).with_sampling(solver=solver, sampling_steps=int(steps))
        run_jobs(sampler, plan_jobs(train, 4, "identity", 1000, None, size=SIDE), out / "steps" / name)
        made = Pairs(read_synthetic(out / "steps" / name, bench.dataset), SIDE)
        distance = kid(extract(as_pictures(made.images())), real, seed=0)
        print(f"| {name} | {1000 * distance.full:.1f} | {mean_dice(judge, made):.3f} |", flush=True)


if __name__ == "__main__":
    main()
