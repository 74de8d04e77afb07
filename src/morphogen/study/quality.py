"""How good the synthetic images of one repetition are: distance to real ones, adherence to their masks, copies.

Nothing here reads the test part. One JSON file a repetition, ``images/LABEL.json``.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from morphogen.data.pairs import Pairs
from morphogen.files import write_json
from morphogen.metrics.overlap import class_counts, dice_from_counts
from morphogen.study.bench import Bench
from morphogen.study.locks import lock
from morphogen.study.splits import Repetition
from morphogen.study.synthesis import as_pictures, autoencode, synthetic_pairs, uses_foundation
from morphogen.training.rng import numpy_rng

if TYPE_CHECKING:
    from morphogen.segmenters.task import PairSource
    from morphogen.study.cells import Predict, Tools

MOST_REFERENCES = 250
"""Real images that the others are compared with, at most: Inception takes a tenth of a second each."""
SEED_OF_ADHERENCE = 1000
"""Added to the repetition's seed, so that the judge of adherence is no judge of an arm."""


def measure_images(bench: Bench, repetition: Repetition, tools: Tools) -> None:
    """Write ``images/LABEL.json`` unless it is there, or another process is at it."""
    path = bench.out / "images" / f"{repetition.label}.json"
    with lock(bench.out / "locks" / f"images.{repetition.label}.lock", wait=False) as held:
        if not held or path.exists():
            return
        synthetic = Pairs(synthetic_pairs(bench, repetition), bench.config.resolution)
        found = {
            "fold": repetition.fold,
            "seed": repetition.seed,
            "resolution": bench.config.resolution,
            "n_synthetic": len(synthetic),
            "distances": distances(bench, repetition, synthetic),
            "adherence": adherence(bench, repetition, synthetic, tools),
        }
        path.parent.mkdir(exist_ok=True)
        write_json(path, found)


def distances(bench: Bench, repetition: Repetition, synthetic: Pairs) -> dict[str, Any]:
    """FID and KID of synthetic, real and autoencoded images, all of one number, against the same other real images.

    The row ``real`` is the floor (real against real), the row ``autoencoded`` that of any latent method. The reference
    is made of training images outside the annotated ones; where these are too few, of one half of the annotated ones.

    Returns:
        ``features`` (None where the extractor is not installed), ``n``, ``n_reference``, ``reference`` and ``rows``:
        name -> ``fid`` and ``kid`` {mean, std, full, ...}.
    """
    from morphogen.metrics import weights

    if not weights.available("inception"):
        return {"features": None, "note": weights.MEMBERS["inception"].remedy, "rows": {}}
    ours, reference, says = _real_sets(bench, repetition)
    n = min(len(ours), len(synthetic))
    sets = {"synthetic": synthetic.images(range(n)), "real": ours[:n]}
    if uses_foundation(bench.config):
        sets["autoencoded"] = autoencode(ours[:n], bench.config)
    rows = _against(sets, reference, repetition.seed)
    return {"features": "inception", "n": n, "n_reference": len(reference), "reference": says, "rows": rows}


def _real_sets(bench: Bench, repetition: Repetition) -> tuple[np.ndarray, np.ndarray, str]:
    """Two disjoint sets of real training images (N, 3, R, R) uint8, and where the second is from."""
    train, others = list(repetition.train), [*repetition.extra, *repetition.pool]
    rng = numpy_rng(repetition.seed, "reference")
    says = "training images outside the annotated ones"
    if len(others) < len(train):
        order = [train[i] for i in rng.permutation(len(train))]
        train, others, says = order[::2], order[1::2], "half of the annotated training images"
    chosen = sorted(others[i] for i in rng.permutation(len(others))[:MOST_REFERENCES])
    resolution = bench.config.resolution
    first, second = (Pairs(bench.dataset.select(ids), resolution, cache=False).images() for ids in (train, chosen))
    return first, second, says


def _against(sets: dict[str, np.ndarray], reference: np.ndarray, seed: int) -> dict[str, Any]:
    from morphogen.metrics.features import extract
    from morphogen.metrics.fid import fid
    from morphogen.metrics.kid import kid

    if min(map(len, [reference, *sets.values()])) < 4:
        return {}
    real = extract(as_pictures(reference))
    rows = {}
    for name, images in sets.items():
        features = extract(as_pictures(images))
        rows[name] = {"fid": fid(features, real), "kid": asdict(kid(features, real, seed=seed))}
    return rows


def adherence(bench: Bench, repetition: Repetition, synthetic: Pairs, tools: Tools) -> dict[str, Any]:
    """Dice of an independent segmenter on all synthetic images against their masks, beside its own on unseen real ones.

    It is trained on the real training pairs with a seed of its own, its last weights are taken, and the validation part
    is what it has not seen. No loss and no choice has used it.
    """
    from morphogen.study.cells import JudgeRun

    config, judge = bench.config, bench.config.judges[0]
    seed = SEED_OF_ADHERENCE + repetition.seed
    job = JudgeRun(
        judge=judge,
        train=[Pairs(bench.dataset.select(repetition.train), config.resolution)],
        validation=Pairs(bench.dataset.select(()), config.resolution),
        augmentation="geometric",
        steps=config.steps,
        batch=config.train_batch_size,
        seed=seed,
        out=bench.out / "runs" / f"adherence.{judge}.{repetition.label}",
    )
    predict = tools.load(tools.train(job), config.device)
    held_out = Pairs(bench.dataset.select(repetition.validation), config.resolution)
    return {
        "judge": judge,
        "seed": seed,
        "dice": _mean_dice(predict, synthetic),
        "n": len(synthetic),
        "dice_on_real": _mean_dice(predict, held_out),
        "n_real": len(held_out),
    }


def _mean_dice(predict: Predict, pairs: PairSource) -> float:
    """Mean Dice over images and foreground classes, at working resolution."""
    n_classes, values = len(pairs.dataset.classes), []
    for i in range(len(pairs)):
        image, mask = pairs[i]
        label = predict(as_pictures([image]))[0]
        values.append(dice_from_counts(class_counts(label, mask, n_classes)[1:]).mean())
    return float(np.mean(values))
