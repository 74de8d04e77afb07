"""Compare settings of Siamese-Diffusion on frames of one training fold that a study does not use; see docs/LOG.md.

    python runs/siamese_settings.py OUT $MORPHOGEN_DATA/polyps/cvc_clinicdb '{"init": "zero"}' '{"guidance": 1.0}'

Each word is a JSON object of options. The generator learns from the 48 training pairs of 60 annotated ones in fold 0
and paints 96 transforms of their masks. Half of the unused frames of that fold train the judge of adherence, the others
are the reference of KID and test a U-Net trained on real and synthetic pairs. About 8 minutes each on two CPU cores.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from morphogen.data.pairs import Pairs
from morphogen.data.readers import read_dataset
from morphogen.generators.siamese import model
from morphogen.generators.siamese.config import siamese_config
from morphogen.metrics.features import extract
from morphogen.metrics.kid import kid
from morphogen.sampling.plan import plan_jobs
from morphogen.sampling.runner import run_jobs
from morphogen.study.cells import JudgeRun, Predict, default_tools
from morphogen.study.quality import mean_dice
from morphogen.study.recipe import StudyConfig
from morphogen.study.splits import make
from morphogen.study.synthesis import as_pictures, read_synthetic

SIDE, REFERENCE = 64, 200


def main() -> None:
    out, folder = Path(sys.argv[1]), Path(sys.argv[2])
    dataset = read_dataset(folder)
    repetition = make(StudyConfig(data=folder, out=out, annotated=60), dataset).repetitions[0]
    unused = np.random.default_rng(0).permutation([*repetition.extra, *repetition.pool]).tolist()
    n = min(REFERENCE, len(unused) // 2)
    real, reference, others = (
        Pairs(dataset.select(ids), SIDE) for ids in (repetition.train, sorted(unused[:n]), sorted(unused[n:]))
    )
    nothing = Pairs(dataset.select(()), SIDE)

    def judge(sets: list[Pairs], name: str, steps: int) -> Predict:
        job = JudgeRun(
            judge="unet", architecture={}, train=sets, validation=nothing, augmentation="geometric", steps=steps,
            batch=16, seed=7, out=out / name,
        )  # fmt: skip
        tools = default_tools()
        return tools.load(tools.train(job), "cpu")

    def distance(pairs: Pairs) -> float:
        return 1000 * kid(extract(as_pictures(pairs.images())), features, seed=0).mean

    features = extract(as_pictures(reference.images()))
    adherence, alone = judge([others], "adherence", 300), judge([real], "real", 400)
    use = mean_dice(alone, reference)
    print(f"real: KID {distance(real):.1f}, adherence {mean_dice(adherence, real):.3f}, use {use:.3f}")
    for word in sys.argv[3:]:
        name = "".join(c if c.isalnum() else "-" for c in word).strip("-") or "defaults"
        config = siamese_config(resolution=SIDE, **json.loads(word))
        sampler = model.load(model.train(dataset.select(repetition.train), config, out / f"{name}.run"))
        run_jobs(sampler, plan_jobs(dataset.select(repetition.train), 2, "random", 0, None, size=SIDE), out / name)
        made = Pairs(read_synthetic(out / name, dataset), SIDE)
        use = mean_dice(judge([real, made], f"{name}.use", 400), reference)
        print(
            f"{word}: KID {distance(made):.1f}, adherence {mean_dice(adherence, made):.3f}, use {use:.3f}", flush=True
        )


if __name__ == "__main__":
    main()
