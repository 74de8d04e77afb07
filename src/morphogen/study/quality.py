"""How good the synthetic images of one repetition are: distance to real ones, adherence to their masks, audits.

All of them are measured, what gates dropped included. Nothing but the audit of leakage looks at the test part. One JSON
file a repetition and generator, ``images/LABEL.json``. Where arms sample in different ways, the generator's own is
measured, or the first one where no arm has that; of the others the file holds what the gates said.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from morphogen.data.pairs import Pairs
from morphogen.files import write_json
from morphogen.locks import lock
from morphogen.study.arms import OWN, Variant, arm
from morphogen.study.audits import audits
from morphogen.study.bench import Bench
from morphogen.study.gating import dices, gate_summary
from morphogen.study.generators import makes_masks, uses_foundation, variants_of
from morphogen.study.independence import judge_of_adherence, said_of_loss
from morphogen.study.plan import file_name
from morphogen.study.recipe import StudyConfig
from morphogen.study.splits import Repetition
from morphogen.study.synthesis import (
    architecture_of,
    as_pictures,
    autoencode,
    in_order_of_plan,
    synthetic_pairs,
)
from morphogen.training.rng import numpy_rng

if TYPE_CHECKING:
    from morphogen.study.cells import Tools

MOST_REFERENCES = 250
"""Real images that the others are compared with, at most: Inception takes a tenth of a second each."""
LEAST_IMAGES = 4
"""KID draws subsets of half a set, and needs two images in each."""
SEED_OF_ADHERENCE = 1000
"""Added to the repetition's seed, so that the judge of adherence is no judge of an arm."""


def measure_images(bench: Bench, repetition: Repetition, tools: Tools, variant: Variant = OWN) -> None:
    """Write ``images/LABEL.json`` unless it is there, or another process is at it."""
    label = variant.of(repetition.label)
    path = bench.out / "images" / f"{label}.json"
    with lock(bench.out / ".locks" / f"images.{label}.lock", wait=False) as held:
        if not held or path.exists():
            return
        made = synthetic_pairs(bench, repetition, variant)
        found: dict[str, Any] = {
            "fold": repetition.fold,
            "seed": repetition.seed,
            "resolution": bench.config.resolution,
            "n_synthetic": len(made),
            **({"generator": variant.generator} if variant.generator else {}),
            **({"sampling": dict(variant.options)} if variant.options else {}),
        }
        path.parent.mkdir(exist_ok=True)
        if variant == measured_variant(bench.config, variant.generator):
            found |= _measures(bench, repetition, tools, variant)
        if (gates := gate_summary(bench, repetition, tools, variant)) is not None:
            found["audit"] = {**found.get("audit", {}), "gates": gates}
        write_json(path, found)


def variants(config: StudyConfig, arms: Iterable[str]) -> tuple[Variant, ...]:
    """The generators and ways of sampling that these arms have, in their order."""
    found = [arm(name) for name in arms]
    return tuple(dict.fromkeys(v for one in found if "synthetic" in one.parts for v in variants_of(config, one)))


def measured_variant(config: StudyConfig, generator: str | None = None) -> Variant:
    """The way of sampling whose images are measured: the generator's own where an arm has it, else the first."""
    known, own = [v for v in variants(config, config.arms) if v.generator == generator], Variant(generator=generator)
    return known[0] if known and own not in known else own


def _measures(bench: Bench, repetition: Repetition, tools: Tools, variant: Variant) -> dict[str, Any]:
    made = synthetic_pairs(bench, repetition, variant)
    if bench.config.synthetic is not None or makes_masks(bench.of(variant).config):
        made = in_order_of_plan(made)  # its beginning shows all masks, or all classes in proportion
    synthetic = Pairs(made, bench.config.resolution)
    sets = image_sets(bench.of(variant), repetition, synthetic)
    picture = bench.out / "images" / f"{variant.of(repetition.label)}-closest.png"
    return {
        "distances": distances(bench, repetition, sets),
        "adherence": adherence(bench, repetition, synthetic, tools, variant),
        "audit": audits(bench, repetition, sets, picture, variant),
    }


@dataclass(frozen=True)
class ImageSet:
    """Images of these `ids`.

    Attributes:
        ids: One an image.
        images: (N, 3, R, R) uint8.
        features: (N, 2048) float64 Inception features, or None where not installed.
    """

    ids: tuple[str, ...]
    images: NDArray[np.uint8]
    features: NDArray[np.float64] | None

    def rows(self, index: slice | Sequence[int]) -> ImageSet:
        """Some of the images."""
        rows = range(len(self.ids))[index] if isinstance(index, slice) else list(index)
        ids = tuple(self.ids[i] for i in rows)
        return ImageSet(ids, self.images[index], None if self.features is None else self.features[index])


def image_set(ids: Sequence[str], images: NDArray[np.uint8]) -> ImageSet:
    """These images (N, 3, R, R) with their features."""
    return ImageSet(tuple(ids), images, _features(images))


def image_sets(bench: Bench, repetition: Repetition, synthetic: Pairs) -> dict[str, ImageSet]:
    """What is compared, each with its features.

    Returns:
        ``synthetic``, ``train`` (what the generator saw), ``reference`` (`reference_of`, 250 at most), ``held_out``
        (images of the reference and of the validation part, of other subjects than ``train``) and ``autoencoded`` (of
        ``train``) where the study, that of the generator, has a foundation.
    """
    resolution, rng = bench.config.resolution, numpy_rng(repetition.seed, "reference")
    others = reference_of(repetition)[0]
    chosen = sorted(others[i] for i in rng.permutation(len(others))[:MOST_REFERENCES])
    train = Pairs(bench.dataset.select(repetition.train), resolution).images()
    further = [i for i in repetition.validation if i not in set(chosen)]
    real = image_set([*chosen, *further], Pairs(bench.dataset.select([*chosen, *further]), resolution, False).images())
    seen = {bench.splits.subjects[i] for i in repetition.train}
    found = {
        "synthetic": image_set(synthetic.ids, synthetic.images()),
        "train": image_set(repetition.train, train),
        "reference": real.rows(slice(len(chosen))),
        "held_out": real.rows([k for k, i in enumerate(real.ids) if bench.splits.subjects[i] not in seen]),
    }
    if uses_foundation(bench.config):
        found["autoencoded"] = image_set(repetition.train, autoencode(train, bench, repetition))
    return found


def reference_of(repetition: Repetition) -> tuple[list[str], str]:
    """Ids of the real images that distances are measured to, and what they are: none that the generator saw."""
    others = [*repetition.extra, *repetition.pool]
    if len(others) >= min(len(repetition.train), MOST_REFERENCES):
        return others, "training images outside the annotated ones"
    return list(repetition.validation), "annotated images of the validation part"


def _features(images: NDArray[np.uint8]) -> NDArray[np.float64] | None:
    from morphogen.metrics import weights
    from morphogen.metrics.features import extract

    return extract(as_pictures(images)) if weights.available("inception") else None


def distances(bench: Bench, repetition: Repetition, sets: Mapping[str, ImageSet]) -> dict[str, Any]:
    """FID and KID of synthetic, real and autoencoded images, all of one number, against the same other real images.

    The row ``real`` is the floor (real against real), the row ``autoencoded`` that of any latent method. The reference
    is made of images that the generator never saw (`reference_of`). Where subjects gave several images (the frames of
    a video), it may share subjects with the annotated ones: the floor then lies lower than between subjects, and
    `reference` says so.

    Returns:
        ``features`` (None where the extractor is not installed), ``n``, ``n_reference``, ``reference`` and ``rows``:
        name -> ``fid`` and ``kid`` {mean, std, full, ...}.
    """
    from morphogen.metrics import weights

    if sets["train"].features is None:
        return {"features": None, "note": weights.MEMBERS["inception"].remedy, "rows": {}}
    theirs, says = reference_of(repetition)
    of, reference = bench.splits.subjects, sets["reference"]
    if {of[i] for i in theirs} & {of[i] for i in repetition.train}:
        says += " (partly of the same subjects, so that the floor is lower than between subjects)"
    n = min(len(repetition.train), len(sets["synthetic"].images))
    names = {"synthetic": "synthetic", "real": "train", "autoencoded": "autoencoded"}
    compared = {name: sets[held].rows(slice(n)) for name, held in names.items() if held in sets}
    rows = _against(compared, reference, repetition.seed)
    return {"features": "inception", "n": n, "n_reference": len(reference.images), "reference": says, "rows": rows}


def _against(compared: Mapping[str, ImageSet], reference: ImageSet, seed: int) -> dict[str, Any]:
    from morphogen.metrics.fid import fid
    from morphogen.metrics.kid import kid

    real, rows = reference.features, {}
    for name, some in compared.items():
        if real is not None and some.features is not None and min(len(real), len(some.features)) >= LEAST_IMAGES:
            rows[name] = {"fid": fid(some.features, real), "kid": asdict(kid(some.features, real, seed=seed))}
    return rows


def adherence(
    bench: Bench, repetition: Repetition, synthetic: Pairs, tools: Tools, variant: Variant = OWN
) -> dict[str, Any]:
    """Dice of an independent segmenter on all synthetic images against their masks, beside its own on unseen real ones.

    It is trained on the real training pairs with a seed of its own, its last weights are taken, and the validation part
    is what it has not seen. No loss and no choice has used it, nor its architecture (`judge_of_adherence`).
    """
    from morphogen.study.cells import JudgeRun

    config, judge = bench.config, judge_of_adherence(bench.config, variant.generator)
    seed = SEED_OF_ADHERENCE + repetition.seed
    job = JudgeRun(
        judge=judge.partition("+")[0],
        architecture=architecture_of(judge, config),
        train=[Pairs(bench.dataset.select(repetition.train), config.resolution)],
        validation=Pairs(bench.dataset.select(()), config.resolution),
        augmentation="geometric",
        steps=config.steps,
        batch=config.train_batch_size,
        seed=seed,
        out=bench.out / "runs" / f"adherence.{file_name(judge)}.{repetition.label}",
    )
    predict = tools.load(tools.train(job), config.device)
    held_out = Pairs(bench.dataset.select(repetition.validation), config.resolution)
    return {
        "judge": judge,
        "seed": seed,
        "dice": float(np.mean(dices(predict, synthetic))),
        "n": len(synthetic),
        "dice_on_real": float(np.mean(dices(predict, held_out))),
        "n_real": len(held_out),
        **said_of_loss(config, variant.generator),
    }
